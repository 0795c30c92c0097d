"""The ONNX graph: what comes out, and what is refused."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from kenpin.errors import ExportError
from kenpin.export.onnx_model import ENCODER, HALF_OPSET, MAX_MODEL_BYTES, check_model, strip_notes, to_onnx
from kenpin.export.outputs import Fusion, open_session, run_onnx, run_torch
from kenpin.frame import Image
from kenpin.train.encoder import normalise

SIDE = 64


def test_graph(float_model: ModelProto) -> None:
    count = Counter(node.op_type for node in float_model.graph.node)
    assert count["Conv"] == 16
    assert count["BatchNormalization"] == 0
    assert [(o.domain, o.version) for o in float_model.opset_import] == [("", 18)]
    assert float_model.ir_version <= 10
    weights = [t.name for t in float_model.graph.initializer if t.name.startswith(ENCODER)]
    assert sum(name.endswith(".weight") for name in weights) == 15


def test_convolutions_have_the_names_that_the_gates_table_has(float_model: ModelProto) -> None:
    """TensorRT's layers are called after them."""
    names = [node.name for node in float_model.graph.node if node.op_type == "Conv"]
    assert names[:2] == ["encoder.conv1", "encoder.layer1.0.conv1"]
    assert {name.split(".")[0] for name in names} == {"encoder", "head"}


def test_frames_are_cast_first(float_model: ModelProto) -> None:
    readers = [node.op_type for node in float_model.graph.node if "frames" in node.input]
    assert readers == ["Cast"]


