"""Checks how constants of the head are stored as int8: it computes in fp32, whatever they are stored in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from kenpin.export.audit_graph import Graph
from kenpin.export.quantize import LEAST_SCALE, QMAX

_READERS = frozenset({"Gemm", "MatMul", "Transpose"})


def find_head_faults(node: NodeProto, graph: Graph) -> Iterator[str]:
    """Rule: symmetric int8, an fp32 scale per row or column, and only matrix products read it."""
    steps = graph.constants[node.input[0]]
    scale = graph.constants.get(node.input[1]) if len(node.input) > 2 else None
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None or zero is None:
        yield f"{node.name}: scale or zero point is not a constant"
        return
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if steps.dtype != np.int8 or steps.min() < -QMAX or zero.dtype != np.int8 or zero.any():
        yield f"{node.name}: what is stored must be int8 in -{QMAX}..{QMAX}, its zero point 0"
    if scale.dtype != np.float32 or not (np.isfinite(scale) & (scale >= LEAST_SCALE)).all():
        yield f"{node.name}: the scales of the head must be float32, finite and positive"
    if steps.ndim != 2 or axis not in (0, 1) or scale.shape != (steps.shape[axis],):
        yield f"{node.name}: the head needs a scale per row or column, not {scale.shape} on axis {axis}"
    if zero.shape != scale.shape:
        yield f"{node.name}: the zero point has the shape {zero.shape}, its scale {scale.shape}"
    for reader in graph.readers[node.output[0]]:
        if reader.op_type not in _READERS:
            yield f"{reader.name} ({reader.op_type}) must not read {node.output[0]}, which is stored as int8"
