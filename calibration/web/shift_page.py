"""The Shift check: each master three times, a good part after each; nothing is released meanwhile."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from kenpin import audit
from kenpin.calibrating import begin_calibrating, read_calibrating
from kenpin.calibration.masters_check import (
    check_masters,
    check_of,
    doubt_of,
    require_settings,
    steps,
    suspects_csv,
    write_broken_off,
)
from kenpin.calibration.web import shift_remove
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.calibrate_parts import newest_seq
from kenpin.calibration.web.page import page, part, spreadsheet, words_of
from kenpin.calibration.web.page_database import page_file
from kenpin.calibration.web.page_hold import end_hold
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.review_picture import as_jpeg
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.shift_run import ShiftRun, ShiftRuns, plan_of, shown_parts
from kenpin.calibration.web.shift_state import read_progress, read_standing
from kenpin.calibration.web.signature import Signature, signature
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of, visitor_of
from kenpin.edge_runtime.database import explained
from kenpin.errors import DataError, KenpinError
from kenpin.frame import read_picture
from kenpin.masters import active_product, read_masters
from kenpin.record import record_in_force

MENU = Page("shift", "/shift")
router = APIRouter()
router.routes.extend(shift_remove.router.routes)

_MASTER_PX = 800


@router.get(MENU.path, dependencies=needs(Role.VIEWER))
def shift(request: Request) -> Response:
    """How the masters stand; during a check, what to show next."""
    folder, run = site_of(request).folder, _runs(request).read()
    may = visitor_of(request).role >= Role.TECHNICIAN
    if run is not None:
        return page(request, "shift_run.html", {"run": run, "progress": read_progress(folder, run), "may": may})
    standing, note = read_standing(folder), read_calibrating(folder)
    show = {"standing": standing, "doubt": doubt_of(standing.suspects), "may": may, "note": note}
    return page(request, "shift.html", show)


@router.get("/shift/panel", dependencies=needs(Role.VIEWER))
def panel(request: Request) -> Response:
    """What changes with each part, as a part of the page.

    Raises:
        Refused: 404 if no check goes on any more.
    """
    run = _going_on(request, 404)
    may = visitor_of(request).role >= Role.TECHNICIAN
    show = {"run": run, "progress": read_progress(site_of(request).folder, run), "may": may}
    return part(request, "shift_panel.html", {**show, "token": ""})


@router.post("/shift/begin", dependencies=needs(Role.TECHNICIAN))
def begin(request: Request) -> Response:
    """Begin a check: from now on nothing is released.

    Raises:
        Refused: 409 if somebody calibrates or checks already, or nothing is there to be checked.
        CalibrationError: The cameras are not set as at the sign-off.
    """
    folder, masters = site_of(request).folder, read_masters(site_of(request).folder)
    if not masters.registered:
        raise Refused(409, "shift_no_masters")
    record = record_in_force(folder)
    if record is None:
        raise Refused(409, "shift_not_calibrated")
    require_settings(folder, record)
    if read_calibrating(folder) is not None or _runs(request).read() is not None:
        raise Refused(409, "shift_busy")
    name = visitor_of(request).name
    _runs(request).begin(ShiftRun(name, newest_seq(folder.database), plan_of(masters)))
    try:
        with explained(folder.calibrating):
            begin_calibrating(folder, name)
    except KenpinError:  # the station goes on releasing, or somebody else has begun just now
        _runs(request).end()
        raise
    return RedirectResponse(MENU.path, status_code=303)


@router.post("/shift/end", dependencies=needs(Role.TECHNICIAN))
def end(request: Request) -> Response:
    """Write the result down; the station goes on.

    Raises:
        Refused: 409 if not all was shown, or the masters were changed meanwhile.
    """
    folder, run = site_of(request).folder, _going_on(request, 409)
    masters = read_masters(folder)
    plan = steps(masters)
    seen = shown_parts(folder.database, run, limit=len(plan))
    if len(seen) < len(plan):
        raise Refused(409, "shift_not_done")
    if plan_of(masters) != run.plan:
        raise Refused(409, "shift_void")
    parts = iter(seen)
    shown_by = dict.fromkeys((run.by, visitor_of(request).name))  # another shift may have gone on with it
    check_masters(folder, lambda _step: next(parts), by=" + ".join(shown_by))
    end_hold(folder, _runs(request).end)
    return RedirectResponse(MENU.path, status_code=303)


@router.get("/shift/give-up", dependencies=needs(Role.TECHNICIAN))
def ask_to_give_up(request: Request) -> Response:
    """The form that gives a check up.

    Raises:
        Refused: 404 if no check goes on.
    """
    run = _going_on(request, 404)
    return page(request, "shift_give_up.html", {"progress": read_progress(site_of(request).folder, run)})


@router.post("/shift/give-up", dependencies=needs(Role.TECHNICIAN))
def give_up(request: Request, signed: Annotated[Signature, Depends(signature)]) -> Response:
    """Give a check up. What it has shown stands in the audit, and where anything was wrong it has failed.

    Raises:
        Refused: 409 if no check goes on.
    """
    folder, run = site_of(request).folder, _going_on(request, 409)
    progress = read_progress(folder, run)
    told = f"given up after {progress.shown} of {progress.total} showings, {progress.wrong} of them wrong"
    audit.append(folder, audit.Entry("masters check", signed.by, "", told, signed.why))
    record = record_in_force(folder)
    if record is not None and not progress.is_void:  # else nobody can tell what was to be shown
        so_far = check_of(progress.showings, record, active_product(folder))
        write_broken_off(folder, so_far, by=signed.by)
    end_hold(folder, _runs(request).end)
    return RedirectResponse(MENU.path, status_code=303)


@router.get("/shift/suspects.csv", dependencies=needs(Role.VIEWER))
def suspects(request: Request) -> Response:
    """Every part since the last check that was passed, where the last one was not."""
    doubted = read_standing(site_of(request).folder).suspects
    text = suspects_csv(doubted, separator=words_of(request).separator)
    return spreadsheet(request, text, "suspects")


@router.get("/shift/master/{name}", dependencies=needs(Role.VIEWER))
def master(request: Request, name: str) -> Response:
    """The picture of a master.

    Raises:
        Refused: 404 if there is no such master, or its picture is gone.
    """
    folder = site_of(request).folder
    found = read_masters(folder).registered.get(name)
    if found is None:
        raise Refused(404, "review_no_picture")
    try:
        return as_jpeg(read_picture(folder.root / found.picture), _MASTER_PX)
    except DataError:
        raise Refused(404, "review_no_picture") from None


def _runs(request: Request) -> ShiftRuns:
    return ShiftRuns(page_file(site_of(request).folder))


def _going_on(request: Request, status: int) -> ShiftRun:
    run = _runs(request).read()
    if run is None:
        raise Refused(status, "shift_none")
    return run
