"""INT8 by explicit Q/DQ nodes, placed where TensorRT fuses best (symmetric, strongly typed).

Only the convolutions of the encoder are quantised:

* weights: int8, one scale per output channel, stored as int8 and dequantised; biases stay float;
* activations: one scale per tensor, at the inputs of convolutions, never between a convolution and the Add
  or Relu that is fused into it;
* residual Add: the convolution's branch stays float and the shortcut gets Q/DQ, or Conv + Add + Relu would
  not fuse; of two convolutions the deeper one is the branch, the other (downsample) the shortcut;
* a tensor has one Q/DQ pair, whoever reads it. The head and the preparation of the frames read float.

NVIDIA TensorRT documentation, "Working with quantized types", explicit quantization.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.onnx_model import ENCODER

QMAX = 127


@dataclass(frozen=True)
class Placement:
    """What is quantised, by name.

    Attributes:
        convs: Weights of the encoder's convolutions.
        inputs: Activations that these convolutions read.
        shortcuts: Activations that reach a residual Add by the shortcut.
        adds: Those Adds: name of the Add's output -> position of the shortcut among its inputs.
    """

    convs: tuple[str, ...]
    inputs: tuple[str, ...]
    shortcuts: tuple[str, ...]
    adds: Mapping[str, int]

    @property
    def activations(self) -> tuple[str, ...]:
        """Every activation that gets a Q/DQ pair, each once."""
        return tuple(dict.fromkeys(self.inputs + self.shortcuts))


def find_placement(model: ModelProto) -> Placement:
    """Where Q/DQ belongs in a float model.

    Raises:
        ExportError: No convolution of the encoder is found.
    """
    nodes = list(model.graph.node)
    convs = [node for node in nodes if is_encoder_conv(node)]
    if not convs:
        raise ExportError(
            "the graph has no convolution of the encoder",
            cure=f"name the submodule to quantise encoder (weights named {ENCODER}…)",
        )
    adds = _residual_adds(nodes)
    return Placement(
        convs=tuple(node.input[1] for node in convs),
        inputs=tuple(dict.fromkeys(node.input[0] for node in convs)),
        shortcuts=tuple(n.input[adds[n.output[0]]] for n in nodes if n.output[0] in adds),
        adds=adds,
    )


def is_encoder_conv(node: NodeProto) -> bool:
    """Whether a node is a convolution of the encoder, quantised or not."""
    return node.op_type == "Conv" and node.input[1].startswith(ENCODER)


def _residual_adds(nodes: Sequence[NodeProto]) -> dict[str, int]:
    """Output of each residual Add of the encoder -> position of the shortcut among its inputs."""
    readers = Counter(name for node in nodes for name in node.input)
    depths = conv_depths(nodes)
    convs = {node.output[0] for node in nodes if is_encoder_conv(node)}
    adds = {}
    for node in nodes:
        if node.op_type == "Add" and all(name in depths for name in node.input):
            branches = [p for p, name in enumerate(node.input) if name in convs and readers[name] == 1]
            if branches:
                adds[node.output[0]] = 1 - max(branches, key=lambda p: depths[node.input[p]])
    return adds


def conv_depths(nodes: Sequence[NodeProto]) -> dict[str, int]:
    """Convolutions on the longest way to each computed tensor."""
    depths: dict[str, int] = {}
    for node in nodes:
        depth = max((depths.get(name, 0) for name in node.input), default=0) + (node.op_type == "Conv")
        depths |= dict.fromkeys(node.output, depth)
    return depths


def quantize(model: ModelProto, placement: Placement, ranges: Mapping[str, float]) -> ModelProto:
    """Insert Q/DQ.

    Args:
        model: The float model; it is not changed.
        placement: What `find_placement` said about it.
        ranges: Largest absolute value that each activation should keep; larger ones saturate.

    Returns:
        The INT8 model.
    """
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in placement.convs}
    quantized = ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights]
    for name, weight in weights.items():
        kept += _weight_tensors(name, weight)
    for name in placement.activations:
        kept += _scale(name, np.float32(ranges[name] / QMAX))
    nodes = list(_rewired(model, placement))
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return quantized


def _rewired(model: ModelProto, placement: Placement) -> Iterable[NodeProto]:
    """The nodes in order, each Q/DQ pair right before its first reader."""
    done: set[str] = set()
    for original in model.graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        positions = [0, 1] if is_encoder_conv(node) else []
        positions += [placement.adds[o] for o in node.output if o in placement.adds]
        for position in positions:
            name = node.input[position]
            if name not in done:
                yield from _pair(name, of_weight=name in placement.convs)
            done.add(name)
            node.input[position] = f"{name}_dq"
        yield node


def _pair(name: str, *, of_weight: bool) -> Iterable[NodeProto]:
    parameters = [f"{name}_scale", f"{name}_zero"]
    if of_weight:
        inputs = [f"{name}_int8", *parameters]
        yield helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], name=f"{name}_dq", axis=0)
        return
    yield helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_q"], name=f"{name}_q")
    yield helper.make_node("DequantizeLinear", [f"{name}_q", *parameters], [f"{name}_dq"], name=f"{name}_dq")


def _weight_tensors(name: str, weight: NDArray[np.float32]) -> list[TensorProto]:
    """A weight (O, I, h, w) as int8 in -127..127 and scales (O,)."""
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    # A channel of zeros has no scale of its own; any positive one keeps it zero.
    scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(QMAX)
    steps = np.rint(weight / scale.reshape(-1, 1, 1, 1))
    rounded = np.clip(steps, -QMAX, QMAX).astype(np.int8)
    return [numpy_helper.from_array(rounded, f"{name}_int8"), *_scale(name, scale)]


def _scale(name: str, scale: np.float32 | NDArray[np.float32]) -> list[TensorProto]:
    zero = np.zeros_like(scale, np.int8)
    return [
        numpy_helper.from_array(np.asarray(scale), f"{name}_scale"),
        numpy_helper.from_array(zero, f"{name}_zero"),
    ]
