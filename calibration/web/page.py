"""How a page is made: a template, the words of the visitor's language, and what stands around every page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from kenpin.calibration.web.form_token import form_token
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.visitor import SESSION_COOKIE, address_of, site_of, visitor_of
from kenpin.calibration.web.words import LANGUAGES, Words
from kenpin.config import is_loopback

LANGUAGE_COOKIE = "__Host-language"


def words_of(request: Request) -> Words:
    """The words of the language that the visitor chose, else of the station's."""
    site = site_of(request)
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return site.languages[chosen if chosen in site.languages else site.section.language]


def page(request: Request, template: str, show: Mapping[str, object], *, status: int = 200) -> Response:
    """A whole page; it counts as a sign of life of whoever is logged in.

    Args:
        request: Who asks.
        template: Its file in `templates/`.
        show: What the template wants to know besides.
        status: Of HTTP.
    """
    site, visitor = site_of(request), visitor_of(request)
    if visitor.name:
        site.sessions.touch(visitor.session_id)
    around = {
        "site": site,
        "visitor": visitor,
        "languages": LANGUAGES,
        "here": here(request),
        "path": here(request).partition("?")[0],
        "token": form_token(request),
        "seconds": _seconds(request),
    }
    response = part(request, template, {**around, **show}, status=status)
    if visitor.is_new:
        set_cookie(response, SESSION_COOKIE, visitor.session_id)
    return response


def here(request: Request) -> str:
    """The page that is looked at, with what its address asks for: the sheet of a list, or one part."""
    return page_before(request) or _with_query(request.url.path, request.url.query)


def page_before(request: Request) -> str:
    """The page whose form was sent; empty where no form was, or the browser does not tell."""
    try:
        before = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # no browser sends such a one
        return ""
    is_ours = before.netloc == request.url.netloc and not before.path.startswith("//")
    return _with_query(before.path, before.query) if request.method == "POST" and is_ours else ""


def _seconds(request: Request) -> Sequence[str]:
    """Who may sign beside the visitor, to choose from, for whoever stands at the station; the network types."""
    site, visitor = site_of(request), visitor_of(request)
    if not site.section.second_person or not is_loopback(address_of(request)):
        return ()
    users = site.users.read().items()
    return sorted(name for name, user in users if user.may >= Role.TECHNICIAN and name != visitor.name)


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def part(request: Request, template: str, show: Mapping[str, object], *, status: int = 200) -> Response:
    """A part of a page that renews itself.

    Args:
        request: Who asks.
        template: Its file in `templates/`.
        show: What the template wants to know.
        status: Of HTTP.
    """
    made = site_of(request).templates.get_template(template)
    return HTMLResponse(made.render(words=words_of(request), **show), status_code=status)


def spreadsheet(request: Request, text: str, name: str) -> Response:
    """A file of CSV to keep; the mark in front lets spreadsheets read UTF-8.

    Args:
        request: Who asks.
        text: What it says.
        name: Of the file, after the station's.
    """
    named = {"Content-Disposition": f'attachment; filename="{site_of(request).station}-{name}.csv"'}
    return Response("\ufeff" + text, media_type="text/csv; charset=utf-8", headers=named)


def set_cookie(response: Response, name: str, value: str, *, max_age_s: int | None = None) -> None:
    """Let the browser remember something, and tell it to nobody but us.

    Args:
        response: What is answered.
        name: Begins with `__Host-`.
        value: What to remember.
        max_age_s: For how long; `None` = until the browser is closed.
    """
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=True, httponly=True, samesite="strict")
