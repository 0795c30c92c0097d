"""Why no part is released although the station runs, in the visitor's words, and where that is put right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kenpin.calibrating import read_calibrating
from kenpin.calibration.web.shift_run import shift_under_way
from kenpin.edge_runtime.vitals import Vitals
from kenpin.hold import read_hold
from kenpin.masters_due import Due
from kenpin.record import CalibrationRecord
from kenpin.station_folder import StationFolder


@dataclass(frozen=True)
class Held:
    """Why no part is released.

    Attributes:
        key: Of the words that say so.
        values: What the words want to know.
        path: The page on which it is put right; empty = elsewhere.
        told: What the station says besides, in English; empty where the words say all.
    """

    key: str
    values: Mapping[str, object] = field(default_factory=dict)
    path: str = ""
    told: str = ""


def why_held(
    folder: StationFolder, vitals: Vitals, record: CalibrationRecord | None, due: Due | None
) -> Held | None:
    """Why no part is released; `None` = parts are released, or the station does not run.

    Args:
        folder: The station's folder.
        vitals: What the station told last.
        record: The calibration in force; `None` = none for this bundle.
        due: Why the masters must be shown; `None` = they need not.
    """
    if vitals.state == "CALIBRATING":
        return _somebody_is_at_it(folder)
    if vitals.state == "PAUSED":
        pause = read_hold(folder.paused)
        return Held("held_paused", {"name": pause.by if pause else "?"})
    runs = vitals.state not in ("STARTING", "STOPPED")
    if runs and vitals.numbers.get("ready", 1.0):
        return None
    if record is None and vitals.texts.get("model"):
        return Held("held_not_calibrated", path="/calibrate", told=_without_command(vitals.reason))
    if due:
        return Held("held_due", path="/shift")
    return Held("held_other", told=vitals.reason) if runs else None


def _without_command(reason: str) -> str:
    """Who stands at the panel has a link, and no command line."""
    said = reason.partition("; calibrate with")[0]
    return "" if said == "not calibrated" else said


def _somebody_is_at_it(folder: StationFolder) -> Held:
    """A calibration or a shift check: they hold the station by the same note."""
    note = read_calibrating(folder)
    name = note.by if note else "?"
    if shift_under_way(folder) is not None:
        return Held("shift_nothing_released", {"name": name}, "/shift")
    return Held("calibrate_note", {"name": name}, "/calibrate")
