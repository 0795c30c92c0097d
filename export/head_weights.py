"""Large constants of the head stored small; the head computes in fp32 all the same.

* What a Gemm or MatMul reads, memory banks and principal components, is stored as int8 and dequantised, with
  one scale per remembered place or component. A bank then remembers places a hair beside the true ones; its
  `squares` become those of the places as they are stored, or distances would be of two different banks.
* What is added to or multiplied with maps is stored as fp16 and cast, where fp16 has the numbers.

Convolutions keep the weights they have: TensorRT wants both inputs of a convolution quantised, or neither.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kenpin.export.quantize import LEAST_SCALE, QMAX

# Smaller constants are not worth a node.
LEAST_NUMBERS = 4096
# The names that `kenpin.train.bank` gives to a bank (C, places) and to the squared lengths of its places.
BANK, SQUARES = ".bank", ".squares"
HALF_DIGITS = 2.0**-10

Numbers = NDArray[np.float32]
# What stands in the file, and the node that makes the constant of it.
Stored = tuple[list[TensorProto], NodeProto]


def store_head(model: ModelProto) -> ModelProto:
    """A copy of an INT8 model whose head is stored small."""
    large = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if _is_large(t)}
    stored: dict[str, Stored] = {}
    squares: dict[str, TensorProto] = {}
    for name, value in large.items():
        if value.ndim == 2 and _is_read_by(model, name, ("Gemm", "MatMul", "Transpose")):
            axis = 1 if name.endswith(BANK) else 0
            steps, scale = _rounded(value, axis)
            stored[name] = _as_int8(name, steps, scale, axis)
            if name.endswith(BANK):
                lengths = np.square(steps * scale.astype(np.float64)).sum(0).astype(np.float32)
                of_bank = f"{name.removesuffix(BANK)}{SQUARES}"
                squares[of_bank] = numpy_helper.from_array(lengths, of_bank)
        elif (
            not name.endswith(SQUARES) and _is_read_by(model, name, ("Add", "Sub", "Mul")) and _fits_half(value)
        ):
            stored[name] = _as_half(name, value)
    return _with(model, stored, squares)


def _is_large(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= LEAST_NUMBERS


def _is_read_by(model: ModelProto, name: str, op_types: Collection[str]) -> bool:
    return {node.op_type for node in model.graph.node if name in node.input} <= set(op_types)


def _rounded(value: Numbers, axis: int) -> tuple[NDArray[np.int8], Numbers]:
    """A matrix in steps of a scale for each place of one axis."""
    largest = np.abs(value).max(1 - axis, keepdims=True)
    scale = np.asarray(np.where(largest >= QMAX * LEAST_SCALE, largest, 1) / QMAX, np.float32)
    return np.clip(np.rint(value / scale), -QMAX, QMAX).astype(np.int8), scale


def _as_int8(name: str, steps: NDArray[np.int8], scale: Numbers, axis: int) -> Stored:
    inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
    tensors = [
        numpy_helper.from_array(steps, inputs[0]),
        numpy_helper.from_array(scale.ravel(), inputs[1]),
        numpy_helper.from_array(np.zeros(scale.size, np.int8), inputs[2]),
    ]
    return tensors, helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}_dq", axis=axis)


def _fits_half(value: Numbers) -> bool:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16).astype(np.float32)
    return bool(np.allclose(half, value, rtol=HALF_DIGITS, atol=1e-7))


def _as_half(name: str, value: Numbers) -> Stored:
    half = numpy_helper.from_array(value.astype(np.float16), f"{name}_half")
    return [half], helper.make_node("Cast", [half.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT)


def _with(model: ModelProto, stored: dict[str, Stored], squares: dict[str, TensorProto]) -> ModelProto:
    """The model with other constants; what makes them stands before everything else."""
    small = ModelProto()
    small.CopyFrom(model)
    kept = [squares.get(t.name, t) for t in model.graph.initializer if t.name not in stored]
    added = [tensor for tensors, _ in stored.values() for tensor in tensors]
    nodes = [*(node for _, node in stored.values()), *model.graph.node]
    del small.graph.initializer[:], small.graph.node[:], small.graph.value_info[:]
    small.graph.initializer.extend([*kept, *added])
    small.graph.node.extend(nodes)
    return small
