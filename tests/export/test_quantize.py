"""Placement of Q/DQ, numbers of INT8, ranges, and an audit that sees each broken rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.audit import audit, find_faults
from kenpin.export.onnx_model import ENCODER, check_model
from kenpin.export.outputs import Fusion, run_onnx
from kenpin.export.parity import sqnr_db
from kenpin.export.pipeline import HEADROOM, find_ranges, with_defects
from kenpin.export.quantize import Placement, find_placement, quantize
from kenpin.export.ranges import measure_ranges
from kenpin.frame import Image

BLOCKS = 6  # with a residual Add each; two of them have a downsample convolution


def constants(model: ModelProto) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_int8_graph_is_sound(int8_model: ModelProto) -> None:
    audit(int8_model)
    check_model(int8_model, side=64)
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


def test_a_channel_of_zeros_stays_zero(float_model: ModelProto, placement: Placement) -> None:
    dead = ModelProto()
    dead.CopyFrom(float_model)
    tensor = next(t for t in dead.graph.initializer if t.name == placement.convs[0])
    weight = numpy_helper.to_array(tensor).copy()
    weight[2] = 0
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


def test_ranges_are_what_the_activations_reach(
    float_model: ModelProto, placement: Placement, pictures: Image
) -> None:
    first, second = pictures[:5], pictures[5:]
    names = placement.activations
    whole, a, b = (measure_ranges(float_model, names, p) for p in (pictures, first, second))
    assert whole == {name: max(a[name], b[name]) for name in names}
    lower = measure_ranges(float_model, names, pictures, percentile=99)
    assert all(lower[name] < whole[name] for name in names[1:])
    # Frames become x / 128 - 1, so the encoder's input is known exactly.
    assert whole[names[0]] == np.abs(pictures / np.float32(128) - 1).max()


def test_ranges_have_room_for_what_is_stranger(
    float_model: ModelProto, placement: Placement, pictures: Image
) -> None:
    strange = with_defects(pictures)
    assert len(strange) > len(pictures)
    np.testing.assert_array_equal(strange[: len(pictures)], pictures)
    names = placement.activations
    ranges = find_ranges(float_model, placement, pictures, advance=lambda: None)
    measured = measure_ranges(float_model, names, pictures)
    assert all(ranges[name] == pytest.approx(HEADROOM * measured[name]) for name in names)


def test_dead_encoder_is_refused(float_model: ModelProto, placement: Placement, pictures: Image) -> None:
    dead = ModelProto()
    dead.CopyFrom(float_model)
    for tensor in dead.graph.initializer:
        if tensor.name.startswith(f"{ENCODER}layer1.0.conv1.weight"):
            zeros = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(zeros - tensor.name.endswith("bias"), tensor.name))
    with pytest.raises(ExportError, match="no scale fits it"):
        measure_ranges(dead, placement.activations, pictures)


class Editor:
    """Breaks one rule at a time in a copy of a sound INT8 graph."""

    def __init__(self, model: ModelProto) -> None:
        self.model = ModelProto()
        self.model.CopyFrom(model)

    def node(self, op_type: str, *, reading: str = "", making: str = "") -> NodeProto:
        return next(
            n
            for n in self.model.graph.node
            if n.op_type == op_type
            and (not reading or any(reading in i for i in n.input))
            and (not making or making in n.output)
        )

    def replace(self, name: str, value: np.ndarray) -> None:  # type: ignore[type-arg]
        tensor = next(t for t in self.model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(value, name))

    def value(self, name: str) -> np.ndarray:  # type: ignore[type-arg]
        return constants(self.model)[name]

    def before(self, node: NodeProto, *new: NodeProto) -> None:
        position = list(self.model.graph.node).index(node)
        for offset, added in enumerate(new):
            self.model.graph.node.insert(position + offset, added)

    def pair(self, node: NodeProto, position: int, name: str = "extra") -> None:
        """Put a Q/DQ pair of its own before one input of a node."""
        source, like = node.input[position], self.node("QuantizeLinear").input[1:]
        quantize_node = helper.make_node("QuantizeLinear", [source, *like], [f"{name}_q"], name=f"{name}_q")
        back = helper.make_node("DequantizeLinear", [f"{name}_q", *like], [f"{name}_dq"], name=f"{name}_dq")
        node.input[position] = f"{name}_dq"
        self.before(node, quantize_node, back)

    def source(self, name: str) -> str:
        """What stands before the pair that makes `name`."""
        middle = self.node("DequantizeLinear", making=name).input[0]
        return str(self.node("QuantizeLinear", making=middle).input[0])

    def residual_add(self, *, downsample: bool) -> NodeProto:
        convs = {n.output[0] for n in self.model.graph.node if n.op_type == "Conv"}
        for node in self.model.graph.node:
            if node.op_type == "Add" and any(i.endswith("_dq") for i in node.input):
                shortcut = next(i for i in node.input if i.endswith("_dq"))
                if (self.source(shortcut) in convs) == downsample:
                    return node
        raise AssertionError


FIRST = f"{ENCODER}conv1.weight"


def _zero_point(edit: Editor) -> None:
    edit.replace(edit.node("QuantizeLinear").input[2], np.int8(3))


def _uint8(edit: Editor) -> None:
    edit.replace(edit.node("QuantizeLinear").input[2], np.uint8(0))


def _negative_scale(edit: Editor) -> None:
    edit.replace(f"{FIRST}_scale", -edit.value(f"{FIRST}_scale"))


def _double_scale(edit: Editor) -> None:
    edit.replace(f"{FIRST}_scale", edit.value(f"{FIRST}_scale").astype(np.float64))


def _computed_scale(edit: Editor) -> None:
    node = edit.node("QuantizeLinear")
    edit.before(node, helper.make_node("Abs", [node.input[1]], ["scale"], name="abs"))
    node.input[1] = "scale"


def _no_zero_point(edit: Editor) -> None:
    del edit.node("QuantizeLinear").input[2]


def _activation_per_channel(edit: Editor) -> None:
    node = edit.node("QuantizeLinear")
    edit.replace(node.input[1], np.full(3, edit.value(node.input[1])))
    edit.replace(node.input[2], np.zeros(3, np.int8))


def _weight_per_tensor(edit: Editor) -> None:
    edit.replace(f"{FIRST}_scale", edit.value(f"{FIRST}_scale").max())


def _weight_axis(edit: Editor) -> None:
    edit.node("DequantizeLinear", reading=f"{FIRST}_int8").attribute[0].i = 1


def _weight_at_128(edit: Editor) -> None:
    weight = edit.value(f"{FIRST}_int8").copy()
    weight.flat[0] = -128
    edit.replace(f"{FIRST}_int8", weight)


def _weight_uint8(edit: Editor) -> None:
    edit.replace(f"{FIRST}_int8", edit.value(f"{FIRST}_int8").view(np.uint8))


def _float_weight(edit: Editor) -> None:
    conv = edit.node("Conv", reading=f"{FIRST}_dq")
    weight = edit.value(f"{FIRST}_int8") * edit.value(f"{FIRST}_scale")[:, None, None, None]
    edit.model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), FIRST))
    conv.input[1] = FIRST


def _float_input(edit: Editor) -> None:
    conv = edit.node("Conv", reading=f"{FIRST}_dq")
    conv.input[0] = edit.source(conv.input[0])


def _int_bias(edit: Editor) -> None:
    bias = edit.node("Conv", reading=f"{FIRST}_dq").input[2]
    edit.replace(bias, edit.value(bias).astype(np.int32))


def _pair_after_conv(edit: Editor) -> None:
    relu = edit.node("Relu")
    edit.pair(relu, 0)


def _both_inputs_of_add(edit: Editor) -> None:
    add = edit.residual_add(downsample=False)
    edit.pair(add, next(p for p, name in enumerate(add.input) if not name.endswith("_dq")))


def _no_input_of_add(edit: Editor) -> None:
    add = edit.residual_add(downsample=False)
    position = next(p for p, name in enumerate(add.input) if name.endswith("_dq"))
    add.input[position] = edit.source(add.input[position])


def _branch_instead_of_shortcut(edit: Editor) -> None:
    """With a downsample convolution both sides come from convolutions; the wrong one is quantised."""
    add = edit.residual_add(downsample=True)
    quantized = next(p for p, name in enumerate(add.input) if name.endswith("_dq"))
    add.input[quantized] = edit.source(add.input[quantized])
    edit.pair(add, 1 - quantized)


def _branch_of_identity(edit: Editor) -> None:
    add = edit.residual_add(downsample=False)
    quantized = next(p for p, name in enumerate(add.input) if name.endswith("_dq"))
    add.input[quantized] = edit.source(add.input[quantized])
    edit.pair(add, 1 - quantized)


def _second_pair(edit: Editor) -> None:
    conv = edit.node("Conv", reading="layer1.0.conv1.weight_dq")
    conv.input[0] = edit.source(conv.input[0])
    edit.pair(conv, 0)


def _different_scales(edit: Editor) -> None:
    nodes = [n for n in edit.model.graph.node if n.op_type == "QuantizeLinear"]
    nodes[0].input[1] = nodes[1].input[1]


def _quantised_head(edit: Editor) -> None:
    edit.pair(edit.node("MatMul"), 0)


def _head_conv_reads_int8(edit: Editor) -> None:
    conv = edit.node("Conv", reading="inspector.head.map.weight")
    conv.input[0] = f"{conv.input[0]}_dq"


def _int8_reaches_the_head(edit: Editor) -> None:
    pool = edit.node("AveragePool")
    edit.pair(pool, 0)


def _no_encoder(edit: Editor) -> None:
    for node in edit.model.graph.node:
        if node.op_type == "Conv":
            node.input[1] = f"other_{node.input[1]}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_zero_point, "zero point must be int8 and 0, not int8 [3]"),
        (_uint8, "zero point must be int8 and 0, not uint8"),
        (_no_zero_point, "scale or zero point is not a constant"),
        (_computed_scale, "scale or zero point is not a constant"),
        (_negative_scale, "scales must be float32, finite and positive"),
        (_double_scale, "scales must be float32, finite and positive"),
        (_activation_per_channel, "an activation has one scale per tensor"),
        (_weight_per_tensor, "weights need a scale per output channel"),
        (_weight_axis, "weights need a scale per output channel"),
        (_weight_at_128, "weights must be int8 in -127..127"),
        (_weight_uint8, "weights must be int8 in -127..127"),
        (_float_weight, "its weight is not quantised"),
        (_float_input, "its input is not quantised"),
        (_int_bias, "its bias must be a float32 constant"),
        (_pair_after_conv, "quantises the output of a convolution"),
        (_both_inputs_of_add, "2 inputs of the residual Add are quantised instead of one"),
        (_no_input_of_add, "0 inputs of the residual Add are quantised instead of one"),
        (_branch_instead_of_shortcut, "the branch of the residual Add is quantised instead of the shortcut"),
        (_branch_of_identity, "the float input of the residual Add must come from a convolution"),
        (_second_pair, "has 2 Q/DQ pairs instead of one"),
        (_different_scales, "must be followed by one DequantizeLinear of the same scale"),
        (_quantised_head, "(MatMul) must stay float"),
        (_head_conv_reads_int8, "(Conv) must stay float"),
        (_int8_reaches_the_head, "(AveragePool) must stay float"),
        (_no_encoder, "no convolution of the encoder is there"),
    ],
)
def test_audit_sees(int8_model: ModelProto, change: Callable[[Editor], None], message: str) -> None:
    edit = Editor(int8_model)
    change(edit)
    faults = list(find_faults(edit.model))
    assert any(message in fault for fault in faults), faults
    with pytest.raises(ExportError, match="breaks the placement rules"):
        audit(edit.model)


def test_audit_refuses_the_float_model(float_model: ModelProto) -> None:
    faults = list(find_faults(float_model))
    assert sum("its weight is not quantised" in fault for fault in faults) == 15
    assert sum("0 inputs of the residual Add" in fault for fault in faults) == BLOCKS


def test_dequantising_what_nothing_quantised(int8_model: ModelProto) -> None:
    edit = Editor(int8_model)
    conv = edit.node("Conv", reading=f"{FIRST}_dq")
    edit.node("DequantizeLinear", making=conv.input[0]).input[0] = "frames"
    assert any("dequantises what nothing quantised" in fault for fault in find_faults(edit.model))
