"""What a technician does on the Calibrate page: every change, each by a form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from kenpin import audit
from kenpin.calibrating import begin_calibrating, read_calibrating
from kenpin.calibration.fit import LEAST_GOOD_PARTS
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.calibrate_limits import Assessment, assess, limits_of
from kenpin.calibration.web.calibrate_parts import MOST_LOTS, Shown, newest_seq
from kenpin.calibration.web.calibrate_plot import step_of
from kenpin.calibration.web.calibrate_run import STEPS, Kind, Label, Run, Runs, Start
from kenpin.calibration.web.calibrate_shown import registered_types, shown_for
from kenpin.calibration.web.calibrate_sign import half_signed, register_masters, sign
from kenpin.calibration.web.limit_field import LimitField
from kenpin.calibration.web.page import words_of
from kenpin.calibration.web.page_database import page_file
from kenpin.calibration.web.page_hold import end_hold
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.shift_run import shift_under_way
from kenpin.calibration.web.signature import Signature, signature
from kenpin.calibration.web.visitor import site_of, visitor_of
from kenpin.edge_runtime.database import explained
from kenpin.edge_runtime.light import Light, light_against_sign_off
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.precision import Precision
from kenpin.station_folder import StationFolder

_PATH = "/calibrate"
_STALE_S = 5.0
_KINDS = ("good", "left", "master")

SeqField = Annotated[int, Form(ge=0, lt=1 << 62)]
Name = Annotated[str, Form(max_length=64)]
Number = Annotated[float | None, Form(allow_inf_nan=False)]
router = APIRouter()


@router.post("/calibrate/begin", dependencies=needs(Role.TECHNICIAN))
def begin(request: Request, why: Annotated[str, Form(max_length=200)] = "") -> Response:
    """From here on no part is released, and the parts that come are good ones.

    Args:
        request: Who asks.
        why: Why the light is meant to be another than that of the sign-off.
    """
    folder, by = site_of(request).folder, visitor_of(request).name
    if _runs(request).read() is not None:
        raise Refused(409, "calibrate_going_on")
    _check_no_shift_check(request)
    if read_calibrating(folder) is not None:  # its end would let the parts of this calibration be released
        raise Refused(409, "shift_busy")
    texts = _told(folder)
    bundle, precision = texts.get("bundle_sha256", ""), texts.get("precision", "")
    if not bundle or not precision:
        raise Refused(409, "calibrate_no_station")
    newest, cameras = newest_seq(folder.database), texts.get("cameras", "")
    start = Start(by, bundle, cast(Precision, precision), newest, cameras)
    begun = "begun: no part is released" + _meant(light_against_sign_off(folder), why.strip())
    audit.append(folder, audit.Entry("calibrating", by, "", begun, why.strip()))
    with explained(folder.calibrating):
        begin_calibrating(folder, by)
    _runs(request).begin(start)
    return _back()


@router.post("/calibrate/end", dependencies=needs(Role.TECHNICIAN))
def give_up(request: Request) -> Response:
    """Nothing is signed; the station goes on as before."""
    folder, by = site_of(request).folder, visitor_of(request).name
    _check_no_shift_check(request)
    run = _runs(request).read()
    left = half_signed(folder, run.start) if run is not None else None
    if left is not None:
        t1, t2 = (words_of(request).typed(f"{t:.6g}") for t in (left.t1, left.t2))
        raise Refused(409, "calibrate_half_signed", t1=t1, t2=t2)
    note = read_calibrating(folder)
    of_another = f"held by {note.by}" if note is not None and note.by != by else ""
    audit.append(folder, audit.Entry("calibrating", by, of_another, "given up"))
    end_hold(folder, _runs(request).end)
    return RedirectResponse(f"{_PATH}?step=camera", status_code=303)


@router.post("/calibrate/step", dependencies=needs(Role.TECHNICIAN))
def go(request: Request, step: Annotated[str, Form(max_length=20)] = "") -> Response:
    """To another step."""
    _, shown = _going_on(request)
    if step not in STEPS:
        raise Refused(422, "refused_request")
    if step != "good" and shown.good_parts < LEAST_GOOD_PARTS:
        raise Refused(409, "limits_few", least=LEAST_GOOD_PARTS)
    folder = site_of(request).folder
    _runs(request).go(step, newest_seq=newest_seq(folder.database))
    return _back()


@router.post("/calibrate/label", dependencies=needs(Role.TECHNICIAN))
def label(
    request: Request,
    seq: SeqField,
    kind: Annotated[str, Form(max_length=20)] = "",
    name: Name = "",
    type_: Annotated[str, Form(alias="type", max_length=64)] = "",
) -> Response:
    """Say what a part is; with no kind, take back what was said."""
    _, shown = _going_on(request)
    if shown.part(seq) is None:
        raise Refused(409, "calibrate_no_part")
    if not kind:
        _runs(request).unlabel(seq)
        return _back()
    if kind not in _KINDS:
        raise Refused(422, "refused_request")
    if kind == "master":
        _check_master(site_of(request).folder, name.strip(), type_.strip())
    _runs(request).label(seq, Label(cast(Kind, kind), name.strip(), type_.strip()))
    return _back()


@router.post("/calibrate/limits", dependencies=needs(Role.TECHNICIAN))
def place(
    request: Request,
    t1: Number = None,
    t2: Number = None,
    do: Annotated[str, Form(max_length=20)] = "",
    by: Annotated[float, Form(allow_inf_nan=False)] = 0.0,
) -> Response:
    """Place T1 and T2, move one by an arrow, have both suggested, or accept them and go on to sign."""
    run, shown = _going_on(request)
    if run.step != "limits" or not shown.good:
        raise Refused(409, "calibrate_other_step")
    _check_light(shown.light, "light_held")
    if do == "suggest" or t1 is None or t2 is None:
        _runs(request).place(None, None)
        return _back()
    meant = LimitField.beside(step_of(shown)).read_both((t1, t2), limits_of(run, shown))
    t1, t2 = _moved(do, meant, by)
    if not (isfinite(t1) and isfinite(t2)):  # by an arrow beyond the largest number
        raise Refused(422, "refused_request")
    if t1 > t2:
        raise Refused(422, "limits_order")
    _runs(request).place(t1, t2)
    if do == "accept":
        _may_be_signed(*_going_on(request))
        _runs(request).go("sign", newest_seq=0)
    return _back()


@router.post("/calibrate/sign", dependencies=needs(Role.TECHNICIAN))
def sign_it(
    request: Request,
    signed: Annotated[Signature, Depends(signature)],
    keep: Annotated[str, Form(max_length=10)] = "",
    lots: Annotated[int, Form(ge=0, le=MOST_LOTS)] = 0,
    seen: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Sign: the record is in force from the next part on.

    It holds for the cameras as they are set now, which only a running station knows.
    """
    run, shown = _going_on(request)
    placed = _may_be_signed(run, shown)
    if seen != placed.seen:
        raise Refused(409, "sign_changed")
    folder = site_of(request).folder
    told, began = _told(folder), run.start.precision
    if not told:
        raise Refused(409, "sign_no_station")
    if (now := told.get("precision", "")) != began:
        raise Refused(409, "sign_other_model", now=now or "?", began=began)
    if _are_set_otherwise(run.start.cameras, told.get("cameras", "")):
        raise Refused(409, "sign_other_cameras")
    sign(folder, run.start, replace(shown, lots=lots), placed, signed)
    if keep:
        register_masters(folder, shown.masters, placed.t2, signed)
    end_hold(folder, _runs(request).end)
    return RedirectResponse(f"{_PATH}?step=confirm", status_code=303)


