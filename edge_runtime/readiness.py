"""What a station must have before it may release a part: a verified bundle, an engine, a calibration record."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.bundle import Bundle, open_bundle
from kenpin.edge_runtime.decide import Model, why_not
from kenpin.edge_runtime.engine import Engine
from kenpin.errors import BundleError, KenpinError
from kenpin.record import CalibrationRecord, load_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder


@dataclass(frozen=True)
class Readiness:
    """What was found at the start. What is missing stays missing until the next start.

    Attributes:
        engine: The engine, proven on the golden frames.
        model: What the engine runs.
        record: The calibration record in force.
        fault: Why no part can be judged, with the cure; empty when all is there and belongs together.
    """

    engine: Engine | None = None
    model: Model | None = None
    record: CalibrationRecord | None = None
    fault: str = ""


def check_readiness(folder: StationFolder, trusted: Sequence[PublicKey]) -> Readiness:
    """Verify and load what the station's folder holds. Nothing in it makes this raise.

    Args:
        folder: The station's folder.
        trusted: Keys whose bundles may run.
    """
    record, record_fault = _newest_record(folder)
    try:
        bundle = _active_bundle(folder, trusted)
        engine, model = _load(bundle, record)
    except (KenpinError, OSError, ImportError) as error:
        return Readiness(record=record, fault=_in_one_line(error))
    fault = record_fault or why_not(model, record)
    if fault and not record_fault:
        fault += "; calibrate with: kenpin calibrate fit"
    return Readiness(engine, model, record, fault)


def _active_bundle(folder: StationFolder, trusted: Sequence[PublicKey]) -> Bundle:
    if not folder.active.exists():
        raise BundleError("no bundle is installed", cure="install one with: kenpin bundle install")
    return open_bundle(folder.active.resolve(), trusted)


def _load(bundle: Bundle, record: CalibrationRecord | None) -> tuple[Engine, Model]:
    # Here, because the reason must reach the store and the status where ONNX Runtime does not import.
    from kenpin.edge_runtime.engine_ort import load_engine  # noqa: PLC0415

    # The thresholds hold for the scores of one of the two models only.
    calibrated = record is not None and record.bundle_sha256 == bundle.sha256
    engine = load_engine(bundle, record.precision if record is not None and calibrated else None)
    _give_back_memory()
    manifest = bundle.manifest
    return engine, Model(f"{manifest.product}-{manifest.version}", bundle.sha256, engine.precision)


def _give_back_memory() -> None:
    """Loading a model leaves several times its size in the heap, free; glibc keeps that unless it is asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _newest_record(folder: StationFolder) -> tuple[CalibrationRecord | None, str]:
    try:
        key = folder.key.with_suffix(".pub")
        records = load_records(folder.records, PublicKey.load(key)) if folder.records.exists() else []
    except (KenpinError, OSError) as error:
        return None, _in_one_line(error)
    return (records[-1] if records else None), ""


def _in_one_line(error: Exception) -> str:
    if not isinstance(error, KenpinError):
        return str(error)
    return f"{error.what}; {error.cure}" if error.cure else error.what
