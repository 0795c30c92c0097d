"""The Calibrate page: from the check of the camera to a signed calibration, one step at a time.

Where a calibration stands is kept by the station, not by the browser: every browser shows the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from kenpin.calibrating import read_calibrating
from kenpin.calibration.fit import LEAST_GOOD_PARTS
from kenpin.calibration.web import calibrate_change, calibrate_view_page
from kenpin.calibration.web.calibrate_camera import Bar, CameraReader
from kenpin.calibration.web.calibrate_fresh import FreshCount, count_fresh
from kenpin.calibration.web.calibrate_limits import assess, nearest, suggest
from kenpin.calibration.web.calibrate_parts import Shown, read_shown
from kenpin.calibration.web.calibrate_plot import draw_plot
from kenpin.calibration.web.calibrate_run import STEPS, Run, Runs
from kenpin.calibration.web.page import page, part
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.roles import needs
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of
from kenpin.errors import KenpinError, StoreError
from kenpin.events import now_ms
from kenpin.masters import masters_due, read_masters

MENU = Page("calibrate", "/calibrate")
WANTED_GOOD, WANTED_MASTERS = 50, 10
_PARTIAL = {"good": "calibrate_good_panel.html", "masters": "calibrate_newest.html"}

router = APIRouter()
router.routes.extend(calibrate_change.router.routes)
router.routes.extend(calibrate_view_page.router.routes)


@dataclass(frozen=True)
class Moment:
    """A calibration as it stands now.

    Attributes:
        run: The calibration.
        shown: What was shown for it.
    """

    run: Run
    shown: Shown


@router.get(MENU.path, dependencies=needs(Role.VIEWER))
def calibrate(request: Request, step: str = Query(default="", max_length=20)) -> Response:
    """The step that the calibration has reached; without one the check of the camera, or the confirm run."""
    now = _moment(request)
    if now is not None:
        return page(request, f"calibrate_{now.run.step}.html", _at_step(request, now))
    count, fault = _count(request)
    around = {"run": None, "step": "confirm" if _is_confirm(step, count) else "camera", "steps": STEPS}
    if around["step"] == "confirm":
        return page(request, "calibrate_confirm.html", {**around, **_fresh(request, count, fault)})
    note = read_calibrating(site_of(request).folder)
    show = {**around, "bars": _bars(request), "note": note, "count": count}
    return page(request, "calibrate_camera.html", show)


@router.get("/calibrate/bars", dependencies=needs(Role.VIEWER))
def bars(request: Request) -> Response:
    """The measures of the camera, as a part of the page."""
    return part(request, "calibrate_bars.html", {"bars": _bars(request)})


@router.get("/calibrate/shown", dependencies=needs(Role.VIEWER))
def shown(request: Request) -> Response:
    """What was shown so far, as a part of the page; nothing at a step that shows nothing new."""
    now = _moment(request)
    if now is None or now.run.step not in _PARTIAL:
        return Response(status_code=204)
    return part(request, _PARTIAL[now.run.step], _at_step(request, now))


@router.get("/calibrate/limits", dependencies=needs(Role.VIEWER))
def limits(
    request: Request,
    t1: float = Query(allow_inf_nan=False),
    t2: float = Query(allow_inf_nan=False),
) -> Response:
    """What another position of T1 and T2 would mean, as a part of the page; nothing is changed."""
    now = _moment(request)
    if now is None or now.run.step != "limits" or t1 > t2:
        raise Refused(409, "calibrate_other_step")
    return part(request, "calibrate_limits_panel.html", _position(now, t1, t2))


@router.get("/calibrate/fresh", dependencies=needs(Role.VIEWER))
def fresh(request: Request) -> Response:
    """What fresh parts have shown, as a part of the page."""
    count, fault = _count(request)
    return part(request, "calibrate_fresh.html", _fresh(request, count, fault))


@router.get("/calibrate/look/{seq}", dependencies=needs(Role.VIEWER))
def look(request: Request, seq: int = Path(ge=0, lt=1 << 62)) -> Response:
    """One part that was shown, large, to say what it is."""
    now = _moment(request)
    known = [*now.shown.good, *now.shown.newest, *(m.part for m in now.shown.masters)] if now else []
    found = next((part_ for part_ in known if part_.seq == seq), None)
    if now is None or found is None:
        raise Refused(404, "calibrate_no_part")
    label = now.run.labels.get(seq)
    return page(request, "calibrate_look.html", {"part": found, "label": label, "next_name": _next_name(now)})


def _moment(request: Request) -> Moment | None:
    run = Runs(site_of(request).folder.root / "page.db").read()
    if run is None:
        return None
    try:
        return Moment(run, read_shown(site_of(request).folder.database, run))
    except StoreError:
        return Moment(run, Shown())  # the station has moved a damaged database aside


def _at_step(request: Request, now: Moment) -> dict[str, object]:
    show: dict[str, object] = {
        "run": now.run,
        "step": now.run.step,
        "steps": STEPS,
        "shown": now.shown,
        "wanted": {"good": WANTED_GOOD, "masters": WANTED_MASTERS, "least": LEAST_GOOD_PARTS},
    }
    if now.run.step == "masters":
        show |= {"next_name": _next_name(now), "registered": _registered(request)}
    if now.run.step in ("limits", "sign") and now.shown.good:
        show |= _position(now, now.run.t1, now.run.t2)
    return show


def _position(now: Moment, t1: float | None, t2: float | None) -> dict[str, object]:
    suggested = suggest(now.shown)
    t1, t2 = suggested.t1 if t1 is None else t1, suggested.t2 if t2 is None else t2
    found = assess(now.shown, t1, t2)
    cycle_s = now.shown.cycle_s
    in_review = found.stopped - found.as_ng
    return {
        "found": found,
        "plot": draw_plot(now.shown, t1, t2),
        "near": nearest(now.shown, t1, t2),
        "shown": now.shown,
        "good_in_review": in_review,
        "per_hour": 3600 / cycle_s * in_review / found.good if cycle_s else None,
        "minutes": ceil(found.more * cycle_s / 60) if cycle_s else None,
    }


def _next_name(now: Moment) -> str:
    taken = {m.label.name for m in now.shown.masters}
    return next(name for name in (f"M-{k:02}" for k in range(1, len(taken) + 2)) if name not in taken)


def _registered(request: Request) -> dict[str, str]:
    """Masters of the shift check: name and type."""
    try:
        known = read_masters(site_of(request).folder).registered
    except KenpinError:
        return {}
    return {name: known[name].type for name in sorted(known)}


def _bars(request: Request) -> list[Bar]:
    reader: CameraReader = request.app.state.camera
    return list(reader.read())


def _count(request: Request) -> tuple[FreshCount | None, str]:
    folder = site_of(request).folder
    try:
        return count_fresh(folder), ""
    except KenpinError as error:
        return None, str(error)


def _fresh(request: Request, count: FreshCount | None, fault: str) -> dict[str, object]:
    return {"count": count, "fault": fault, "due": masters_due(site_of(request).folder, now_ms())}


def _is_confirm(step: str, count: FreshCount | None) -> bool:
    """What nobody has asked for: the confirm run, while there is one."""
    return step == "confirm" or (step != "camera" and count is not None and count.record.state == "TRIAL")
