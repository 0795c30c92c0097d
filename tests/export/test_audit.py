"""An audit that sees each broken rule of the inserter and of the fp16 pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.audit import audit, find_faults
from kenpin.export.onnx_model import ENCODER
from kenpin.export.placement import find_placement
from kenpin.export.quantize import quantize

BLOCKS = 6  # with a residual Add each; two of them have a downsample convolution


def constants(model: ModelProto) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


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


def _zero_point_per_tensor(edit: Editor) -> None:
    edit.replace(f"{FIRST}_zero", np.int8(0))


def _zero_point_of_an_activation_per_channel(edit: Editor) -> None:
    edit.replace(edit.node("QuantizeLinear").input[2], np.zeros(5, np.int8))


def _subnormal_scale(edit: Editor) -> None:
    edit.replace(f"{FIRST}_scale", np.full_like(edit.value(f"{FIRST}_scale"), 1e-39))


def _infinite_scale(edit: Editor) -> None:
    edit.replace(f"{FIRST}_scale", np.full_like(edit.value(f"{FIRST}_scale"), np.inf))


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


def _constant_input(edit: Editor) -> None:
    """Dequantised, but not of any picture."""
    edit.node("Conv", reading=f"{FIRST}_dq").input[0] = f"{FIRST}_dq"


def _int_bias(edit: Editor) -> None:
    bias = edit.node("Conv", reading=f"{FIRST}_dq").input[2]
    edit.replace(bias, edit.value(bias).astype(np.int32))


def _computed_bias(edit: Editor) -> None:
    conv = edit.node("Conv", reading=f"{FIRST}_dq")
    edit.before(conv, helper.make_node("Abs", [conv.input[2]], ["bias"], name="abs"))
    conv.input[2] = "bias"


def _add_of_the_head_reads_int8(edit: Editor) -> None:
    add = next(n for n in reversed(edit.model.graph.node) if n.op_type == "Add")
    edit.pair(add, 0)


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


def _dequantised_twice(edit: Editor) -> None:
    """Each time of the same scale, so the shared pair is split into two."""
    first = edit.node("DequantizeLinear", reading="max_pool2d")
    again = helper.make_node("DequantizeLinear", [*first.input], ["again"], name="again")
    edit.before(first, again)
    edit.residual_add(downsample=False).input[0] = "again"


def _missing_scale(edit: Editor) -> None:
    """onnx itself stumbles over this one with another exception than its own."""
    for op_type in ("QuantizeLinear", "DequantizeLinear"):
        edit.node(op_type, reading="max_pool2d").input[1:] = ["scale", "zero"]


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
        (_subnormal_scale, "scales must be float32, finite and positive"),
        (_infinite_scale, "scales must be float32, finite and positive"),
        (_zero_point_per_tensor, "the zero point has the shape (), its scale (8,)"),
        (_zero_point_of_an_activation_per_channel, "the zero point has the shape (5,), its scale ()"),
        (_activation_per_channel, "an activation has one scale per tensor"),
        (_weight_per_tensor, "weights need a scale per output channel"),
        (_weight_axis, "weights need a scale per output channel"),
        (_weight_at_128, "weights must be int8 in -127..127"),
        (_weight_uint8, "weights must be int8 in -127..127"),
        (_float_weight, "its weight is not quantised"),
        (_float_input, "its input is not quantised"),
        (_constant_input, "its input is not quantised"),
        (_computed_bias, "its bias must be a float32 constant"),
        (_int_bias, "its bias must be a float32 constant"),
        (_pair_after_conv, "quantises the output of a convolution"),
        (_both_inputs_of_add, "2 inputs of the residual Add are quantised instead of one"),
        (_no_input_of_add, "0 inputs of the residual Add are quantised instead of one"),
        (_branch_instead_of_shortcut, "the branch of the residual Add is quantised instead of the shortcut"),
        (_branch_of_identity, "the float input of the residual Add must come from a convolution"),
        (_second_pair, "has 2 Q/DQ pairs instead of one"),
        (_different_scales, "must be followed by one DequantizeLinear of the same scale"),
        (_dequantised_twice, "must be followed by one DequantizeLinear of the same scale"),
        (_missing_scale, "the types do not fit"),
        (_quantised_head, "(MatMul) must stay float"),
        (_add_of_the_head_reads_int8, "(Add) must stay float"),
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


def _saturated_weight(edit: Editor) -> None:
    edit.replace(f"{FIRST}_scale", edit.value(f"{FIRST}_scale") / np.float32(2))


def _pair_of_a_weight_per_tensor(edit: Editor) -> None:
    edit.replace(f"{FIRST}_scale", edit.value(f"{FIRST}_scale").max())
    edit.replace(f"{FIRST}_zero", np.int8(0))


def _weight_without_its_pair(edit: Editor) -> None:
    edit.node("Conv", reading=f"{FIRST}_dq").input[1] = FIRST


def _pair_on_another_axis(edit: Editor) -> None:
    edit.node("QuantizeLinear", reading=FIRST).attribute[0].i = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_saturated_weight, "weights must be int8 in -127..127"),
        (_pair_of_a_weight_per_tensor, "weights need a scale per output channel"),
        (_pair_on_another_axis, "weights need a scale per output channel"),
        (_weight_without_its_pair, "its weight is not quantised"),
    ],
)
def test_audit_sees_in_weights_with_a_pair(
    pair_model: ModelProto, change: Callable[[Editor], None], message: str
) -> None:
    audit(pair_model)
    edit = Editor(pair_model)
    change(edit)
    faults = list(find_faults(edit.model))
    assert any(message in fault for fault in faults), faults


def _float_conv_reads_int8(edit: Editor) -> None:
    edit.pair(edit.node("Conv", reading=FIRST), 0)


def _shortcut_of_a_float_branch(edit: Editor) -> None:
    """The Add of a block whose second convolution is float gets its shortcut quantised all the same."""
    out = edit.node("Conv", reading=f"{ENCODER}layer1.0.conv2.weight").output[0]
    add = edit.node("Add", reading=out)
    edit.pair(add, next(p for p, name in enumerate(add.input) if name != out))


def _float_without_leave(edit: Editor) -> None:
    """Another convolution than the declared ones is float."""
    conv = edit.node("Conv", reading="layer2.1.conv1.weight_dq")
    conv.input[0] = edit.source(conv.input[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_float_conv_reads_int8, "it was returned to float, but reads INT8"),
        (_shortcut_of_a_float_branch, "its shortcut must stay float"),
        (_float_without_leave, "its input is not quantised"),
    ],
)
def test_audit_sees_beside_float_convolutions(
    float_model: ModelProto, ranges: dict[str, float], change: Callable[[Editor], None], message: str
) -> None:
    floats = (FIRST, f"{ENCODER}layer1.0.conv2.weight")
    mixed = quantize(float_model, find_placement(float_model, floats=floats), ranges)
    audit(mixed, floats=floats)
    edit = Editor(mixed)
    change(edit)
    faults = list(find_faults(edit.model, floats=floats))
    assert any(message in fault for fault in faults), faults


def _float_bias(edit: Editor) -> None:
    name = edit.node("Conv", reading=f"{FIRST}_dq").input[2]
    edit.replace(name, edit.value(name).astype(np.float32))


def _float_scale(edit: Editor) -> None:
    name = edit.node("QuantizeLinear").input[1]
    edit.replace(name, edit.value(name).astype(np.float32))


def _half_reaches_the_head(edit: Editor) -> None:
    """A Cast at the seam is gone, and what it fed computes in fp16."""
    cast = next(n for n in edit.model.graph.node if n.op_type == "Cast" and n.input[0].startswith("relu"))
    cast.attribute[0].i = TensorProto.FLOAT16


def _half_within_the_head(edit: Editor) -> None:
    """Down to fp16 and back: valid ONNX, and the distances lose their digits."""
    pool = edit.node("AveragePool")
    down = helper.make_node("Cast", [pool.input[0]], ["low"], name="low", to=TensorProto.FLOAT16)
    back = helper.make_node("Cast", ["low"], ["again"], name="again", to=TensorProto.FLOAT)
    pool.input[0] = "again"
    edit.before(pool, down, back)


def _half_before_the_encoder(edit: Editor) -> None:
    """The preparation of the frames ends in fp16."""
    first = edit.node("QuantizeLinear", reading="_half")
    late = helper.make_node("Abs", [first.input[0]], ["late"], name="late")
    edit.before(first, late)
    first.input[0] = "late"


def _float_within_the_encoder(edit: Editor) -> None:
    """One convolution of a half encoder computes in fp32."""
    conv = edit.node("Conv", reading="layer3.1.conv1.weight_dq")
    for position, name in enumerate(conv.input):
        cast = helper.make_node("Cast", [name], [f"up{position}"], name=f"up{position}", to=TensorProto.FLOAT)
        edit.before(conv, cast)
        conv.input[position] = f"up{position}"
    back = helper.make_node("Cast", ["wide"], [conv.output[0]], name="narrow", to=TensorProto.FLOAT16)
    conv.output[0] = "wide"
    edit.model.graph.node.insert(list(edit.model.graph.node).index(conv) + 1, back)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_float_bias, "the types do not fit"),
        (_float_bias, "its bias must be a float16 constant"),
        (_float_scale, "scales must be float16, finite and positive"),
        (_half_reaches_the_head, "the types do not fit"),
        (_half_within_the_head, "low (Cast) must compute in float32, not float16"),
        (_half_before_the_encoder, "late (Abs) must compute in float32, not float16"),
        (_float_within_the_encoder, "narrow (Cast) must compute in float32, not float16"),
    ],
)
def test_audit_sees_in_fp16(half_model: ModelProto, change: Callable[[Editor], None], message: str) -> None:
    audit(half_model)
    edit = Editor(half_model)
    change(edit)
    faults = list(find_faults(edit.model))
    assert any(message in fault for fault in faults), faults


def test_fp16_has_no_place_in_an_fp32_graph(int8_model: ModelProto) -> None:
    edit = Editor(int8_model)
    _half_within_the_head(edit)
    assert any("low (Cast) must compute in float32" in fault for fault in find_faults(edit.model))