def _runs(request: Request) -> Runs:
    return Runs(page_file(site_of(request).folder))


def _told(folder: StationFolder) -> Mapping[str, str]:
    """What the station tells while it runs; nothing where it does not."""
    station = read_vitals(folder.run).get("station")
    runs = station is not None and station.is_alive and station.age_s < _STALE_S
    return station.texts if station is not None and runs else {}


def _are_set_otherwise(began: str, now: str) -> bool:
    """Whether the scores are of cameras that were set otherwise than what would be signed."""
    return began != "" and json.loads(began) != json.loads(now or "{}")


def _check_no_shift_check(request: Request) -> None:
    """Both hold the station by the same note: the end of one would let the parts of the other be released.

    Raises:
        Refused: 409.
    """
    if shift_under_way(site_of(request).folder) is not None:
        raise Refused(409, "shift_busy")


def _going_on(request: Request) -> tuple[Run, Shown]:
    run = _runs(request).read()
    if run is None:
        raise Refused(409, "calibrate_none")
    return run, shown_for(site_of(request).folder, run)


def _may_be_signed(run: Run, shown: Shown) -> Assessment:
    """Never trusts what a browser showed: all is worked out again."""
    if not shown.good:
        raise Refused(409, "limits_few", least=LEAST_GOOD_PARTS)
    _check_light(shown.light, "light_held")
    found = assess(shown, *limits_of(run, shown))
    if found.refusal:
        names, learned = ", ".join(found.passing), len(shown.learned)
        raise Refused(409, found.refusal, least=LEAST_GOOD_PARTS, names=names, n=learned)
    return found


def _meant(light: Light | None, why: str) -> str:
    """What the audit says of another light, which somebody has to mean."""
    if light is None or not light.is_other:
        return ""
    if not why:
        _check_light(light, "light_not_signed")
    return f"; light {light.now:.0f}, signed for {light.low:.0f} to {light.high:.0f}, is meant"


def _check_light(light: Light | None, key: str) -> None:
    """Refuse in another light.

    Args:
        light: What is known of it.
        key: Of the words that say so.

    Raises:
        Refused: 409.
    """
    if light is not None and light.is_other:
        raise Refused(409, key, **light.rounded)


def _moved(do: str, limits: tuple[float, float], by: float) -> tuple[float, float]:
    """T1 pushes T2 before it, and the other way round."""
    t1, t2 = limits
    if do == "t1_down":
        return t1 - by, t2
    if do == "t1_up":
        return t1 + by, max(t2, t1 + by)
    if do == "t2_down":
        return min(t1, t2 - by), t2 - by
    return (t1, t2 + by) if do == "t2_up" else (t1, t2)


def _check_master(folder: StationFolder, name: str, type_: str) -> None:
    if not name or not all(c.isascii() and (c.isalnum() or c in "_.-") for c in name):
        raise Refused(422, "masters_name_wrong")
    if not type_:
        raise Refused(422, "masters_type_missing")
    known = registered_types(folder).get(name, type_)
    if known != type_:  # it would not be kept for the shift check, where the name is of another part
        raise Refused(409, "masters_known", name=name, type=known)


def _back() -> Response:
    return RedirectResponse(_PATH, status_code=303)
