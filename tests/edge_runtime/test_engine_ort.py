from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from kenpin.edge_runtime.engine_ort import OrtEngine, load_engine, session_options
from kenpin.errors import DataError, EngineError
from kenpin.preprocess import to_input
from tests.edge_runtime.conftest import brightness_model


def test_scores_are_those_of_the_model() -> None:
    engine = OrtEngine(brightness_model(), "int8")
    image = np.zeros((16, 16, 3), np.uint8)
    image[3, 5] = 90
    scored = engine.score(image)
    assert scored.score == 90
    assert scored.level_scores == (45, 67.5, 90)
    assert scored.anomaly_map.shape == (16, 16)
    assert scored.anomaly_map.dtype == np.float32
    assert np.unravel_index(scored.anomaly_map.argmax(), (16, 16)) == (3, 5)


@pytest.mark.parametrize(
    "image", [np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.float32), np.zeros((0, 16, 3), np.uint8)]
)
def test_what_is_no_frame_is_refused(image: Any) -> None:
    with pytest.raises(DataError, match="a frame must be BGR uint8"):
        OrtEngine(brightness_model(), "int8").score(image)


@pytest.mark.parametrize("shape", [(48, 80, 3), (5, 40, 3)])
def test_a_frame_of_any_size_is_brought_to_the_models(shape: Any) -> None:
    engine = OrtEngine(brightness_model(), "int8")
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    brought = engine.score(to_input(frame, height=16, width=16))
    assert engine.score(frame).score == brought.score


def test_fp16_is_not_run_on_a_cpu() -> None:
    with pytest.raises(EngineError, match="does not run the fp16 model") as caught:
        OrtEngine(brightness_model(), "fp16")
    assert "kenpin build-engine" in caught.value.cure


def test_half_a_gigabyte_of_zeros_is_refused() -> None:
    with pytest.raises(EngineError, match="does not load"):
        OrtEngine(bytes(500 << 20), "int8")


@pytest.mark.parametrize("brightness", [0, 7])  # 0 / 0 is NaN, 7 / 0 is infinite
def test_a_score_that_is_not_finite_is_an_error(brightness: int) -> None:
    engine = OrtEngine(brightness_model(divide_by=0.0), "int8")
    with pytest.raises(EngineError, match="not finite"):
        engine.score(np.full((16, 16, 3), brightness, np.uint8))


def test_bytes_that_are_no_model_are_an_engine_error() -> None:
    with pytest.raises(EngineError, match="does not load"):
        OrtEngine(b"no model", "int8")


def test_a_model_with_other_inputs_is_refused() -> None:
    tensor = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [tensor], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    with pytest.raises(EngineError, match="not a kenpin model: it takes x"):
        OrtEngine(model.SerializeToString(), "fp32")


def test_a_golden_frame_within_the_tolerance_passes(workshop: Any) -> None:
    off_by_0_004 = brightness_model(scale=1.0001)
    assert load_engine(workshop.bundle(model=off_by_0_004), "int8").precision == "int8"


@pytest.mark.parametrize("precision", ["int8", "fp32", None])
def test_a_golden_frame_beyond_the_tolerance_is_refused(workshop: Any, precision: Any) -> None:
    with pytest.raises(EngineError, match=r"instead of 40"):
        load_engine(workshop.bundle(model=brightness_model(scale=1.01)), precision)


def test_a_tolerance_that_is_no_number_lets_nothing_pass(workshop: Any) -> None:
    bundle = workshop.bundle(model=brightness_model(scale=2.0))
    object.__setattr__(bundle.manifest, "golden_tolerance", float("nan"))
    with pytest.raises(EngineError, match="instead of 40"):
        load_engine(bundle, "int8")


def test_without_golden_frames_nothing_is_proven(workshop: Any) -> None:
    with pytest.raises(EngineError, match="no golden frames"):
        load_engine(workshop.bundle(golden=()), "int8")


def test_one_of_the_two_models_is_taken_when_none_is_named(workshop: Any) -> None:
    engine = load_engine(workshop.bundle())
    assert engine.precision in ("int8", "fp32")
    assert engine.input_size == (16, 16)


def test_its_threads_rest_between_images() -> None:
    kind = helper.make_tensor_value_info
    square = [256, 256]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"])],
        "product",
        [kind("x", TensorProto.FLOAT, square)],
        [kind("y", TensorProto.FLOAT, square)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), session_options("fp32"))
    busy_s = 0.0
    for _ in range(10):
        session.run(None, {"x": np.ones(square, np.float32)})
        since_s = time.process_time()
        time.sleep(0.05)
        busy_s += time.process_time() - since_s
    assert busy_s < 0.1  # 0.25 where they go on to spin
