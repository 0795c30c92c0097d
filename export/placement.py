"""Where Q/DQ nodes belong in a float graph, and which nodes are the encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from kenpin.errors import ExportError
from kenpin.export.onnx_model import ENCODER

_BETWEEN_CONVS = frozenset({"Add", "MaxPool", "Relu"})
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Placement:
    """What is quantised, by name.

    Attributes:
        convs: Weights of the encoder's INT8 convolutions.
        inputs: Activations that these convolutions read.
        shortcuts: Activations that reach a residual Add by the shortcut.
        adds: Those Adds: name of the Add's output -> position of the shortcut among its inputs.
        floats: Weights of the encoder's convolutions that stay float.
    """

    convs: tuple[str, ...]
    inputs: tuple[str, ...]
    shortcuts: tuple[str, ...]
    adds: Mapping[str, int]
    floats: tuple[str, ...] = ()

    @property
    def activations(self) -> tuple[str, ...]:
        """Every activation that gets a Q/DQ pair, each once."""
        return tuple(dict.fromkeys(self.inputs + self.shortcuts))


def find_placement(model: ModelProto, *, floats: Collection[str] = ()) -> Placement:
    """Where Q/DQ belongs in a float model.

    Args:
        model: The float model.
        floats: Weights of convolutions that shall stay float. The shortcut of an Add whose branch stays float
            stays float, too: they are fused in float then.

    Raises:
        ExportError: No convolution of the encoder is found.
    """
    nodes = list(model.graph.node)
    every = [node for node in nodes if is_encoder_conv(node)]
    if not every:
        raise ExportError(
            "the graph has no convolution of the encoder",
            cure=f"name the submodule to quantise encoder (weights named {ENCODER}…)",
        )
    convs = [node for node in every if node.input[1] not in floats]
    adds = _residual_adds(nodes, convs={node.output[0] for node in convs})
    return Placement(
        convs=tuple(node.input[1] for node in convs),
        inputs=tuple(dict.fromkeys(node.input[0] for node in convs)),
        shortcuts=tuple(n.input[adds[n.output[0]]] for n in nodes if n.output[0] in adds),
        adds=adds,
        floats=tuple(node.input[1] for node in every if node.input[1] in floats),
    )


def is_encoder_conv(node: NodeProto) -> bool:
    """Whether a node is a convolution of the encoder, quantised or not."""
    return node.op_type == "Conv" and node.input[1].startswith(ENCODER)


def _residual_adds(nodes: Sequence[NodeProto], *, convs: Collection[str]) -> dict[str, int]:
    """Output of each residual Add with a quantised branch -> position of the shortcut among its inputs.

    Args:
        nodes: All nodes.
        convs: Outputs of the quantised convolutions.
    """
    readers = Counter(name for node in nodes for name in node.input)
    depths = conv_depths(nodes)
    made = {node.output[0] for node in nodes if is_encoder_conv(node)}
    adds = {}
    for node in nodes:
        if node.op_type == "Add" and all(name in depths for name in node.input):
            branches = [p for p, name in enumerate(node.input) if name in made and readers[name] == 1]
            branch = max(branches, key=lambda p: depths[node.input[p]], default=None)
            if branch is not None and node.input[branch] in convs:
                adds[node.output[0]] = 1 - branch
    return adds


def conv_depths(nodes: Sequence[NodeProto]) -> dict[str, int]:
    """Convolutions on the longest way to each computed tensor."""
    depths: dict[str, int] = {}
    for node in nodes:
        depth = max((depths.get(name, 0) for name in node.input), default=0) + (node.op_type == "Conv")
        depths |= dict.fromkeys(node.output, depth)
    return depths


def encoder_nodes(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """The encoder's nodes in order: its convolutions, what stands between them, and their Q/DQ."""
    inside: list[NodeProto] = []
    made: set[str] = set()
    listed = list(nodes)
    read = _read_by_encoder(listed)
    for node in listed:
        between = node.op_type in _BETWEEN_CONVS and all(name in made for name in node.input)
        pair = node.op_type in _QDQ and node.output[0] in read
        if is_encoder_conv(node) or between or pair:
            inside.append(node)
            made.update(node.output)
    return inside


def _read_by_encoder(nodes: Sequence[NodeProto]) -> set[str]:
    """What the encoder's convolutions and Adds read by way of Q/DQ nodes only."""
    makers = {name: node for node in nodes for name in node.output}
    found: set[str] = set()
    for node in nodes:
        for name in node.input if is_encoder_conv(node) or node.op_type == "Add" else ():
            behind = name
            while behind in makers and makers[behind].op_type in _QDQ:
                found.add(behind)
                behind = makers[behind].input[0]
    return found


def find_taps(model: ModelProto) -> tuple[str, ...]:
    """What the head reads of the encoder of a float model, in order."""
    inside = encoder_nodes(model.graph.node)
    known = {node.output[0] for node in inside}
    outside = [node for node in model.graph.node if node.output[0] not in known]
    read = {name for node in outside for name in node.input}
    return tuple(node.output[0] for node in inside if node.output[0] in read)
