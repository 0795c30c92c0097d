"""Checks where a finished graph computes in fp16: in the encoder, if it does so at all, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from kenpin.export.audit_graph import Graph
from kenpin.export.placement import encoder_nodes

_REAL = {TensorProto.FLOAT: np.dtype(np.float32), TensorProto.FLOAT16: np.dtype(np.float16)}
_CAST = "Cast"


def find_type_faults(model: ModelProto, graph: Graph) -> Iterator[str]:
    """Rule: the encoder computes in one float type, all else in fp32; only a Cast stands between them."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        yield f"the types do not fit: {str(error).strip().splitlines()[0]}"
        return
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    inside = {node.output[0] for node in encoder_nodes(model.graph.node)}
    for node in graph.nodes:
        found = _REAL.get(kinds.get(node.output[0], TensorProto.UNDEFINED))
        entrance = node.op_type == _CAST and any(r.output[0] in inside for r in graph.readers[node.output[0]])
        wanted = graph.real if node.output[0] in inside or entrance else np.dtype(np.float32)
        if found not in (None, wanted):
            yield f"{node.name} ({node.op_type}) must compute in {wanted}, not {found}"
