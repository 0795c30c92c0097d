"""The engine on ONNX Runtime, for machines without TensorRT."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from kenpin.bundle import Bundle
from kenpin.edge_runtime.engine import Engine, Runtime, Scored
from kenpin.edge_runtime.golden_check import prove
from kenpin.errors import EngineError
from kenpin.frame import Image
from kenpin.precision import INPUT, OUTPUTS, Precision, model_of
from kenpin.preprocess import to_input
from kenpin.sight import Sight, sight_of

_PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
_EXPORT_AGAIN = "export the bundle again with this version of kenpin"
_TIMED_RUNS = 5


class OrtEngine:
    """One ONNX model with a batch of one.

    Args:
        model: The ONNX file's content, already verified.
        precision: Which of the bundle's models it is.
        sight: What of a camera frame it is to be shown.

    Raises:
        EngineError: The model cannot be loaded or has other inputs and outputs than a kenpin model.
    """

    runtime: Runtime = "onnxruntime"

    def __init__(self, model: bytes, precision: Precision, *, sight: Sight | None = None) -> None:
        if precision not in _PRECISIONS:
            raise EngineError(
                f"ONNX Runtime does not run the {precision} model: on a CPU it gives other scores",
                cure=f"build the {precision} engine with kenpin build-engine, or calibrate for int8 or fp32",
            )
        self.precision: Precision = precision
        self.sight = sight
        try:
            self._session = ort.InferenceSession(
                model, session_options(precision), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(
                f"the model does not load: {_first_line(error)}", where=precision, cure=_EXPORT_AGAIN
            ) from None
        self.input_size = _input_size(self._session)

    def score(self, image: Image) -> Scored:
        """Score one camera frame.

        Args:
            image: BGR uint8, shape (H, W, 3); a frame of another size than the model's is stretched to it.

        Raises:
            DataError: The frame is not BGR uint8 (H, W, 3).
            EngineError: The model does not run, or gives a number that is not finite.
        """
        height, width = self.input_size
        frames = to_input(image, height=height, width=width)[np.newaxis]
        try:
            score, levels, anomaly_map = self._session.run(OUTPUTS, {INPUT: frames})
        except Exception as error:
            raise EngineError(
                f"the model failed: {_first_line(error)}", where=self.precision, cure="restart the station"
            ) from None
        coarse, mid, fine = (float(value) for value in levels[0])
        scored = Scored(float(score[0]), (coarse, mid, fine), anomaly_map[0])
        if not scored.is_finite:
            raise EngineError(
                "the model gave a number that is not finite", where=self.precision, cure=_EXPORT_AGAIN
            )
        return scored

    def close(self) -> None:
        """Give back the session's memory."""
        del self._session


def load_engine(bundle: Bundle, precision: Precision | None = None) -> Engine:
    """Load a model of a verified bundle and prove it on the golden frames.

    Args:
        bundle: What `kenpin.bundle.open_bundle` returned.
        precision: Which model; `None` takes the faster one on this machine.

    Raises:
        EngineError: The model does not load, or scores a golden frame otherwise than when it was exported.
        ConfigError, DataError: The bundle's view cannot be used.
    """
    if precision is not None:
        return _proven(bundle, precision)
    engines: list[OrtEngine] = []
    refusals: list[EngineError] = []
    for candidate in _PRECISIONS:
        try:
            engines.append(_proven(bundle, candidate))
        except EngineError as error:
            refusals.append(error)
    if not engines:
        raise refusals[0]
    return min(engines, key=_seconds_per_image)


def _proven(bundle: Bundle, precision: Precision) -> OrtEngine:
    engine = OrtEngine(model_of(bundle, precision), precision, sight=sight_of(bundle))
    cure = f"use another onnxruntime than {ort.__version__} or the other precision; "
    prove(engine, bundle, cure=cure + "on another processor, export again")
    return engine


def session_options(precision: Precision) -> ort.SessionOptions:
    """How a station opens a model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.inter_op_num_threads = 1
    # Within an image the threads wait for each other awake, which takes an eighth less time; between images
    # they would take the time that the camera and the publisher need.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    # Above BASIC, ONNX Runtime fuses Q/DQ into integer kernels that saturate on AVX2: scores would be wrong.
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_BASIC if precision == "int8" else level.ORT_ENABLE_ALL
    return options


def _input_size(session: ort.InferenceSession) -> tuple[int, int]:
    inputs, outputs = session.get_inputs(), {o.name for o in session.get_outputs()}
    if len(inputs) == 1 and inputs[0].name == INPUT and inputs[0].type == "tensor(uint8)":
        shape: Sequence[object] = inputs[0].shape
        if outputs >= set(OUTPUTS) and len(shape) == 4 and shape[0] == 1 and shape[3] == 3:
            height, width = shape[1], shape[2]
            if isinstance(height, int) and isinstance(width, int):
                return height, width
    found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
    raise EngineError(
        f"not a kenpin model: it takes {found} and gives {', '.join(sorted(outputs))}",
        where="frames uint8 (1, H, W, 3) is needed, and the outputs " + ", ".join(OUTPUTS),
        cure=_EXPORT_AGAIN,
    )


def _seconds_per_image(engine: OrtEngine) -> float:
    """Fastest of a few runs: the slower ones tell about the rest of the machine."""
    blank = np.zeros((*engine.input_size, 3), np.uint8)
    times: list[float] = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        engine.score(blank)
        times.append(time.perf_counter() - start)
    return min(times)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
