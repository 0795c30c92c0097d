"""What a model is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kenpin.precision import Precision

Weights = Literal["int8", "fp32qdq"]


@dataclass(frozen=True)
class Scheme:
    """Number formats of `model.onnx`.

    Attributes:
        precision: `int8`: INT8 convolutions, everything else fp32, opset 18. `fp16`: INT8 convolutions, too,
            and what of the encoder is not INT8 in fp16, opset 19. `fp32`: no Q/DQ, the float model.
        weights: How a parser meets an INT8 weight: `int8` -> DequantizeLinear, or `fp32qdq`, fp32 ->
            QuantizeLinear -> DequantizeLinear, for parsers that refuse the first.
    """

    precision: Precision = "int8"
    weights: Weights = "int8"

    @property
    def half(self) -> bool:
        """Whether the encoder's float numbers are fp16."""
        return self.precision == "fp16"
