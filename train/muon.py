"""Muon: convolutions learn by steps whose singular values are all alike, the rest by AdamW.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. The momentum of a matrix is
mostly a few directions; made orthogonal, all of what a batch shows is learned at once. torch has it for
parameters of two dimensions only, and ours are convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Times the learning rate of AdamW; `docs/training-tried.md` has what else was tried.
MUON_RATE = 40.0
_MOMENTUM = 0.95
# Of Newton-Schulz: five steps bring singular values of any size near 1 (0.7 to 1.2), which is near enough.
_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.AdamW):
    """AdamW, but for the weights of convolutions between features.

    Convolutions from pictures (three channels) and to a single map stay with AdamW, as do batch norms and
    projections.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Change all parameters by their gradients; those of the convolutions are used up."""
        for group in self.param_groups:
            for weight in filter(_is_hidden, group["params"]):
                if weight.grad is not None:
                    self._turn(weight, weight.grad, group)
                    weight.grad = None
        super().step(closure)

    def _turn(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(momentum, _MOMENTUM)  # Nesterov
        rows = ahead.flatten(1)
        step = orthogonal(rows).reshape(weight.shape) * math.sqrt(max(1.0, rows.shape[0] / rows.shape[1]))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(step, alpha=-MUON_RATE * group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix (M, N) whose singular values are about 1, by Newton-Schulz iteration in float32."""
    a, b, c = _COEFFICIENTS
    is_wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = (matrix if is_wide else matrix.T).float() / (matrix.norm() + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if is_wide else x.T


def _is_hidden(weight: Tensor) -> bool:
    """Whether it is the weight of a convolution from features to features."""
    return weight.ndim == 4 and weight.shape[0] > 1 and weight.shape[1] > 3
