"""The encoder in fp16: numbers, seams, and what does not fit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.audit import audit
from kenpin.export.half import check_rounding, to_half
from kenpin.export.onnx_model import ENCODER, HALF_OPSET, check_model
from kenpin.export.outputs import Fusion, run_onnx
from kenpin.export.parity import sqnr_db
from kenpin.export.placement import Placement, find_taps
from kenpin.export.quantize import LEAST_HALF_SCALE, quantize
from kenpin.export.scheme import Scheme
from kenpin.frame import Image


def kinds(model: ModelProto) -> dict[str, int]:
    return {t.name: t.data_type for t in model.graph.initializer}


def test_the_encoder_is_half_and_nothing_else(half_model: ModelProto, float_model: ModelProto) -> None:
    audit(half_model)
    check_model(half_model, shape=(64, 64), opset=HALF_OPSET)
    found, before = kinds(half_model), kinds(float_model)
    ours = {n for n, kind in found.items() if kind == TensorProto.FLOAT16}
    assert {n.rsplit(".", 1)[-1] for n in ours if n.startswith(ENCODER)} >= {"weight_scale", "weight_bias"}
    assert not any("head" in name for name in ours)
    for name in before:
        if not name.startswith(ENCODER):
            assert found[name] == before[name]
    # One seam where the pictures come in, one for each tap on the way out.
    casts = Counter(n.attribute[0].i for n in half_model.graph.node if n.op_type == "Cast")
    already = Counter(n.attribute[0].i for n in float_model.graph.node if n.op_type == "Cast")
    assert casts - already == {TensorProto.FLOAT16: 1, TensorProto.FLOAT: 2}


class CutsOff:
    def run(self, _: object, values: dict[str, np.ndarray[tuple[int], np.dtype[np.float16]]]) -> list[object]:
        return [np.trunc(values["value"]).astype(np.int8)]


def test_an_onnxruntime_that_does_not_round_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kenpin.export.half.open_session", lambda *_: CutsOff())
    with pytest.raises(ExportError, match="cuts fp16 numbers off") as error:
        check_rounding()
    assert "Python 3.11" in error.value.cure


@pytest.mark.usefixtures("rounding")
def test_the_numbers_are_those_of_int8(
    half_model: ModelProto, int8_model: ModelProto, float_model: ModelProto, pictures: Image
) -> None:
    """Run as written. ONNX Runtime with optimisation computes something else from this graph."""
    exact = run_onnx(float_model, pictures, fusion=Fusion.FULL).anomaly_map
    half, int8 = (run_onnx(m, pictures, fusion=Fusion.NONE).anomaly_map for m in (half_model, int8_model))
    assert half.dtype == np.float32
    assert sqnr_db(exact, half) > sqnr_db(exact, int8) - 2


def test_one_cast_serves_all_who_read_a_tap(float_model: ModelProto) -> None:
    several = ModelProto()
    several.CopyFrom(float_model)
    tap = find_taps(float_model)[0]
    end = len(several.graph.node)
    several.graph.node.insert(end, helper.make_node("Neg", [tap], ["other"], name="other"))
    half = to_half(several)
    check_model(half, shape=(64, 64), opset=HALF_OPSET)
    assert sum(node.output[0] == f"{tap}_float" for node in half.graph.node) == 1


def test_fp16_alone_is_nearly_exact(float_model: ModelProto, pictures: Image) -> None:
    half = to_half(float_model)
    check_model(half, shape=(64, 64), opset=HALF_OPSET)
    exact = run_onnx(float_model, pictures, fusion=Fusion.FULL).anomaly_map
    assert sqnr_db(exact, run_onnx(half, pictures, fusion=Fusion.NONE).anomaly_map) > 45


def test_steps_are_counted_with_the_scale_that_fp16_has(
    float_model: ModelProto, placement: Placement, ranges: dict[str, float]
) -> None:
    int8 = quantize(float_model, placement, ranges, Scheme("fp16"))
    weights = {t.name: numpy_helper.to_array(t) for t in [*float_model.graph.initializer]}
    values = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    for name in placement.convs:
        scale = values[f"{name}_scale"]
        assert (scale == scale.astype(np.float16)).all()
        error = np.abs(values[f"{name}_int8"] * scale[:, None, None, None] - weights[name])
        assert (error <= 0.57 * scale[:, None, None, None]).all()


def test_a_scale_below_what_fp16_has_does_not_vanish(
    float_model: ModelProto, placement: Placement, ranges: dict[str, float]
) -> None:
    faint = ModelProto()
    faint.CopyFrom(float_model)
    tensor = next(t for t in faint.graph.initializer if t.name == placement.convs[0])
    weight = numpy_helper.to_array(tensor).copy()
    weight[2] *= 1e-9 / np.abs(weight[2]).max()
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    quiet = placement.inputs[3]
    half = to_half(quantize(faint, placement, {**ranges, quiet: 1e-9}, Scheme("fp16")))
    audit(half)
    scales = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer if t.name.endswith("_scale")}
    assert scales[f"{tensor.name}_scale"][2] == scales[f"{quiet}_scale"] == LEAST_HALF_SCALE


@pytest.mark.parametrize("times", [1e7, np.nan])
def test_a_number_that_fp16_does_not_hold_is_refused(float_model: ModelProto, times: float) -> None:
    loud = ModelProto()
    loud.CopyFrom(float_model)
    tensor = next(t for t in loud.graph.initializer if t.name == f"{ENCODER}conv1.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(times), tensor.name))
    with pytest.raises(ExportError, match="fp16 ends at 65504"):
        to_half(loud)


def test_the_float_model_is_not_changed(float_model: ModelProto) -> None:
    before = float_model.SerializeToString(deterministic=True)
    to_half(float_model)
    assert float_model.SerializeToString(deterministic=True) == before


def test_a_scale_that_fp16_rounds_down_does_not_push_a_weight_out_of_range(
    float_model: ModelProto, placement: Placement, ranges: dict[str, float]
) -> None:
    """Small scales have few digits in fp16: the largest weight would be 128 steps."""
    faint = ModelProto()
    faint.CopyFrom(float_model)
    tensor = next(t for t in faint.graph.initializer if t.name == placement.convs[0])
    weight = numpy_helper.to_array(tensor).copy()
    weight[2] = 0
    weight[2, 0, 0, 0] = -127 * (LEAST_HALF_SCALE + 0.49 * 2.0**-24)
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    int8 = quantize(faint, placement, ranges, Scheme("fp16"))
    steps = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}[f"{tensor.name}_int8"]
    assert steps[2].min() == -127
    audit(to_half(int8))
