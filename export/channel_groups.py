"""Which channels of the encoder belong together: those that no scale may tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from kenpin.export.placement import encoder_nodes, find_taps, is_encoder_conv


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors of the encoder that an Add, a Relu or a MaxPool ties together, channel by channel.

    Attributes:
        tensors: The tensors.
        makers: Weights and biases of the convolutions that make them.
        readers: Weights of the convolutions that read them.
        taps: Those of the tensors that the head reads.
    """

    tensors: frozenset[str]
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    taps: tuple[str, ...]


def find_channel_groups(model: ModelProto) -> tuple[ChannelGroup, ...]:
    """The groups of a float model: one for each stage's residual stream, and one within each block."""
    nodes = encoder_nodes(model.graph.node)
    convs = [node for node in nodes if is_encoder_conv(node)]
    taps = find_taps(model)
    return tuple(
        ChannelGroup(
            tensors=frozenset(group),
            makers=tuple(name for conv in convs if conv.output[0] in group for name in conv.input[1:]),
            readers=tuple(conv.input[1] for conv in convs if conv.input[0] in group),
            taps=tuple(tap for tap in taps if tap in group),
        )
        for group in _tied(nodes)
    )


def _tied(nodes: Sequence[NodeProto]) -> list[set[str]]:
    """The tensors that the nodes make, in sets: only a convolution changes the channels."""
    groups: list[set[str]] = []
    for node in nodes:
        ends = set(node.output) if is_encoder_conv(node) else {*node.input, *node.output}
        meeting = [group for group in groups if group & ends]
        groups = [group for group in groups if not group & ends]
        groups.append(ends.union(*meeting))
    return groups
