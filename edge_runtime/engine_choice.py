"""Which engine a station uses: TensorRT where it has one that it built itself, else ONNX Runtime.

Both may run on the same thresholds. What ties them together are the golden frames: an engine that scores them
within the tolerance of its precision counts as the same model (docs/tensorrt.md says how much that is). So a
calibration record names the precision and not what runs it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kenpin import tensorrt_seam
from kenpin.build_log import last_step
from kenpin.bundle import Bundle
from kenpin.driver import is_jetson
from kenpin.edge_runtime.engine import Engine
from kenpin.edge_runtime.golden_check import prove
from kenpin.engine_passport import Passport, Target
from kenpin.engine_store import unseal_engine
from kenpin.errors import DeviceLost, EngineError
from kenpin.precision import Precision, small_precision
from kenpin.sight import sight_of
from kenpin.station_folder import StationFolder

if TYPE_CHECKING:
    # pycuda is on a Jetson only.
    from kenpin.edge_runtime.device import Device

# A build that takes the machine down with it must not do so at every start.
_ATTEMPTS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        engine: The engine, proven on the golden frames; `None` where nothing runs the model.
        note: Why it is not TensorRT although the station has it, in words with the cure; empty otherwise.
        build: The precision to build an engine of, because there is none that fits; `None` = nothing to build.
        fault: Why there is no engine.
        no_gpu: Why the GPU of this machine cannot be used, although the station never did; empty otherwise.
        passport: What is known of a TensorRT engine; `None` = ONNX Runtime runs.
    """

    engine: Engine | None
    note: str = ""
    build: Precision | None = None
    fault: EngineError | None = None
    no_gpu: str = ""
    passport: Passport | None = None

    def loaded(self) -> Engine:
        """The engine.

        Raises:
            EngineError: There is none.
        """
        if self.engine is None:
            assert self.fault is not None
            raise self.fault
        return self.engine


@dataclass(frozen=True)
class _Refusal:
    """Why there is no TensorRT engine."""

    note: str
    build: Precision | None = None


def choose_engine(folder: StationFolder, bundle: Bundle, precision: Precision | None) -> Choice:
    """Load the best engine that this station has for a verified bundle.

    Args:
        folder: The station's folder.
        bundle: What `kenpin.bundle.open_bundle` returned.
        precision: Which model; `None` takes the engine that is there, or the faster model on a machine
            without TensorRT.

    Raises:
        EngineError: On a machine without TensorRT: nothing runs the model, or it scores a golden frame
            otherwise than when it was exported.
    """
    has_built = folder.engine_key.exists()
    if not (tensorrt_seam.is_installed() or has_built or is_jetson()):
        return Choice(_twin(bundle, precision))
    try:
        device = _open_device()
    except EngineError as error:
        _log.warning("ONNX Runtime runs, not TensorRT: %s; %s", error.what, error.cure)
        # A station that has built an engine had TensorRT and a GPU: that one is gone is not as usual.
        note = error.in_one_line if has_built else ""
        return Choice(_twin(bundle, precision), note, no_gpu=error.in_one_line)
    found = _tensorrt_engine(folder, bundle, precision, device)
    if isinstance(found, Choice):
        return found
    device.close()
    try:
        # Without a calibration it stands in for the engine to come, so it must be the same model.
        return Choice(_twin(bundle, precision or small_precision(bundle)), found.note, found.build)
    except EngineError as error:
        fault = EngineError(f"{found.note}; {error.what}", where=error.where, cure=error.cure)
        return Choice(None, found.note, found.build, fault)


def _open_device() -> Device:
    if not tensorrt_seam.is_installed():
        raise EngineError(
            "TensorRT is not installed", where="Python module tensorrt", cure=tensorrt_seam.INSTALL
        )
    from kenpin.edge_runtime.device import Device  # noqa: PLC0415 - pycuda is on a Jetson only

    return Device()


def _twin(bundle: Bundle, precision: Precision | None) -> Engine:
    # Here, because a station with a TensorRT engine needs no ONNX Runtime.
    from kenpin.edge_runtime.engine_ort import load_engine  # noqa: PLC0415

    return load_engine(bundle, precision)


def _tensorrt_engine(
    folder: StationFolder, bundle: Bundle, precision: Precision | None, device: Device
) -> Choice | _Refusal:
    from kenpin.edge_runtime.engine_trt import TrtEngine, target_of  # noqa: PLC0415 - as above

    # Without a calibration the engine that is there says which.
    wanted: tuple[Precision, ...] = (precision,) if precision else (small_precision(bundle), "fp32")
    refusal: _Refusal | None = None
    for candidate in wanted:
        try:
            target = target_of(bundle, candidate, device)
        except EngineError as error:
            return _Refusal(error.in_one_line)
        try:
            plan, passport = unseal_engine(folder, target)
        except EngineError as error:
            refusal = refusal or _missing(folder, target, error)
            continue
        try:
            engine = TrtEngine(plan, candidate, device, sight_of(bundle))
        except EngineError as error:
            if isinstance(error, DeviceLost) or "memory" in error.what.lower():
                return _Refusal(error.in_one_line)
            # The driver may be another one than when it was built, which the version of TensorRT does not tell.
            return _missing(folder, target, error)
        try:
            return Choice(_proven(engine, bundle), passport=passport)
        except EngineError as error:
            return _Refusal(error.in_one_line)
    assert refusal is not None
    return refusal


def _proven(engine: Engine, bundle: Bundle) -> Engine:
    try:
        prove(engine, bundle, cure="build it again with kenpin build-engine; if it stays, see docs/tensorrt.md")
    except BaseException:
        engine.close()
        raise
    return engine


def _missing(folder: StationFolder, target: Target, error: EngineError) -> _Refusal:
    """No engine that fits: build one, unless the last try to build just this one failed."""
    last = last_step(folder)
    if last is not None and last.key == target.key:
        if last.state == "FAILED":
            return _Refusal(f"{error.in_one_line}; the last build failed: {last.reason}")
        if last.state == "BUILDING" and last.attempt >= _ATTEMPTS:
            cut_off = f"{last.attempt} builds in a row were cut off, as by a loss of power or of memory"
            return _Refusal(f"{error.in_one_line}; {cut_off}")
    return _Refusal(error.in_one_line, target.precision)
