"""Placement of Q/DQ and numbers of INT8."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.audit import audit
from kenpin.export.onnx_model import ENCODER, check_model
from kenpin.export.outputs import Fusion, run_onnx
from kenpin.export.parity import sqnr_db
from kenpin.export.placement import Placement, encoder_nodes, find_placement, find_taps
from kenpin.export.quantize import quantize
from kenpin.export.scheme import Scheme
from kenpin.frame import Image

BLOCKS = 6  # with a residual Add each; two of them have a downsample convolution


def constants(model: ModelProto) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_int8_graph_is_sound(int8_model: ModelProto) -> None:
    audit(int8_model)
    check_model(int8_model, shape=(64, 64))
    count = Counter(node.op_type for node in int8_model.graph.node)
    # 13 inputs of convolutions and 2 downsample outputs; the other shortcuts share the pair of an input.
    assert count["QuantizeLinear"] == 15
    assert count["DequantizeLinear"] == 15 + 15


def test_placement(placement: Placement, float_model: ModelProto) -> None:
    assert len(placement.convs) == 15
    assert len(placement.adds) == len(placement.shortcuts) == BLOCKS
    assert len(placement.activations) == 15
    makers = {name: node for node in float_model.graph.node for name in node.output}
    downsamples = [makers[s].input[1] for s in placement.shortcuts if makers[s].op_type == "Conv"]
    assert downsamples == [f"{ENCODER}layer{n}.0.downsample.0.weight" for n in (2, 3)]
    for add, shortcut in placement.adds.items():
        branch = makers[makers[add].input[1 - shortcut]]
        assert branch.input[1].endswith("conv2.weight")


def test_the_branch_is_the_deeper_convolution_wherever_it_stands(
    float_model: ModelProto, placement: Placement
) -> None:
    """Of a downsample block both inputs of the Add are convolutions, and an exporter may name either first."""
    turned = ModelProto()
    turned.CopyFrom(float_model)
    for node in turned.graph.node:
        if node.output[0] in placement.adds:
            node.input[:] = node.input[::-1]
    found = find_placement(turned)
    assert found.adds == {add: 1 - shortcut for add, shortcut in placement.adds.items()}
    assert found.shortcuts == placement.shortcuts
    audit(quantize(turned, found, dict.fromkeys(found.activations, 1.0)))


def test_the_float_model_is_not_changed(float_model: ModelProto, placement: Placement) -> None:
    before = float_model.SerializeToString(deterministic=True)
    quantize(float_model, placement, dict.fromkeys(placement.activations, 1.0))
    assert float_model.SerializeToString(deterministic=True) == before


def test_weights_are_within_half_a_step_per_channel(float_model: ModelProto, int8_model: ModelProto) -> None:
    weights, int8 = constants(float_model), constants(int8_model)
    for name in (n for n in weights if n.startswith(ENCODER) and n.endswith(".weight")):
        scale, steps = int8[f"{name}_scale"], int8[f"{name}_int8"]
        assert name not in int8
        assert steps.dtype == np.int8
        assert (np.abs(steps).reshape(len(steps), -1).max(1) == 127).all()
        error = np.abs(steps * scale[:, None, None, None] - weights[name])
        assert (error <= 0.5001 * scale[:, None, None, None]).all()


@pytest.mark.parametrize("faint", [0.0, 1e-37, 1e-45])
def test_a_channel_of_zeros_stays_zero(float_model: ModelProto, placement: Placement, faint: float) -> None:
    """And so does one whose scale would be too small to be a normal number."""
    dead = ModelProto()
    dead.CopyFrom(float_model)
    tensor = next(t for t in dead.graph.initializer if t.name == placement.convs[0])
    weight = numpy_helper.to_array(tensor).copy()
    weight[2] = faint
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    int8 = quantize(dead, placement, dict.fromkeys(placement.activations, 1.0))
    audit(int8)
    assert not constants(int8)[f"{tensor.name}_int8"][2].any()


def test_int8_is_close_to_float(float_model: ModelProto, int8_model: ModelProto, pictures: Image) -> None:
    exact = run_onnx(float_model, pictures, fusion=Fusion.FULL)
    for fusion in (Fusion.NONE, Fusion.BASIC):
        int8 = run_onnx(int8_model, pictures, fusion=fusion)
        assert sqnr_db(exact.anomaly_map, int8.anomaly_map) > 15


def test_model_without_encoder(float_model: ModelProto) -> None:
    other = ModelProto()
    other.CopyFrom(float_model)
    for node in other.graph.node:
        if node.op_type == "Conv":
            node.input[1] = node.input[1].replace(ENCODER, "trunk.")
    with pytest.raises(ExportError, match="no convolution of the encoder"):
        find_placement(other)


def test_without_a_range_nothing_is_quantised(float_model: ModelProto, placement: Placement) -> None:
    ranges = dict.fromkeys(placement.activations, 1.0)
    for wrong in ({}, {**ranges, placement.inputs[3]: 0.0}, {**ranges, placement.inputs[3]: np.inf}):
        with pytest.raises(ExportError, match="no range of the activation"):
            quantize(float_model, placement, wrong)


def test_weights_as_float_with_a_pair(
    float_model: ModelProto, int8_model: ModelProto, placement: Placement, pictures: Image
) -> None:
    ranges = {n: 127 * float(constants(int8_model)[f"{n}_scale"]) for n in placement.activations}
    pairs = quantize(float_model, placement, ranges, Scheme(weights="fp32qdq"))
    audit(pairs)
    check_model(pairs, shape=(64, 64))
    assert not any(name.endswith("_int8") for name in constants(pairs))
    before, after = (run_onnx(m, pictures, fusion=Fusion.NONE) for m in (int8_model, pairs))
    np.testing.assert_array_equal(before.anomaly_map, after.anomaly_map)


def test_encoder_and_taps(float_model: ModelProto, int8_model: ModelProto) -> None:
    inside = Counter(node.op_type for node in encoder_nodes(float_model.graph.node))
    assert inside == {"Conv": 15, "Add": BLOCKS, "Relu": 1 + 2 * BLOCKS, "MaxPool": 1}
    with_pairs = Counter(node.op_type for node in encoder_nodes(int8_model.graph.node))
    assert with_pairs == {**inside, "QuantizeLinear": 15, "DequantizeLinear": 30}
    makers = {name: node for node in float_model.graph.node for name in node.output}
    taps = find_taps(float_model)
    # The head reads strides 8 and 16, each after the second Add of a stage.
    adds = [makers[makers[tap].input[0]] for tap in taps]
    blocks = [next(i for i in add.input if makers[i].op_type == "Conv") for add in adds]
    assert [makers[b].input[1].removeprefix(ENCODER) for b in blocks] == [
        f"layer{n}.1.conv2.weight" for n in (2, 3)
    ]


def test_what_adds_to_a_tap_is_the_head(float_model: ModelProto) -> None:
    """In fp16 it would lose its digits with the encoder."""
    more = ModelProto()
    more.CopyFrom(float_model)
    more.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "offset"))
    tap = find_taps(float_model)[0]
    more.graph.node.append(helper.make_node("Add", [tap, "offset"], ["moved"], name="moved"))
    assert encoder_nodes(more.graph.node) == encoder_nodes(float_model.graph.node)
    assert find_taps(more) == find_taps(float_model)


@pytest.mark.parametrize(
    ("conv", "fewer_pairs", "fewer_adds"),
    [
        ("conv1.weight", 1, 0),  # only its own input
        ("layer1.0.conv2.weight", 1, 1),  # its input; its shortcut is still read by the block's first one
        ("layer2.0.conv2.weight", 2, 1),  # its input, and the downsample that comes in by the shortcut
        ("layer2.0.downsample.0.weight", 0, 0),  # its input is shared
    ],
)
def test_a_convolution_returned_to_float(
    float_model: ModelProto, int8_model: ModelProto, conv: str, fewer_pairs: int, fewer_adds: int
) -> None:
    whole = find_placement(float_model)
    part = find_placement(float_model, floats=[ENCODER + conv])
    assert part.floats == (ENCODER + conv,)
    assert set(part.convs) == set(whole.convs) - {ENCODER + conv}
    assert len(part.activations) == len(whole.activations) - fewer_pairs
    assert len(part.adds) == len(whole.adds) - fewer_adds
    ranges = {n: 127 * float(constants(int8_model)[f"{n}_scale"]) for n in whole.activations}
    mixed = quantize(float_model, part, ranges)
    audit(mixed, floats=part.floats)
    check_model(mixed, shape=(64, 64))
    with pytest.raises(ExportError, match="its weight is not quantised"):
        audit(mixed)


def test_a_branch_that_somebody_else_reads_too_is_not_fused(
    float_model: ModelProto, placement: Placement
) -> None:
    """TensorRT would have to write it out; its Add keeps both inputs float."""
    read = ModelProto()
    read.CopyFrom(float_model)
    conv = next(n for n in read.graph.node if f"{ENCODER}layer1.0.conv2.weight" in n.input)
    at = list(read.graph.node).index(conv) + 1
    read.graph.node.insert(at, helper.make_node("Abs", [conv.output[0]], ["also"], name="also"))
    found = find_placement(read)
    (add,) = placement.adds.keys() - found.adds.keys()
    assert conv.output[0] in next(n for n in read.graph.node if add in n.output).input
    audit(quantize(read, found, dict.fromkeys(found.activations, 1.0)))


def test_a_constant_is_no_shortcut(float_model: ModelProto, placement: Placement) -> None:
    """An Add of a convolution and a constant is a bias, and stays as it is."""
    shifted = ModelProto()
    shifted.CopyFrom(float_model)
    conv = next(n for n in shifted.graph.node if f"{ENCODER}layer1.0.conv1.weight" in n.input)
    relu = next(n for n in shifted.graph.node if conv.output[0] in n.input)
    at = list(shifted.graph.node).index(relu)
    shifted.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "shift"))
    shifted.graph.node.insert(
        at, helper.make_node("Add", [relu.input[0], "shift"], ["shifted"], name="shifted")
    )
    relu.input[0] = "shifted"
    found = find_placement(shifted)
    assert found == placement
    audit(quantize(shifted, found, dict.fromkeys(found.activations, 1.0)))


def test_all_of_it_returned_to_float_is_the_float_model(float_model: ModelProto, placement: Placement) -> None:
    none = find_placement(float_model, floats=placement.convs)
    assert none.activations == ()
    same = quantize(float_model, none, {})
    audit(same, floats=none.floats)
    assert list(same.graph.node) == list(float_model.graph.node)