def test_a_large_picture_is_normalised_as_exactly_as_a_small_one() -> None:
    """ONNX Runtime adds the numbers of a mean in a row; over a whole picture that lost three digits."""
    side = 512
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, side, side),)
        program = torch.onnx.export(Normalised(), example, dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    session = open_session(program.model_proto, Fusion.FULL)
    picture = 0.5 + 0.4 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    (ours,) = session.run(None, {session.get_inputs()[0].name: picture.numpy()})
    assert np.abs(ours - normalise(picture.double()).numpy()).max() < 2e-6


class Normalised(nn.Module):
    """The first step of every model."""

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) to the same, with zero mean and unit spread."""
        return normalise(pictures)


def test_same_scores_as_torch(float_model: ModelProto, model: nn.Module, pictures: Image) -> None:
    ours, theirs = run_onnx(float_model, pictures, fusion=Fusion.FULL), run_torch(model, pictures)
    assert ours.score.shape == (len(pictures),)
    assert ours.level_scores.shape == (len(pictures), 3)
    np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-4)
    np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-3)


def test_nothing_of_this_machine_is_inside(float_model: ModelProto) -> None:
    assert b".py" not in float_model.SerializeToString()
    noted = ModelProto()
    noted.CopyFrom(float_model)
    noted.graph.node[0].metadata_props.add(key="stack", value="/home/someone/secret.py")
    noted.graph.node[0].doc_string = noted.doc_string = "/home/someone/secret.py"
    assert strip_notes(noted) == float_model


class Wrong(nn.Module):
    """Ends in an operator that no station builds, or in shapes that depend on the picture."""

    def __init__(self, tail: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 3, 3)
        self.tail = tail

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.encoder(frames.permute(0, 3, 1, 2).float())
        scores = self.tail(maps.flatten(2).amax(2))
        return scores.amax(1), scores, maps[:, 0]


def test_operator_that_is_not_allowed_is_named() -> None:
    with pytest.raises(ExportError, match="operator Cos") as caught:
        to_onnx(Wrong(torch.cos), shape=(16, 16))
    assert caught.value.where == "node node_cos (Cos)"


def test_model_that_torch_cannot_export() -> None:
    with pytest.raises(ExportError, match="torch cannot export the model") as caught:
        to_onnx(Wrong(lambda x: x * float(x.sum().item() > 0) if x.sum() > 0 else x), shape=(16, 16))
    assert "\n" not in caught.value.what


def test_wrong_outputs() -> None:
    with pytest.raises(ExportError, match="level_scores has the shape"):
        to_onnx(Wrong(lambda scores: scores[:, :2]), shape=(16, 16))


def changed(model: ModelProto, change: Callable[[ModelProto], object]) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return copy


def _computed_shape(model: ModelProto) -> None:
    """A Reshape whose shape is computed, although it always comes out the same."""
    node = next(n for n in model.graph.node if n.op_type == "Reshape")
    shape = node.input[1]
    model.graph.node.insert(0, helper.make_node("Neg", [shape], ["minus"], name="minus"))
    model.graph.node.insert(1, helper.make_node("Neg", ["minus"], ["shape"], name="plus"))
    node.input[1] = "shape"


def _transpose_first(model: ModelProto) -> None:
    """Cast and Transpose change places: the same numbers, but a transpose of uint8."""
    cast, transpose = (NodeProto.FromString(n.SerializeToString()) for n in model.graph.node[:2])
    assert (cast.op_type, transpose.op_type) == ("Cast", "Transpose")
    transpose.input[0], cast.input[0] = cast.input[0], "moved"
    cast.output[0], transpose.output[0] = transpose.output[0], "moved"
    model.graph.node[0].CopyFrom(transpose)
    model.graph.node[1].CopyFrom(cast)
    del model.graph.value_info[:]


def _external(model: ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.startswith(ENCODER))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def _dynamic_shape(model: ModelProto) -> None:
    for axis, name in ((1, "height"), (2, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    _forget_shapes(model)


def _dynamic_batch(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    _forget_shapes(model)


def _forget_shapes(model: ModelProto) -> None:
    """What the exporter wrote down would contradict a shape that is open now."""
    del model.graph.value_info[:]


def _unknown_type(model: ModelProto) -> None:
    model.graph.node[3].op_type = "NoSuchOperator"


def _wrong_shape(model: ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("layer1.0.conv1.weight"))
    tensor.CopyFrom(numpy_helper.from_array(np.zeros((8, 7, 3, 3), np.float32), tensor.name))


def _missing_scale(model: ModelProto) -> None:
    quantized = ["QuantizeLinear", "DequantizeLinear"]
    names = [model.graph.node[3].input[0], "middle", "end"]
    for number, op_type in enumerate(quantized):
        node = helper.make_node(op_type, [names[number], "scale", "zero"], [names[number + 1]], name=op_type)
        model.graph.node.insert(3 + number, node)


def _not_finite(value: float) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith("layer1.0.conv1.weight"))
        weight = numpy_helper.to_array(tensor).copy()
        weight[0, 0, 0, 0] = value
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))

    return change


def _one_name(model: ModelProto) -> None:
    model.graph.node[5].name = model.graph.node[4].name


def _indices(model: ModelProto) -> None:
    next(n for n in model.graph.node if n.op_type == "MaxPool").output.append("indices")


def _antialias(model: ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Resize")
    next(a for a in node.attribute if a.name == "antialias").i = 1


def _int64_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.opset_import[0].__setattr__("version", 19), "opsets"),
        (lambda m: m.opset_import.add(domain="com.microsoft", version=1), "opsets"),
        (lambda m: m.opset_import.insert(0, helper.make_opsetid("", 13)), "opsets"),
        (lambda m: m.__setattr__("ir_version", 11), "IR version 11"),
        (lambda m: m.graph.input[0].__setattr__("name", "image"), "not valid ONNX"),
        (_int64_input, "frames has"),
        (_computed_shape, "depends on a computed value"),
        (_transpose_first, "cast before anything else"),
        (_external, "stored in another file"),
        (_dynamic_shape, r"frames has the shape \[1, 0, 0, 3\]"),
        (_dynamic_batch, r"score has the shape \[0\]"),
        (_unknown_type, "not valid ONNX"),
        (_wrong_shape, "not valid ONNX"),
        (_missing_scale, "not valid ONNX"),
        (_not_finite(np.nan), "numbers that are not finite"),
        (_not_finite(np.inf), "numbers that are not finite"),
        (_one_name, "two nodes have one name"),
        (_indices, "no indices"),
        (_antialias, "antialiasing"),
    ],
)
def test_graphs_that_are_refused(
    float_model: ModelProto, change: Callable[[ModelProto], object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        check_model(changed(float_model, change), shape=(SIDE, SIDE))


def test_a_file_full_of_zeros_is_refused(float_model: ModelProto) -> None:
    huge = ModelProto()
    huge.CopyFrom(float_model)
    huge.graph.initializer.append(
        TensorProto(
            name="zeros", dims=[MAX_MODEL_BYTES], data_type=TensorProto.UINT8, raw_data=bytes(MAX_MODEL_BYTES)
        )
    )
    with pytest.raises(ExportError, match="MB, more than 268 MB") as caught:
        check_model(huge, shape=(SIDE, SIDE))
    assert "--size" in caught.value.cure


def test_opset_19_is_for_fp16_only(float_model: ModelProto, half_model: ModelProto) -> None:
    check_model(half_model, shape=(SIDE, SIDE), opset=HALF_OPSET)
    with pytest.raises(ExportError, match="not opset 18"):
        check_model(half_model, shape=(SIDE, SIDE))
    with pytest.raises(ExportError, match="not opset 19"):
        check_model(float_model, shape=(SIDE, SIDE), opset=HALF_OPSET)


def test_another_size_is_refused(float_model: ModelProto) -> None:
    with pytest.raises(ExportError, match=r"frames has the shape \[1, 64, 64, 3\]"):
        check_model(float_model, shape=(96, 96))


@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_session_rewrites_the_graph_no_further_and_takes_no_more_threads_than_said(
    float_model: ModelProto, fusion: Fusion
) -> None:
    options = open_session(float_model, fusion, threads=2).get_session_options()
    assert (options.graph_optimization_level, options.intra_op_num_threads) == (fusion.value, 2)
