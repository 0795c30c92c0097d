"""The visitor: who sends a request, as far as a cookie of ours tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from kenpin.calibration.web.role import Role
from kenpin.calibration.web.session import new_session_id
from kenpin.calibration.web.site import Site

# `__Host-`: only this host can have set it, over TLS or loopback, for all of its paths (RFC 6265bis 4.1.3.2).
SESSION_COOKIE = "__Host-kenpin"


@dataclass(frozen=True)
class Visitor:
    """Who sends a request.

    Attributes:
        name: Name of the user; empty = not logged in.
        role: What the visitor may do.
        session_id: What the cookie says, or is to say.
        is_new: Whether the browser has no such cookie yet.
    """

    name: str
    role: Role
    session_id: str
    is_new: bool


def site_of(request: Request) -> Site:
    """The site that a request came to."""
    return cast(Site, request.app.state.site)


def visitor_of(request: Request) -> Visitor:
    """Who sends a request; found out once.

    Raises:
        ConfigError: The list of users cannot be used.
        StoreError: The page's database cannot be read.
    """
    if not hasattr(request.state, "visitor"):
        request.state.visitor = _find(site_of(request), request.cookies.get(SESSION_COOKIE, ""))
    return cast(Visitor, request.state.visitor)


def address_of(request: Request) -> str:
    """Where the browser is; no header is believed."""
    return request.client.host if request.client else ""


def _find(site: Site, session_id: str) -> Visitor:
    role = Role.VIEWER if site.section.open_view else Role.ANYONE
    if not session_id:
        return Visitor("", role, new_session_id(), is_new=True)
    session = site.sessions.find(session_id)
    user = site.users.read().get(session.name) if session else None
    if session and user and session.user_since_ms == user.since_ms and not session.is_over(user.may):
        return Visitor(session.name, user.may, session_id, is_new=False)
    return Visitor("", role, session_id, is_new=False)
