"""The encoder in fp16: what of it is not INT8. The frames' preparation, the head and all distances stay fp32.

Scales of Q/DQ may be fp16 from opset 19 on. TensorRT builds strongly typed networks, so the number formats of
the graph are those of the engine.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.onnx_model import HALF_OPSET
from kenpin.export.outputs import Fusion, open_session
from kenpin.export.placement import encoder_nodes

MAX_HALF = 65504.0


def check_rounding() -> None:
    """Make sure that ONNX Runtime counts steps of fp16 numbers as a GPU does.

    1.23, the last one for Python 3.10, cuts the fraction off where ONNX rounds: the gate would judge, and the
    golden frames would hold, scores that no engine gives.

    Raises:
        ExportError: It does not.
    """
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["value", "scale", "zero"], ["step"])],
        "rounding",
        [helper.make_tensor_value_info("value", TensorProto.FLOAT16, [2])],
        [helper.make_tensor_value_info("step", TensorProto.INT8, [2])],
        [
            numpy_helper.from_array(np.float16(1).reshape(()), "scale"),
            numpy_helper.from_array(np.int8(0).reshape(()), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", HALF_OPSET)], ir_version=9)
    (steps,) = open_session(model, Fusion.NONE).run(None, {"value": np.array([1.75, -1.75], np.float16)})
    if steps.tolist() != [2, -2]:
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} cuts fp16 numbers off instead of rounding them, so nobody "
            "would know what an engine with fp16 scores",
            cure="export with Python 3.11 or later, which has newer ones, or with --precision int8",
        )


def to_half(model: ModelProto) -> ModelProto:
    """A copy whose encoder computes in fp16, with a Cast wherever a tensor enters or leaves it.

    Raises:
        ExportError: A number of the encoder is too large for fp16.
    """
    half = ModelProto()
    half.CopyFrom(model)
    half.opset_import[0].version = HALF_OPSET
    inside = {node.output[0] for node in encoder_nodes(model.graph.node)}
    read = {name for node in half.graph.node if node.output[0] in inside for name in node.input}
    for tensor in half.graph.initializer:
        if tensor.name in read and tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(_halved(tensor))
    constants = {tensor.name for tensor in half.graph.initializer}
    nodes = list(_with_casts(half.graph.node, inside, constants))
    del half.graph.node[:], half.graph.value_info[:]
    half.graph.node.extend(nodes)
    return half


def to_single(half: ModelProto) -> ModelProto:
    """The same graph with the numbers that fp16 has, computing in fp32: what ONNX Runtime may optimise."""
    single = ModelProto()
    single.CopyFrom(half)
    for tensor in single.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in single.graph.node:
        for attribute in node.attribute if node.op_type == "Cast" else ():
            if attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    del single.graph.value_info[:]
    return single


def _halved(tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max())
    if not largest <= MAX_HALF:
        raise ExportError(
            f"a weight of the encoder reaches {largest:.3g}: fp16 ends at {MAX_HALF:.0f}",
            where=tensor.name,
            cure="export with --precision int8, or train again",
        )
    return numpy_helper.from_array(values.astype(np.float16), tensor.name)


def _with_casts(nodes: Iterable[NodeProto], inside: set[str], constants: set[str]) -> Iterable[NodeProto]:
    """The nodes in order, each Cast right before its first reader."""
    done: set[str] = set()
    for original in nodes:
        node = NodeProto()
        node.CopyFrom(original)
        here = node.output[0] in inside
        for position, name in enumerate(node.input):
            if name in constants or (name in inside) == here:
                continue
            cast = f"{name}_half" if here else f"{name}_float"
            if cast not in done:
                kind = TensorProto.FLOAT16 if here else TensorProto.FLOAT
                yield helper.make_node("Cast", [name], [cast], name=cast, to=kind)
            done.add(cast)
            node.input[position] = cast
        yield node
