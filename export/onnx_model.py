"""From torch to ONNX: one static graph, opset 18, that TensorRT 10.3 and newer can build.

frames uint8 (1, H, W, 3) BGR -> score (1,), level_scores (1, 3), anomaly_map (1, h, w)
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Set

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor, nn

from kenpin.errors import ExportError
from kenpin.precision import INPUT, OUTPUTS

OPSET = 18
# The scales of Q/DQ may be fp16 from here on.
HALF_OPSET = 19
# TensorRT 10.3 (JetPack 6.1) reads IR versions up to 10.
MAX_IR_VERSION = 10
# A model of the largest width and its memory take a tenth of this; protobuf itself ends at 2 GB.
MAX_MODEL_BYTES = 256 << 20
# Parameters keep their names through the exporter; those of the encoder start with this.
_WHOLE = "inspector."
ENCODER = f"{_WHOLE}encoder."

# Operators that TensorRT 10.3 to 11 builds in float, with static shapes.
ALLOWED_OPS = frozenset(
    {"Abs", "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "Div", "Exp", "Expand", "Flatten", "Gather"}
    | {"Gemm", "GlobalAveragePool", "Identity", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pow"}
    | {"Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize"}
    | {"Sigmoid", "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
# Inputs that decide a shape must be constants, or TensorRT would need dynamic shapes.
SHAPE_INPUTS = {
    "Expand": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
_CHANGE_THE_MODEL = "write this part of the model with plain operators and constant shapes"


def to_onnx(inspector: nn.Module, *, shape: tuple[int, int]) -> ModelProto:
    """Export a model in evaluation mode; batch norms are folded into the convolutions.

    Args:
        inspector: Maps frames (N, H, W, 3) to score, level_scores and anomaly_map; its submodule
            `encoder` holds what is quantised later.
        shape: Height and width of the frames.

    Raises:
        ExportError: The model cannot be exported, or the graph is one that a station cannot run.
    """
    frames = torch.zeros((1, *shape, 3), dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                _CastFirst(inspector).eval(),
                (frames,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(f"torch cannot export the model: {cause}", cure=_CHANGE_THE_MODEL) from None
    assert program is not None
    model = strip_notes(program.model_proto)
    for node in model.graph.node:
        if node.op_type == "Conv":
            # As the gate's table has it: TensorRT calls its layers so, and a passport tells which run in INT8.
            node.name = node.input[1].removeprefix(_WHOLE).removesuffix(".weight")
    check_model(model, shape=shape)
    return model


class _CastFirst(nn.Module):
    """TensorRT accepts uint8 for an input that is cast at once, and for nothing else: not for a transpose."""

    def __init__(self, inspector: nn.Module) -> None:
        super().__init__()
        self.inspector = inspector

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor, Tensor] = self.inspector(frames.float())
        return outputs


def strip_notes(model: ModelProto) -> ModelProto:
    """A copy without the exporter's notes: they hold source paths of this machine."""
    clean = ModelProto()
    clean.CopyFrom(model)
    del clean.metadata_props[:]
    del clean.graph.metadata_props[:]
    clean.doc_string = clean.graph.doc_string = ""
    for part in (*clean.graph.node, *clean.graph.value_info, *clean.graph.input, *clean.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    return clean


def check_model(model: ModelProto, *, shape: tuple[int, int], opset: int = OPSET) -> None:
    """Refuse a graph that ONNX finds wrong, or that a station cannot run.

    Args:
        model: The graph.
        shape: Height and width of the frames.
        opset: The one it must have.

    Raises:
        ExportError: It names the node.
    """
    _check_storage(model)
    _check_by_onnx(model)
    _check_numbers(model)
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    if opsets != [("", opset)] or model.ir_version > MAX_IR_VERSION or model.functions:
        raise ExportError(
            f"the graph has opsets {opsets} and IR version {model.ir_version}, not opset {opset} "
            f"and IR version {MAX_IR_VERSION} at most",
            cure="install the versions of torch and onnxscript that constraints.txt names",
        )
    _check_ends(model, shape)
    constants = {tensor.name for tensor in model.graph.initializer}
    names: set[str] = set()
    for node in model.graph.node:
        _check_node(node, constants)
        if node.name in names:
            raise ExportError(
                "two nodes have one name, which TensorRT refuses",
                where=f"node {node.name}",
                cure=_CHANGE_THE_MODEL,
            )
        names.add(node.name)


def _check_storage(model: ModelProto) -> None:
    """A bundle signs one file: all numbers must be in it, and a station must be able to hold it."""
    size = model.ByteSize()
    if size > MAX_MODEL_BYTES:
        raise ExportError(
            f"the graph has {size / 1e6:.0f} MB, more than {MAX_MODEL_BYTES / 1e6:.0f} MB",
            cure="train with a smaller --size; a kenpin model has less than 50 MB",
        )
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ExportError(
                "a tensor of the graph is stored in another file, which nobody would sign",
                where=tensor.name,
                cure="save the model in one file, without external data",
            )


def _check_numbers(model: ModelProto) -> None:
    """NaN runs through one kernel and ends in the Relu of another: every machine would score otherwise."""
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ExportError(
                "the model holds numbers that are not finite",
                where=tensor.name,
                cure="train again with kenpin train --precision fp32, or another --seed",
            )


def _check_by_onnx(model: ModelProto) -> None:
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"the graph is not valid ONNX: {first}", cure=_CHANGE_THE_MODEL) from None


