"""Checks every rule of `quantize.py` on a finished INT8 graph, without knowing how it was made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.quantize import QMAX, conv_depths, is_encoder_conv

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"


def audit(model: ModelProto) -> None:
    """Refuse an INT8 graph that TensorRT would reject or build slowly.

    Raises:
        ExportError: It names every broken rule and node.
    """
    findings = list(find_faults(model))
    if findings:
        raise ExportError(
            "the INT8 graph breaks the placement rules:\n    " + "\n    ".join(findings),
            cure="this is a fault of kenpin export, or of a model built unlike a residual network; report it",
        )


def find_faults(model: ModelProto) -> Iterator[str]:
    """Every broken rule of an INT8 graph, one sentence each."""
    graph = _Graph(model)
    if not any(is_encoder_conv(node) for node in graph.nodes):
        yield "no convolution of the encoder is there"
    for node in graph.nodes:
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


class _Graph:
    """Look-ups: who makes a tensor, who reads it, which are constants."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.depths = conv_depths(self.nodes)
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def made_by(self, name: str, op_type: str) -> bool:
        return name in self.makers and self.makers[name].op_type == op_type

    def source_of(self, name: str) -> str:
        """The float tensor behind a Q/DQ pair; another tensor is its own source."""
        while self.made_by(name, DEQUANTIZE) or self.made_by(name, QUANTIZE):
            name = self.makers[name].input[0]
        return name

    def is_encoder_conv(self, name: str) -> bool:
        return name in self.makers and is_encoder_conv(self.makers[name])

    def is_residual_add(self, node: NodeProto) -> bool:
        """An Add of computed tensors of which a convolution of the encoder makes one for it alone."""
        sources = [self.source_of(name) for name in node.input]
        return (
            node.op_type == "Add"
            and all(s not in self.constants for s in sources)
            and any(self.is_encoder_conv(s) and len(self.readers[s]) == 1 for s in sources)
        )


def _check_parameters(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Rule: symmetric int8; positive constant scales, one per activation and one per channel of a weight."""
    scale = graph.constants.get(node.input[1])
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None or zero is None:
        yield f"{node.name}: scale or zero point is not a constant"
        return
    if zero.dtype != np.int8 or zero.any():
        yield f"{node.name}: the zero point must be int8 and 0, not {zero.dtype} {zero.ravel()[:1].tolist()}"
    if scale.dtype != np.float32 or not (np.isfinite(scale) & (scale > 0)).all():
        yield f"{node.name}: scales must be float32, finite and positive"
    if node.op_type == DEQUANTIZE and node.input[0] in graph.constants:
        yield from _check_weight(node, graph.constants[node.input[0]], scale)
    elif scale.ndim:
        yield f"{node.name}: an activation has one scale per tensor, this has {scale.shape}"


def _check_weight(node: NodeProto, weight: NDArray[np.generic], scale: NDArray[np.generic]) -> Iterator[str]:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if weight.dtype != np.int8 or bool((weight.astype(np.int16) < -QMAX).any()):
        yield f"{node.name}: weights must be int8 in -{QMAX}..{QMAX}"
    if axis != 0 or scale.shape != weight.shape[:1]:
        yield f"{node.name}: weights need a scale per output channel (axis 0), not {scale.shape} on axis {axis}"


def _check_pair(node: NodeProto, graph: _Graph) -> Iterator[str]:
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


def _check_readers(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Rule: only the encoder's convolutions and residual Adds read INT8; the head stays float."""
    if node.input[0] not in graph.constants and not graph.made_by(node.input[0], QUANTIZE):
        yield f"{node.name}: dequantises what nothing quantised"
    for reader in graph.readers[node.output[0]]:
        if not is_encoder_conv(reader) and not graph.is_residual_add(reader):
            yield f"{reader.name} ({reader.op_type}) must stay float, but reads {node.output[0]}"


def _check_conv(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Rule: both inputs of an encoder convolution are dequantised, its bias is float."""
    for position, what in enumerate(("input", "weight")):
        name = node.input[position]
        quantized = graph.made_by(name, DEQUANTIZE)
        constant = quantized and graph.makers[name].input[0] in graph.constants
        if not quantized or constant != (what == "weight"):
            yield f"{node.name}: its {what} is not quantised"
    bias = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if len(node.input) > 2 and (bias is None or bias.dtype != np.float32):
        yield f"{node.name}: its bias must be a float32 constant"


def _check_add(node: NodeProto, graph: _Graph) -> Iterator[str]:
    """Rule: of a residual Add exactly the shortcut is quantised; the other input comes from a convolution."""
    if not graph.is_residual_add(node):
        return
    branches = [name for name in node.input if not graph.made_by(name, DEQUANTIZE)]
    if len(branches) != 1:
        yield f"{node.name}: {2 - len(branches)} inputs of the residual Add are quantised instead of one"
    elif not graph.is_encoder_conv(branches[0]):
        yield f"{node.name}: the float input of the residual Add must come from a convolution"
    elif any(graph.depths[name] > graph.depths[branches[0]] for name in node.input):
        yield f"{node.name}: the branch of the residual Add is quantised instead of the shortcut"
