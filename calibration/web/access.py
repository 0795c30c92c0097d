"""Access: which role each route asks for, and what lets nobody else through (IEC 62443-4-2 CR 2.1)."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import Request, params
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute

from kenpin.calibration.web.form_token import check_form
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.visitor import visitor_of
from kenpin.errors import ConfigError


class Needs:
    """Lets nobody through who has not at least this role, and no change but by a form of ours.

    Args:
        role: The least role.
    """

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> None:
        """Check one request.

        Raises:
            Refused: 401 without a login, 403 with too low a role or a form that is not ours.
        """
        if self.role is Role.ANYONE and request.method == "GET":
            return
        visitor = await run_in_threadpool(visitor_of, request)
        if visitor.role < self.role:
            raise Refused(403, "refused_role") if visitor.name else Refused(401, "refused_login")
        if request.method not in ("GET", "HEAD"):
            await check_form(request)


def needs(role: Role) -> list[params.Depends]:
    """What a route takes as `dependencies`.

    Args:
        role: The least role that may use it.
    """
    return [params.Depends(Needs(role))]


def role_of(route: APIRoute) -> Role | None:
    """The role that a route declares; `None` = it declares none."""
    found = [d.call for d in route.dependant.dependencies if isinstance(d.call, Needs)]
    return found[0].role if len(found) == 1 else None


def check_declared(routes: Iterable[BaseRoute]) -> None:
    """Refuse a page on which anybody could do what nobody has thought about.

    Raises:
        ConfigError: A route declares no role, or more than one.
    """
    for route in routes:
        if not isinstance(route, APIRoute) or role_of(route) is None:
            raise ConfigError(
                "a route of the page declares no role",
                where=getattr(route, "path", route),
                cure="give it dependencies=needs(Role.…); take in other routers by routes.extend(other.routes)",
            )
