"""The Calibrate page: from the check of the camera to a signed calibration, one step at a time.

Where a calibration stands is kept by the station, not by the browser: every browser shows the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from math import ceil

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from kenpin.calibrating import read_calibrating
from kenpin.calibration.fit import LEAST_GOOD_PARTS
from kenpin.calibration.origin import is_narrow
from kenpin.calibration.web import calibrate_change, calibrate_view_page
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.calibrate_camera import Bar, CameraReader
from kenpin.calibration.web.calibrate_fresh import FreshCount, count_fresh
from kenpin.calibration.web.calibrate_limits import assess, limits_of, nearest
from kenpin.calibration.web.calibrate_parts import MOST_LOTS, Shown
from kenpin.calibration.web.calibrate_plot import draw_plot, step_of
from kenpin.calibration.web.calibrate_run import STEPS, Run, Runs
from kenpin.calibration.web.calibrate_shown import measured_pictures, registered_types, shown_for
from kenpin.calibration.web.calibrate_sign import without_picture
from kenpin.calibration.web.form_token import form_token
from kenpin.calibration.web.limit_field import LimitField
from kenpin.calibration.web.page import page, part
from kenpin.calibration.web.page_database import page_file
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.shift_run import shift_under_way
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of
from kenpin.edge_runtime.light import light_against_sign_off
from kenpin.errors import KenpinError, StoreError
from kenpin.events import now_ms
from kenpin.masters_due import masters_due
from kenpin.quality_limits import LEAST

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
        template = "light" if _is_held(now) else now.run.step
        return page(request, f"calibrate_{template}.html", _at_step(request, now))
    count, fault = _count(request)
    note = read_calibrating(site_of(request).folder)
    step = step or ("camera" if note else "")  # there stands who holds the station, and the way to end it
    around = {"run": None, "step": "confirm" if _is_confirm(step, count) else "camera", "steps": STEPS}
    if around["step"] == "confirm":
        return page(request, "calibrate_confirm.html", {**around, **_fresh(request, count, fault)})
    light = light_against_sign_off(site_of(request).folder)
    checking = shift_under_way(site_of(request).folder)
    show = {
        **around,
        "bars": _bars(request),
        "note": note,
        "checking": checking,
        "count": count,
        "light": light,
    }
    return page(request, "calibrate_camera.html", show)


@router.get("/calibrate/light", dependencies=needs(Role.VIEWER))
def light(request: Request, step: str = Query(default="", max_length=20)) -> Response:
    """Whether the light lets anybody begin, or go on, as a part of the page; nothing where it is the other."""
    now = _moment(request)
    if step not in ("", "camera" if now is None else "held"):
        return Response(status_code=204)
    if now is not None:
        return part(request, "calibrate_light_panel.html", {"light": now.shown.light})
    found = light_against_sign_off(site_of(request).folder)
    return part(request, "calibrate_begin.html", {"light": found, "token": form_token(request)})


@router.get("/calibrate/bars", dependencies=needs(Role.VIEWER))
def bars(request: Request) -> Response:
    """The measures of the camera, as a part of the page."""
    return part(request, "calibrate_bars.html", {"bars": _bars(request)})


@router.get("/calibrate/shown", dependencies=needs(Role.VIEWER))
def shown(request: Request, step: str = Query(default="", max_length=20)) -> Response:
    """What was shown so far, as a part of the page; nothing at a step that shows nothing new, or at another."""
    now = _moment(request)
    if now is None or now.run.step not in _PARTIAL or step not in ("", now.run.step):
        return Response(status_code=204)
    return part(request, _PARTIAL[now.run.step], _at_step(request, now))


@router.get("/calibrate/limits", dependencies=needs(Role.VIEWER))
def limits(
    request: Request, t1: float = Query(allow_inf_nan=False), t2: float = Query(allow_inf_nan=False)
) -> Response:
    """What another position of T1 and T2 would mean, as a part of the page; nothing is changed."""
    now = _moment(request)
    if now is None or now.run.step != "limits" or t1 > t2 or not now.shown.good:
        raise Refused(409, "calibrate_other_step")
    field = LimitField.beside(step_of(now.shown))
    t1, t2 = field.read_both((t1, t2), limits_of(now.run, now.shown))
    return part(request, "calibrate_limits_panel.html", _position(now, t1, t2))


@router.get("/calibrate/fresh", dependencies=needs(Role.VIEWER))
def fresh(request: Request) -> Response:
    """What fresh parts have shown, as a part of the page."""
    count, fault = _count(request)
    return part(request, "calibrate_fresh.html", _fresh(request, count, fault))


@router.get("/calibrate/end", dependencies=needs(Role.TECHNICIAN))
def ask_to_give_up(request: Request) -> Response:
    """Whether what was shown is to be forgotten: it cannot be brought back."""
    now = _moment(request)
    if now is None:
        raise Refused(404, "calibrate_none")
    return page(request, "calibrate_give_up.html", {"run": now.run, "shown": now.shown})


@router.get("/calibrate/look/{seq}", dependencies=needs(Role.VIEWER))
def look(request: Request, seq: int = Path(ge=0, lt=1 << 62)) -> Response:
    """One part that was shown, large, to say what it is."""
    now = _moment(request)
    found = now.shown.part(seq) if now else None
    if now is None or found is None:
        raise Refused(404, "calibrate_no_part")
    label, next_name = now.run.labels.get(seq), _next_name(now, registered_types(site_of(request).folder))
    return page(request, "calibrate_look.html", {"part": found, "label": label, "next_name": next_name})


def _moment(request: Request) -> Moment | None:
    run = Runs(page_file(site_of(request).folder)).read()
    if run is None:
        return None
    try:
        return Moment(run, shown_for(site_of(request).folder, run))
    except StoreError:
        return Moment(run, Shown())  # the station has moved a damaged database aside


def _is_held(now: Moment) -> bool:
    """Whether thresholds would be moved in another light than that of the good parts."""
    light = now.shown.light
    return now.run.step in ("limits", "sign") and light is not None and light.is_other


def _at_step(request: Request, now: Moment) -> dict[str, object]:
    show: dict[str, object] = {
        "run": now.run,
        "step": now.run.step,
        "steps": STEPS,
        "shown": now.shown,
        "wanted": {"good": WANTED_GOOD, "masters": WANTED_MASTERS, "least": LEAST_GOOD_PARTS},
        "is_narrow": is_narrow(now.shown.origin),
        "most_lots": MOST_LOTS,
        "least_pictures": LEAST,
    }
    if now.run.step == "masters":
        registered = registered_types(site_of(request).folder)
        show |= {"next_name": _next_name(now, registered), "registered": registered}
    if now.run.step == "sign":
        show["unpictured"] = without_picture(site_of(request).folder, now.shown.masters)
        found = measured_pictures(site_of(request).folder, now.shown.good)
        show["pictures"] = sum(1 for _ in islice(found, LEAST))  # to read more of them would say no more
    if now.run.step in ("limits", "sign") and now.shown.good:
        show |= _position(now, *limits_of(now.run, now.shown))
    return show


def _position(now: Moment, t1: float, t2: float) -> dict[str, object]:
    found = assess(now.shown, t1, t2)
    field = LimitField.beside(step_of(now.shown))
    cycle_s = now.shown.cycle_s
    in_review = found.stopped - found.as_ng
    return {
        "found": found,
        "plot": draw_plot(now.shown, t1, t2),
        "digits": field.digits,
        "texts": field.texts((t1, t2)),
        "unnamed_passing": sum(score < t1 for score in now.shown.unnamed),
        "near": nearest(now.shown, t1, t2),
        "shown": now.shown,
        "is_narrow": is_narrow(now.shown.origin),
        "wanted_masters": WANTED_MASTERS,
        "good_in_review": in_review,
        "per_hour": 3600 / cycle_s * in_review / found.good if cycle_s else None,
        "minutes": ceil(found.more * cycle_s / 60) if cycle_s else None,
    }


def _next_name(now: Moment, registered: Mapping[str, str]) -> str:
    """A name that no part has: one under the name of another would not be kept for the shift check."""
    taken = {*registered, *(m.label.name for m in now.shown.masters)}
    return next(name for name in (f"M-{k:02}" for k in range(1, len(taken) + 2)) if name not in taken)


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
    folder = site_of(request).folder
    due, light = masters_due(folder, now_ms()), light_against_sign_off(folder)
    return {"count": count, "fault": fault, "due": due, "light": light}


def _is_confirm(step: str, count: FreshCount | None) -> bool:
    """What nobody has asked for: the confirm run, while there is one."""
    return step == "confirm" or (step != "camera" and count is not None and count.record.state == "TRIAL")
