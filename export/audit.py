"""Checks every rule of `quantize.py`, `half.py` and `head_weights.py`, without knowing how a graph was made."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from kenpin.errors import ExportError
from kenpin.export.audit_graph import DEQUANTIZE, QUANTIZE, Graph
from kenpin.export.audit_head import find_head_faults
from kenpin.export.audit_types import find_type_faults
from kenpin.export.placement import is_encoder_conv
from kenpin.export.quantize import LEAST_SCALE, QMAX


def audit(model: ModelProto, *, floats: Collection[str] = ()) -> None:
    """Refuse an INT8 graph that TensorRT would reject or build slowly.

    Args:
        model: The finished graph.
        floats: Weights of the convolutions that were returned to float. Every other one must be INT8.

    Raises:
        ExportError: It names every broken rule and node.
    """
    findings = list(find_faults(model, floats=floats))
    if findings:
        raise ExportError(
            "the INT8 graph breaks the placement rules:\n    " + "\n    ".join(findings),
            cure="this is a fault of kenpin export, or of a model built unlike a residual network; report it",
        )


def find_faults(model: ModelProto, *, floats: Collection[str] = ()) -> Iterator[str]:
    """Every broken rule of an INT8 graph, one sentence each."""
    graph = Graph(model, floats)
    if not any(is_encoder_conv(node) for node in graph.nodes):
        yield "no convolution of the encoder is there"
    yield from find_type_faults(model, graph)
    for node in graph.nodes:
        if graph.is_stored_head(node):
            yield from find_head_faults(node, graph)
            continue
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            yield from _check_parameters(node, graph)
        if node.op_type == QUANTIZE:
            yield from _check_pair(node, graph)
        elif node.op_type == DEQUANTIZE:
            yield from _check_readers(node, graph)
        elif is_encoder_conv(node):
            yield from _check_conv(node, graph)
        elif node.op_type == "Add":
            yield from _check_add(node, graph)


def _check_parameters(node: NodeProto, graph: Graph) -> Iterator[str]:
    """Rule: symmetric int8; positive constant scales, one per activation and one per channel of a weight."""
    scale = graph.constants.get(node.input[1])
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None or zero is None:
        yield f"{node.name}: scale or zero point is not a constant"
        return
    if zero.dtype != np.int8 or zero.any():
        yield f"{node.name}: the zero point must be int8 and 0, not {zero.dtype} {zero.ravel()[:1].tolist()}"
    if zero.shape != scale.shape:
        yield f"{node.name}: the zero point has the shape {zero.shape}, its scale {scale.shape}"
    if scale.dtype != graph.real or not (np.isfinite(scale) & (scale >= LEAST_SCALE)).all():
        yield f"{node.name}: scales must be {graph.real}, finite and positive, not subnormal in fp32"
    weight = graph.constants.get(graph.source_of(node.input[0]))
    if weight is not None:
        yield from _check_weight(node, weight, scale)
    elif scale.ndim:
        yield f"{node.name}: an activation has one scale per tensor, this has {scale.shape}"


def _check_weight(node: NodeProto, weight: NDArray[np.generic], scale: NDArray[np.generic]) -> Iterator[str]:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if axis != 0 or scale.shape != weight.shape[:1]:
        yield f"{node.name}: weights need a scale per output channel (axis 0), not {scale.shape} on axis {axis}"
        return
    if weight.dtype == np.int8:
        steps = weight.astype(np.float32)
    elif weight.dtype.kind == "f":
        steps = np.rint(weight.astype(np.float32) / scale.astype(np.float32).reshape(-1, 1, 1, 1))
    else:
        steps = np.full(1, np.inf)
    if not (np.abs(steps) <= QMAX).all():
        yield f"{node.name}: weights must be int8 in -{QMAX}..{QMAX}"


def _check_pair(node: NodeProto, graph: Graph) -> Iterator[str]:
    """Rule: a tensor has one pair; nothing stands between a convolution and the Add or Relu fused into it."""
    siblings = [r for r in graph.readers[node.input[0]] if r.op_type == QUANTIZE]
    if len(siblings) > 1 and siblings[0] is node:
        yield f"{node.input[0]} has {len(siblings)} Q/DQ pairs instead of one"
    partners = graph.readers[node.output[0]]
    if [p.op_type for p in partners] != [DEQUANTIZE] or partners[0].input[1:] != node.input[1:]:
        yield f"{node.name}: must be followed by one DequantizeLinear of the same scale"
    elif graph.made_by(node.input[0], "Conv") and not all(
        graph.is_residual_add(reader) for reader in graph.readers[partners[0].output[0]]
    ):
        yield f"{node.name}: quantises the output of a convolution that does not reach an Add as its shortcut"


def _check_readers(node: NodeProto, graph: Graph) -> Iterator[str]:
    """Rule: only the encoder's convolutions and residual Adds read INT8; the head stays float."""
    if node.input[0] not in graph.constants and not graph.made_by(node.input[0], QUANTIZE):
        yield f"{node.name}: dequantises what nothing quantised"
    for reader in graph.readers[node.output[0]]:
        if not is_encoder_conv(reader) and not graph.is_residual_add(reader):
            yield f"{reader.name} ({reader.op_type}) must stay float, but reads {node.output[0]}"


def _check_conv(node: NodeProto, graph: Graph) -> Iterator[str]:
    """Rule: both inputs of an encoder convolution are dequantised, or neither; its bias is float."""
    if graph.is_float_conv(node):
        if any(graph.made_by(name, DEQUANTIZE) for name in node.input):
            yield f"{node.name}: it was returned to float, but reads INT8"
    else:
        for position, what in enumerate(("input", "weight")):
            name = node.input[position]
            constant = graph.source_of(name) in graph.constants
            if not graph.made_by(name, DEQUANTIZE) or constant != (what == "weight"):
                yield f"{node.name}: its {what} is not quantised"
    bias = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if len(node.input) > 2 and (bias is None or bias.dtype != graph.real):
        yield f"{node.name}: its bias must be a {graph.real} constant"


def _check_add(node: NodeProto, graph: Graph) -> Iterator[str]:
    """Rule: of a residual Add exactly the shortcut is quantised; the other input comes from a convolution."""
    if not graph.is_residual_add(node):
        return
    if graph.has_float_branch(node):
        if any(graph.made_by(name, DEQUANTIZE) for name in node.input):
            yield f"{node.name}: it is fused into a float convolution, so its shortcut must stay float"
        return
    branches = [name for name in node.input if not graph.made_by(name, DEQUANTIZE)]
    if len(branches) != 1:
        yield f"{node.name}: {2 - len(branches)} inputs of the residual Add are quantised instead of one"
    elif not graph.is_encoder_conv(branches[0]):
        yield f"{node.name}: the float input of the residual Add must come from a convolution"
    elif any(graph.depths[name] > graph.depths[branches[0]] for name in node.input):
        yield f"{node.name}: the branch of the residual Add is quantised instead of the shortcut"
