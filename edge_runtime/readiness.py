"""What a station must have before it may release a part: a verified bundle, an engine, a calibration record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kenpin.bundle import Bundle, open_bundle
from kenpin.calibrating import read_calibrating
from kenpin.edge_runtime.decide import Model, why_not
from kenpin.edge_runtime.engine import Engine
from kenpin.edge_runtime.engine_choice import Choice, choose_engine
from kenpin.edge_runtime.masters_clock import MastersClock
from kenpin.edge_runtime.signed_settings import set_otherwise
from kenpin.edge_runtime.source import Settings
from kenpin.engine_passport import Passport
from kenpin.errors import KenpinError, reason_of
from kenpin.heap import trim
from kenpin.hold import read_hold
from kenpin.precision import Precision
from kenpin.record import CalibrationRecord, newest_for, station_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder

# Words for why nothing is released although all is there.
HOLDS = CALIBRATING, PAUSED, CAMERA_SET, MASTERS_DUE = "calibrating", "paused", "camera_set", "masters_due"
NOT_INSTALLED = "not_installed"  # nothing ever was, which is no damage


@dataclass(frozen=True)
class Readiness:
    """What was found.

    Attributes:
        engine: The engine, proven on the golden frames.
        model: What the engine runs.
        record: The calibration record in force.
        fault: Why no part can be judged, with the cure; empty when all is there and belongs together.
        note: Why the engine is not TensorRT although the station has it; empty otherwise.
        build: The precision to build a TensorRT engine of; `None` = nothing to build.
        cause: The fault as one word.
    """

    engine: Engine | None = None
    model: Model | None = None
    record: CalibrationRecord | None = None
    fault: str = ""
    note: str = ""
    build: Precision | None = None
    cause: str = "not_ready"

    @property
    def calibrated(self) -> CalibrationRecord | None:
        """The record, where it is of the bundle that the engine runs, whichever of its models."""
        is_its_own = self.model and self.record and self.record.bundle_sha256 == self.model.bundle_sha256
        return self.record if is_its_own else None

    def close(self) -> None:
        """Give back the engine, where there is one."""
        if self.engine is not None:
            self.engine.close()


def check_readiness(
    folder: StationFolder, trusted: Sequence[PublicKey], bundle_sha256: str | None = None
) -> Readiness:
    """Verify and load what the station's folder holds. Nothing in it makes this raise.

    Args:
        folder: The station's folder.
        trusted: Keys whose bundles may run.
        bundle_sha256: Which of the installed bundles; default: the active one.
    """
    record: CalibrationRecord | None = None
    cause = "not_ready" if bundle_sha256 or os.path.lexists(folder.active) else NOT_INSTALLED
    try:
        path = folder.bundles / bundle_sha256 if bundle_sha256 else folder.installed()
        record, _ = _newest_record(folder, path.name)
        bundle = open_bundle(path, trusted)
        choice = _choose(folder, bundle, record)
    except (KenpinError, OSError, ImportError) as error:
        return Readiness(record=record, fault=_in_one_line(error), cause=cause)
    if choice.engine is None:
        fault = choice.fault.in_one_line if choice.fault is not None else ""
        return Readiness(record=record, fault=fault, build=choice.build)
    model = _model_of(bundle, choice.engine, choice.passport)
    return with_record(Readiness(choice.engine, model, note=choice.note, build=choice.build), folder)


def with_record(ready: Readiness, folder: StationFolder) -> Readiness:
    """The same engine by the newest calibration record of its bundle. Nothing in the folder makes this raise.

    Args:
        ready: What was found before.
        folder: The station's folder.
    """
    if ready.model is None:
        return ready
    record, fault = _newest_record(folder, ready.model.bundle_sha256)
    if not fault:
        fault = why_not(ready.model, record)
        fault += "; calibrate with: kenpin calibrate fit" if fault else ""
    return replace(ready, record=record, fault=fault)


def with_holds(
    ready: Readiness, folder: StationFolder, cameras: Mapping[str, Settings], masters: MastersClock
) -> Readiness:
    """The same, releasing nothing while somebody calibrates, or paused it, or something no longer holds.

    Parts are still scored.

    Args:
        ready: What was found.
        folder: The station's folder.
        cameras: How each camera is set, by its name.
        masters: Knows when they are due.
    """
    if ready.engine is None:
        return ready
    note = read_calibrating(folder)
    if note is not None:
        return replace(ready, fault=f"{note.by} calibrates this station", cause=CALIBRATING)
    pause = read_hold(folder.paused)
    if pause is not None:
        return replace(ready, fault=f"paused by {pause.by}", cause=PAUSED)
    if not ready.fault and ready.record is not None and (changed := set_otherwise(ready.record, cameras)):
        return replace(ready, fault=changed, cause=CAMERA_SET)
    due = None if ready.fault else masters.why()
    return replace(ready, fault=f"{due.words}; {due.cure}", cause=MASTERS_DUE) if due else ready


def _choose(folder: StationFolder, bundle: Bundle, record: CalibrationRecord | None) -> Choice:
    # The thresholds hold for the scores of one of the models only.
    calibrated = record is not None and record.bundle_sha256 == bundle.sha256
    choice = choose_engine(folder, bundle, record.precision if record is not None and calibrated else None)
    trim()  # loading a model leaves several times its size free
    return choice


def _newest_record(folder: StationFolder, bundle_sha256: str) -> tuple[CalibrationRecord | None, str]:
    """The newest record for this bundle; without one the newest of all, to say which bundle that is for."""
    try:
        records = station_records(folder)
    except (KenpinError, OSError) as error:
        return None, _in_one_line(error)
    return newest_for(records, bundle_sha256) or next(reversed(records), None), ""


def _in_one_line(error: Exception) -> str:
    if isinstance(error, KenpinError):
        return error.in_one_line
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used: {reason_of(error)}; let the station's user read and write it"
    return str(error)


def _model_of(bundle: Bundle, engine: Engine, passport: Passport | None) -> Model:
    manifest = bundle.manifest
    return Model(
        name=f"{manifest.product}-{manifest.version}",
        bundle_sha256=bundle.sha256,
        precision=engine.precision,
        signed_by=bundle.signed_by,
        dataset_sha256=str(manifest.lineage.get("data_sha256", "")),
        tensorrt=passport.tensorrt if passport else "",
        engine_sha256=passport.plan_sha256 if passport else "",
    )
