"""What rounding shifts on average is taken back by the biases, which costs a station nothing.

Rounding sends small values to zero, and weights that were rounded miss the mean of their input, so the mean of
a convolution's output moves. Each bias is corrected by what its channel's mean moved over pictures of good
parts, one convolution after the other, because each moves those behind it (empirical bias correction, Nagel et
al., ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from kenpin.export.outputs import Fusion, run_tensors
from kenpin.export.placement import find_placement, is_encoder_conv
from kenpin.export.quantize import quantize
from kenpin.export.scheme import Scheme
from kenpin.frame import Image


def correct_biases(
    model: ModelProto,
    ranges: Mapping[str, float],
    scheme: Scheme,
    images: Image,
    *,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, TensorProto]:
    """Measure with every convolution in INT8.

    Args:
        model: The float model.
        ranges: Range of each activation.
        scheme: Number formats.
        images: Good parts, BGR uint8 (N, H, W, 3) at model resolution.
        advance: Called after each convolution.

    Returns:
        The corrected bias by the name of the convolution's weight.
    """
    convs = [node for node in model.graph.node if is_encoder_conv(node)]
    exact = _means(model, [conv.output[0] for conv in convs], images, Fusion.FULL)
    int8 = quantize(model, find_placement(model), ranges, scheme)
    biases = {tensor.name: tensor for tensor in int8.graph.initializer}
    corrected = {}
    for conv in convs:
        _, weight, bias = conv.input
        name = conv.output[0]
        moved = _means(int8, [name], images, Fusion.NONE)[name] - exact[name]
        value = (numpy_helper.to_array(biases[bias]) - moved).astype(np.float32)
        biases[bias].CopyFrom(numpy_helper.from_array(value, bias))
        corrected[weight] = numpy_helper.from_array(value, bias)
        advance()
    return corrected


def set_biases(model: ModelProto, biases: Mapping[str, TensorProto], convs: Sequence[str]) -> None:
    """Give some convolutions, named by their weights, their corrected biases; the model is changed."""
    changed = {biases[conv].name: biases[conv] for conv in convs if conv in biases}
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(changed[tensor.name])


def _means(
    model: ModelProto, names: Sequence[str], images: Image, fusion: Fusion
) -> dict[str, NDArray[np.float64]]:
    """Mean of each channel of tensors (N, C, h, w) over pictures: (C,) each."""
    sums: dict[str, NDArray[np.float64]] = {}
    for values in run_tensors(model, names, images, fusion=fusion):
        for name, value in zip(names, values, strict=True):
            sums[name] = sums.get(name, np.float64(0)) + value.mean((0, 2, 3), dtype=np.float64)
    return {name: total / len(images) for name, total in sums.items()}
