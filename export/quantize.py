"""INT8 by explicit Q/DQ nodes, placed where TensorRT fuses best (symmetric, strongly typed).

Only convolutions of the encoder are quantised:

* weights: int8, one scale per output channel, stored as int8 and dequantised, or stored as fp32 with a Q/DQ
  pair; biases stay float;
* activations: one scale per tensor, at the inputs of convolutions, never between a convolution and the Add
  or Relu that is fused into it;
* residual Add: the convolution's branch stays float and the shortcut gets Q/DQ, or Conv + Add + Relu would
  not fuse; of two convolutions the deeper one is the branch, the other (downsample) the shortcut;
* a tensor has one Q/DQ pair, whoever reads it. The head and the preparation of the frames read float.
* a convolution that stays float reads float, and so does an Add that is fused into it.

NVIDIA TensorRT documentation, "Working with quantized types", explicit quantization.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.placement import Placement, is_encoder_conv
from kenpin.export.scheme import Scheme

QMAX = 127
LEAST_SCALE = float(np.finfo(np.float32).tiny)
# Least scale that fp16 holds with two digits; a channel below 127 times that is as good as zero.
LEAST_HALF_SCALE = 2.0**-18


def quantize(
    model: ModelProto, placement: Placement, ranges: Mapping[str, float], scheme: Scheme | None = None
) -> ModelProto:
    """Insert Q/DQ.

    Args:
        model: The float model; it is not changed.
        placement: What `find_placement` said about it.
        ranges: Largest absolute value that each activation should keep; larger ones saturate.
        scheme: How weights are stored, and whether the scales must be numbers that fp16 has.

    Returns:
        The INT8 model, its float numbers still fp32.

    Raises:
        ExportError: An activation has no range: ranges are measured, never guessed.
    """
    scheme = scheme or Scheme()
    _check_ranges(placement, ranges)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in placement.convs}
    quantized = ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    stored = scheme.weights == "int8"
    kept = [tensor for tensor in graph.initializer if not (stored and tensor.name in weights)]
    for name, weight in weights.items():
        scale = _representable(_channel_scales(weight), scheme)
        kept += [*([_steps(name, weight, scale)] if stored else []), *_scale(name, scale)]
    for name in placement.activations:
        kept += _scale(name, _representable(np.asarray(ranges[name] / QMAX, np.float32), scheme))
    nodes = list(_rewired(model, placement, stored=stored))
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return quantized


def _check_ranges(placement: Placement, ranges: Mapping[str, float]) -> None:
    for name in placement.activations:
        if not 0 < ranges.get(name, 0) < np.inf:
            raise ExportError(
                f"no range of the activation {name} was measured",
                cure="measure ranges on pictures of real parts; kenpin export does",
            )


def _rewired(model: ModelProto, placement: Placement, *, stored: bool) -> Iterable[NodeProto]:
    """The nodes in order, each Q/DQ pair right before its first reader."""
    done: set[str] = set()
    for original in model.graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        positions = [0, 1] if is_encoder_conv(node) and node.input[1] in placement.convs else []
        positions += [placement.adds[o] for o in node.output if o in placement.adds]
        for position in positions:
            name = node.input[position]
            if name not in done:
                axis = {"axis": 0} if name in placement.convs else {}
                yield from _pair(name, stored=stored and bool(axis), **axis)
            done.add(name)
            node.input[position] = f"{name}_dq"
        yield node


def _pair(name: str, *, stored: bool, **axis: Any) -> Iterable[NodeProto]:
    """QuantizeLinear and DequantizeLinear, or the latter alone for a weight that is stored as int8."""
    scale = [f"{name}_scale", f"{name}_zero"]
    steps = f"{name}_int8" if stored else f"{name}_q"
    if not stored:
        yield helper.make_node("QuantizeLinear", [name, *scale], [steps], name=steps, **axis)
    yield helper.make_node("DequantizeLinear", [steps, *scale], [f"{name}_dq"], name=f"{name}_dq", **axis)


def _channel_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales (O,) of a weight (O, I, h, w)."""
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    # A channel of zeros has no scale of its own; any positive one keeps it zero. Where the scale would be
    # subnormal it is the same: TensorRT refuses a scale of 0, and a GPU makes one of it.
    return np.asarray(np.where(largest >= QMAX * LEAST_SCALE, largest, 1) / QMAX, np.float32)


def _representable(scale: NDArray[np.float32], scheme: Scheme) -> NDArray[np.float32]:
    """The scale, or the number that fp16 has for it: steps are counted with the scale that will be used."""
    if not scheme.half:
        return scale
    return np.maximum(scale, LEAST_HALF_SCALE).astype(np.float16).astype(np.float32)


def _steps(name: str, weight: NDArray[np.float32], scale: NDArray[np.float32]) -> TensorProto:
    """A weight (O, I, h, w) as int8 in -127..127."""
    steps = np.rint(weight / scale.reshape(-1, 1, 1, 1))
    return numpy_helper.from_array(np.clip(steps, -QMAX, QMAX).astype(np.int8), f"{name}_int8")


def _scale(name: str, scale: NDArray[np.float32]) -> list[TensorProto]:
    return [
        numpy_helper.from_array(scale, f"{name}_scale"),
        numpy_helper.from_array(np.zeros_like(scale, np.int8), f"{name}_zero"),
    ]
