"""The What-if page: what other thresholds would have made of the last 7 days. Nothing is changed here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from kenpin.calibration.review import reviewed_parts
from kenpin.calibration.review_bench import parts_of
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.page import page, part
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of
from kenpin.calibration.web.what_if_history import Histories
from kenpin.calibration.web.what_if_plot import draw, scale_of
from kenpin.calibration.what_if import Limits, known_parts, what_if
from kenpin.record import CalibrationRecord, record_in_force

MENU = Page("what_if", "/what-if")
router = APIRouter()

_FRESH_S, _MOVING_S = 60.0, 900.0
_LISTED = 7
Score = Annotated[float | None, Query(allow_inf_nan=False)]


@router.get(MENU.path, dependencies=needs(Role.VIEWER))
def look(request: Request, t1: Score = None, t2: Score = None) -> Response:
    """The whole page."""
    record = record_in_force(site_of(request).folder)
    if record is None:
        return page(request, "what_if.html", {"record": None})
    return page(request, "what_if.html", _shown(request, record, (t1, t2), _FRESH_S))


@router.get("/what-if/panel", dependencies=needs(Role.VIEWER))
def panel(request: Request, t1: Score = None, t2: Score = None) -> Response:
    """What changes with each move, as a part of the page."""
    record = record_in_force(site_of(request).folder)
    if record is None:
        return part(request, "what_if_panel.html", {"record": None})
    return part(request, "what_if_panel.html", _shown(request, record, (t1, t2), _MOVING_S))


def _shown(
    request: Request, record: CalibrationRecord, wanted: tuple[float | None, float | None], max_age_s: float
) -> dict[str, object]:
    folder = site_of(request).folder
    histories: Histories = request.app.state.histories
    history = histories.get(record.bundle_sha256, max_age_s=max_age_s)
    known = known_parts(reviewed_parts(folder), record.bundle_sha256, record.masters)
    now = Limits(record.t1, record.t2)
    scale = scale_of(history, now)
    then = _limits(wanted, now)
    outcome, before = (what_if(history, known, now=now, then=limits) for limits in (then, now))
    some = [seq for change in outcome.changes for seq in change.seqs][:_LISTED]
    return {
        "record": record,
        "scale": scale,
        "now": now,
        "then": then,
        "outcome": outcome,
        "before": before,
        "plot": draw(history, known, scale, now=now, then=then),
        "changed": parts_of(folder, some),
        "hours": history.hours,
    }


def _limits(wanted: tuple[float | None, float | None], now: Limits) -> Limits:
    """T1 never stands above T2; which one was moved the browser knows, and lets it push the other."""
    t1, t2 = (now_t if t is None else t for t, now_t in zip(wanted, (now.t1, now.t2), strict=True))
    return Limits(t1, max(t1, t2))
