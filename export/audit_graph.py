"""A finished graph as the audit looks at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from kenpin.export.onnx_model import ENCODER, HALF_OPSET
from kenpin.export.placement import conv_depths, is_encoder_conv

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"


class Graph:
    """Look-ups: who makes a tensor, who reads it, which are constants.

    Args:
        model: The graph.
        floats: Weights of the convolutions that are float on purpose.
    """

    def __init__(self, model: ModelProto, floats: Collection[str]) -> None:
        self.nodes = list(model.graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.depths = conv_depths(self.nodes)
        self.real = np.dtype(np.float16 if model.opset_import[0].version >= HALF_OPSET else np.float32)
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        self._floats = frozenset(floats)

    def made_by(self, name: str, op_type: str) -> bool:
        """Whether a node of that type makes the tensor."""
        return name in self.makers and self.makers[name].op_type == op_type

    def source_of(self, name: str) -> str:
        """The float tensor behind a Q/DQ pair; another tensor is its own source."""
        while self.made_by(name, DEQUANTIZE) or self.made_by(name, QUANTIZE):
            name = self.makers[name].input[0]
        return name

    def is_stored_head(self, node: NodeProto) -> bool:
        """Whether a node makes a constant of the head out of stored steps."""
        name = node.input[0] if node.input else ""
        return node.op_type == DEQUANTIZE and name in self.constants and not name.startswith(ENCODER)

    def is_encoder_conv(self, name: str) -> bool:
        """Whether a convolution of the encoder makes the tensor."""
        return name in self.makers and is_encoder_conv(self.makers[name])

    def is_float_conv(self, node: NodeProto) -> bool:
        """Whether a convolution is float on purpose."""
        return self.source_of(node.input[1]) in self._floats

    def branches_of(self, node: NodeProto) -> list[str]:
        """Outputs of the encoder's convolutions that reach this node alone."""
        sources = [self.source_of(name) for name in node.input]
        return [s for s in sources if self.is_encoder_conv(s) and len(self.readers[s]) == 1]

    def is_residual_add(self, node: NodeProto) -> bool:
        """An Add of computed tensors of which a convolution of the encoder makes one for it alone."""
        computed = all(self.source_of(name) not in self.constants for name in node.input)
        return node.op_type == "Add" and computed and bool(self.branches_of(node))

    def has_float_branch(self, node: NodeProto) -> bool:
        """Whether the convolution that a residual Add is fused into, the deepest, is float on purpose."""
        branch = max(self.branches_of(node), key=lambda name: self.depths[name])
        return self.is_float_conv(self.makers[branch])