def _check_ends(model: ModelProto, frame: tuple[int, int]) -> None:
    graph = model.graph
    found = {end.name: end.type.tensor_type for end in (*graph.input, *graph.output)}
    if [i.name for i in graph.input] != [INPUT] or tuple(o.name for o in graph.output) != OUTPUTS:
        raise ExportError(
            f"the graph maps {[i.name for i in graph.input]} to {[o.name for o in graph.output]}",
            cure=f"it must map {INPUT} to {', '.join(OUTPUTS)}",
        )
    wanted: dict[str, tuple[int, list[int | None]]] = {
        INPUT: (TensorProto.UINT8, [1, *frame, 3]),
        "score": (TensorProto.FLOAT, [1]),
        "level_scores": (TensorProto.FLOAT, [1, 3]),
        "anomaly_map": (TensorProto.FLOAT, [1, None, None]),
    }
    for name, (kind, shape) in wanted.items():
        real = [dim.dim_value for dim in found[name].shape.dim]
        fits = len(real) == len(shape) and all(
            r > 0 and w in (None, r) for r, w in zip(real, shape, strict=True)
        )
        if found[name].elem_type != kind or not fits:
            raise ExportError(f"{name} has the shape {real}, not {shape}", cure=_CHANGE_THE_MODEL)


def _check_node(node: NodeProto, constants: Set[str]) -> None:
    def refuse(why: str) -> ExportError:
        return ExportError(why, where=f"node {node.name} ({node.op_type})", cure=_CHANGE_THE_MODEL)

    if node.domain or node.op_type not in ALLOWED_OPS:
        raise refuse(f"TensorRT is not known to build the operator {node.domain or node.op_type}")
    if INPUT in node.input and node.op_type != "Cast":
        raise refuse("the frames must be cast before anything else: TensorRT takes uint8 for inputs only")
    if len(node.output) > 1 and node.op_type == "MaxPool":
        raise refuse("TensorRT gives no indices of a maximum")
    if any(attribute.name == "antialias" and attribute.i for attribute in node.attribute):
        raise refuse("TensorRT does not build antialiasing")
    for position in SHAPE_INPUTS.get(node.op_type, ()):
        if position < len(node.input) and node.input[position] and node.input[position] not in constants:
            raise refuse(f"its shape depends on a computed value ({node.input[position]})")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: it logs about packages that are not needed and warns about its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
