"""All alarms of the station on one page, and what an operator does to them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from kenpin.calibration.web.access import needs
from kenpin.calibration.web.alarm_deed import do_to_alarm
from kenpin.calibration.web.line_alarms import SHELVE_MIN, Deed, shown_alarms
from kenpin.calibration.web.page import page
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.visitor import Visitor, site_of, visitor_of
from kenpin.errors import StoreError

_PATH = "/line/alarms"
_ROWS = 12
router = APIRouter()


@router.get(_PATH, dependencies=needs(Role.VIEWER))
def alarms(request: Request, sheet: int = Query(default=1, ge=1, le=100)) -> Response:
    """One sheet of the alarms that stand or are set aside, the most urgent first."""
    try:
        found = shown_alarms(site_of(request).folder.database)
    except StoreError:
        found = ()
    sheets = max(1, -(-len(found) // _ROWS))
    sheet = min(sheet, sheets)
    show = {"alarms": found[(sheet - 1) * _ROWS : sheet * _ROWS], "sheet": sheet, "sheets": sheets}
    show |= {"may": may_act(visitor_of(request)), "minutes": SHELVE_MIN, "back": _PATH}
    return page(request, "alarms.html", show)


@router.post("/line/alarm", dependencies=needs(Role.TECHNICIAN))
def act(
    request: Request,
    alarm: Annotated[str, Form(max_length=64)] = "",
    occurrence: Annotated[int, Form(ge=0, lt=1 << 62)] = 0,
    deed: Annotated[Deed, Form()] = "ack",
    back: Annotated[Literal["/line", "/line/alarms"], Form()] = "/line",
) -> Response:
    """Acknowledge, reset, set aside or bring back.

    Args:
        request: Who asks.
        alarm: Its key.
        occurrence: The raise that was looked at; a newer one is not acknowledged with it.
        deed: What to do.
        back: Where the form stood.

    Raises:
        Refused: 409 if it was raised anew, or is settled already.
    """
    site = site_of(request)
    shown = {found.spec.key: found for found in shown_alarms(site.folder.database)}.get(alarm)
    if shown is None or deed not in shown.deeds or shown.standing.occurrence != occurrence:
        raise Refused(409, "alarm_changed")
    if do_to_alarm(site.folder, site.station, shown, deed, by=visitor_of(request).name):
        raise Refused(409, "alarm_changed")
    return RedirectResponse(back, status_code=303)


def may_act(visitor: Visitor) -> bool:
    """Whether buttons are shown: who has not logged in yet is asked to when pressing one."""
    return not visitor.name or visitor.role >= Role.TECHNICIAN
