"""Logging in and out, and the choice of the language."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from kenpin import audit
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.page import LANGUAGE_COOKIE, page, set_cookie
from kenpin.calibration.web.pin_trail import WHAT
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.visitor import SESSION_COOKIE, address_of, site_of, visitor_of
from kenpin.calibration.web.words import LANGUAGES
from kenpin.config import is_loopback

router = APIRouter()
_YEAR_S = 365 * 86_400

Text = Annotated[str, Form(max_length=256)]


@router.get("/login", dependencies=needs(Role.ANYONE))
def ask(request: Request) -> Response:
    """The login page."""
    return login_page(request)


@router.post("/login", dependencies=needs(Role.ANYONE))
def log_in(request: Request, name: Text = "", pin: Text = "", back: Text = "/") -> Response:
    """Check name and PIN, and go back to where the visitor came from."""
    site = site_of(request)
    try:
        user = site.pins.check(name, pin, address=address_of(request))
    except Refused as refused:
        return login_page(request, refused=refused, back=back, name=name)
    audit.append(site.folder, audit.Entry(WHAT, name, "", "logged in", f"from {address_of(request)}"))
    response = RedirectResponse(_own_path(back), status_code=303)
    set_cookie(response, SESSION_COOKIE, site.sessions.start(name, user_since_ms=user.since_ms))
    return response


@router.post("/logout", dependencies=needs(Role.ANYONE))
def log_out(request: Request) -> Response:
    """End the session."""
    site, visitor = site_of(request), visitor_of(request)
    site.sessions.end(visitor.session_id)
    if visitor.name:
        audit.append(site.folder, audit.Entry(WHAT, visitor.name, "logged in", "logged out"))
    return RedirectResponse("/", status_code=303)


@router.post("/language", dependencies=needs(Role.ANYONE))
def choose_language(language: Text = "", back: Text = "/") -> Response:
    """Remember the language of this browser."""
    response = RedirectResponse(_own_path(back), status_code=303)
    if language in LANGUAGES:
        set_cookie(response, LANGUAGE_COOKIE, language, max_age_s=_YEAR_S)
    return response


def login_page(
    request: Request, *, refused: Refused | None = None, back: str = "/", name: str = ""
) -> Response:
    """The form, with what was wrong.

    Who stands at the station sees whom there is to choose from; the network does not.

    Args:
        request: Who asks.
        refused: Why the last try, or the page before, was refused.
        back: Where to go afterwards.
        name: What was typed before.
    """
    users = site_of(request).users.read()
    show = {
        "names": sorted(users) if is_loopback(address_of(request)) else [],
        "has_users": bool(users),
        "refused": refused,
        "back": _own_path(back),
        "name": name,
    }
    response = page(request, "login.html", show, status=refused.status_code if refused else 200)
    if refused and "seconds" in refused.values:
        response.headers["Retry-After"] = str(refused.values["seconds"])
    return response


def _own_path(back: str) -> str:
    """A path of this site; two slashes, a backslash and whole addresses lead elsewhere."""
    plain = back.isascii() and back.isprintable() and "\\" not in back
    return back if plain and back.startswith("/") and not back.startswith("//") else "/"
