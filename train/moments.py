"""Mean and variance of pictures, place by place, that can be joined with those of other pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """What is kept of pictures when they are gone.

    Attributes:
        count: Number of pictures, () or for each channel, (C, 1, 1).
        mean: At each place, (C, h, w).
        variance: At each place, biased, (C, h, w).
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Moments of values (N, C, h, w)."""
        count = values.new_tensor(float(len(values)))
        return cls(count, values.mean(0), values.var(0, unbiased=False))

    def joined(self, other: Moments) -> Moments:
        """The moments of all pictures of both (Chan, Golub & LeVeque 1979)."""
        total = self.count + other.count
        share = other.count / total
        shift = other.mean - self.mean
        variance = torch.lerp(self.variance, other.variance, share) + share * (1 - share) * shift**2
        return Moments(total, self.mean + share * shift, variance)
