"""Channels of the encoder brought nearer to one reach, so that one scale per tensor serves them better.

A channel that is divided by a positive number passes Relu, MaxPool and Add as it is; the convolutions that made
it divide, those that read it multiply, and where the head reads it a Mul puts it back. In float nothing changes
but the last digits. Cross-layer equalisation (Nagel et al., "Data-free quantization through weight
equalization and bias correction", ICCV 2019), with the reach of the activations in place of that of the weights
and an exponent that leaves the weights some of the difference (Xiao et al., "SmoothQuant", ICML 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from kenpin.export.channel_groups import ChannelGroup, find_channel_groups
from kenpin.export.outputs import Floats, Fusion, run_tensors
from kenpin.export.placement import encoder_nodes, find_placement
from kenpin.export.ranges import check_shown
from kenpin.frame import Image

# 1 would give all channels one reach, 0 changes nothing. Channels that reach alike have less room for what no
# picture showed: beyond this, scores of very strange parts are cut more than ordinary ones gain.
EXPONENT = 0.5
# A channel that reaches less than this share of the largest is treated as if it reached that much.
LEAST_REACH = 0.02


def equalise(model: ModelProto, images: Image, *, advance: Callable[[], object] = lambda: None) -> ModelProto:
    """The same float model with channels that reach alike.

    Args:
        model: The float model; it is not changed.
        images: Pictures that show how far each channel reaches, BGR uint8 (N, H, W, 3) at model resolution.
        advance: Called after each picture.

    Raises:
        ExportError: There is no picture.
    """
    check_shown(images)
    reaches = _measure_channels(model, find_placement(model).activations, images, advance)
    groups = find_channel_groups(model)
    return rescale(model, [(group, _scales(group, reaches)) for group in groups])


def _measure_channels(
    model: ModelProto, names: Sequence[str], images: Image, advance: Callable[[], object]
) -> dict[str, Floats]:
    """Largest absolute value of each channel of activations (N, C, h, w) over pictures: (C,) each."""
    largest: dict[str, Floats] = {}
    for values in run_tensors(model, names, images, fusion=Fusion.FULL):
        for name, value in zip(names, values, strict=True):
            largest[name] = np.maximum(largest.get(name, np.float32(0)), np.abs(value).max((0, 2, 3)))
        advance()
    return largest


def rescale(model: ModelProto, scales: Sequence[tuple[ChannelGroup, Floats]]) -> ModelProto:
    """Divide the channels of each group by its scales (C,), and what the model says stays the same."""
    divisors = {name: scale for group, scale in scales for name in group.makers}
    factors = {name: scale for group, scale in scales for name in group.readers}
    taps = {tap: scale for group, scale in scales for tap in group.taps}
    even = ModelProto()
    even.CopyFrom(model)
    for tensor in even.graph.initializer:
        if tensor.name in divisors or tensor.name in factors:
            value = numpy_helper.to_array(tensor)
            value = value / _along(0, divisors.get(tensor.name), value.ndim)
            value = value * _along(1, factors.get(tensor.name), value.ndim)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    nodes = list(_with_units(model, taps))
    del even.graph.node[:], even.graph.value_info[:]
    even.graph.node.extend(nodes)
    units = [numpy_helper.from_array(s.reshape(1, -1, 1, 1), f"{tap}_unit") for tap, s in taps.items()]
    even.graph.initializer.extend(units)
    return even


def _scales(group: ChannelGroup, reaches: Mapping[str, Floats]) -> Floats:
    """One for each channel, 1 for the one that reaches farthest: every tensor has a range of its own."""
    shares = [reaches[name] / max(float(reaches[name].max()), 1e-30) for name in group.tensors & reaches.keys()]
    return np.asarray(np.maximum(np.max(shares, 0), LEAST_REACH) ** EXPONENT, np.float32)


def _along(axis: int, scale: Floats | None, dimensions: int) -> NDArray[np.float32]:
    if scale is None:
        return np.ones(1, np.float32)
    return scale.reshape([-1 if at == axis else 1 for at in range(dimensions)])


def _with_units(model: ModelProto, taps: Mapping[str, Floats]) -> Iterable[NodeProto]:
    """The nodes in order. A tap keeps name and values for the head; the encoder reads what was divided."""
    inside = {node.output[0] for node in encoder_nodes(model.graph.node)}
    for original in model.graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        made = [name for name in node.output if name in taps]
        if node.output[0] in inside:
            for names in (node.input, node.output):
                names[:] = [f"{name}_even" if name in taps else name for name in names]
        yield node
        for name in made:
            yield helper.make_node("Mul", [f"{name}_even", f"{name}_unit"], [name], name=f"{name}_whole")
