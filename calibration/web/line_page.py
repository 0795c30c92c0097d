"""The Line page: the picture of the last part, its verdict, counters and alarms; it renews itself."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from kenpin.calibration.web import alarm_page
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.alarm_page import may_act
from kenpin.calibration.web.form_token import form_token
from kenpin.calibration.web.line_alarms import SHELVE_MIN
from kenpin.calibration.web.line_parts import HOURS
from kenpin.calibration.web.line_state import LineReader
from kenpin.calibration.web.page import page, part
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.review_tabs import LIMIT
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.score_strip import draw_strip
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of, visitor_of

MENU = Page("line", "/line")
router = APIRouter()
router.routes.extend(alarm_page.router.routes)


@router.get("/", dependencies=needs(Role.ANYONE))
def start() -> Response:
    """The Line page comes first."""
    return RedirectResponse(MENU.path, status_code=303)


@router.get(MENU.path, dependencies=needs(Role.VIEWER))
def line(request: Request) -> Response:
    """The whole page."""
    return page(request, "line.html", _shown(request))


@router.get("/line/panel", dependencies=needs(Role.VIEWER))
def panel(request: Request) -> Response:
    """What changes with each part, as a part of the page."""
    return part(request, "line_panel.html", _shown(request))


@router.get("/live.jpg", dependencies=needs(Role.VIEWER))
def picture(request: Request) -> Response:
    """The picture of the last part; asking for it lets the station go on writing it.

    Raises:
        Refused: 404 while there is none.
    """
    run = site_of(request).folder.run
    try:
        (run / "watched").touch()
        content = (run / "live.jpg").read_bytes()
    except OSError:
        raise Refused(404, "line_no_picture") from None
    return Response(content, media_type="image/jpeg")


def _shown(request: Request) -> dict[str, object]:
    reader: LineReader = request.app.state.line
    state = reader.read()
    return {
        "line": state,
        "strip": draw_strip(state.parts),
        "hours": HOURS,
        "most_waiting": LIMIT,
        "may": may_act(visitor_of(request)),
        "token": form_token(request),
        "minutes": SHELVE_MIN,
        "back": MENU.path,
    }
