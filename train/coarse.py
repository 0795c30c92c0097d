"""The two maps of the coarse level: usual light and colour at each place, and usual patterns of whole parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kenpin.train.components import Components, joined_deviations
from kenpin.train.moments import Moments

PATTERN_SIZE = 32
# Variance that the logarithms of mean and contrast have at least.
LEAST_VARIANCE = 1e-6


class LightStatistics(nn.Module):
    """Deviation of local light from what is usual at each place of good parts.

    Args:
        cells: h = w of the grids.
        least: Variance of each of the C channels at least: less is taken for noise.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor
    inverse_std: Tensor

    def __init__(self, cells: int, least: tuple[float, ...] = (LEAST_VARIANCE, LEAST_VARIANCE)) -> None:
        super().__init__()
        self.least = least
        # Count and variance do not score; `merge` needs them.
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(len(least), cells, cells))
        self.register_buffer("variance", torch.ones(len(least), cells, cells))
        self.register_buffer("inverse_std", torch.ones(len(least), cells, cells))

    @property
    def moments(self) -> Moments:
        """What is known of the pictures so far."""
        return Moments(self.count.clone(), self.mean.clone(), self.variance.clone())

    def fit(self, grids: Tensor) -> None:
        """Learn from light grids (N, C, h, w)."""
        self._set(Moments.of(grids))

    def merge(self, grids: Tensor) -> None:
        """Learn from further light grids as if they had been among the first."""
        self._set(self.moments.joined(Moments.of(grids)))

    def _set(self, moments: Moments) -> None:
        """Half of the variance is that over all places: pictures are few."""
        self.count.copy_(moments.count)
        self.mean.copy_(moments.mean)
        self.variance.copy_(moments.variance)
        everywhere = moments.variance.mean((1, 2), keepdim=True)
        least = everywhere.new_tensor(self.least).view(-1, 1, 1)
        self.inverse_std.copy_((0.5 * moments.variance + 0.5 * everywhere + least).rsqrt())

    def standardise(self, grids: Tensor) -> Tensor:
        """Standardised deviations (N, C, h, w)."""
        return (grids - self.mean) * self.inverse_std

    def forward(self, grids: Tensor) -> Tensor:
        """Largest deviation among the channels (N, h, w)."""
        return self.standardise(grids).abs().amax(1)


class Pattern(nn.Module):
    """What a linear model of whole good parts leaves unexplained of the light grid.

    Args:
        cells: h = w of the grids.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.statistics = LightStatistics(cells)
        self.components = Components(PATTERN_SIZE, 2 * cells**2)

    def fit(self, grids: Tensor) -> None:
        """Learn from light grids (N, 2, h, w)."""
        self.statistics.fit(grids)
        self.components.fit(self.statistics.standardise(grids).flatten(1), len(grids))

    def merge(self, grids: Tensor) -> None:
        """Learn from further light grids (N, 2, h, w)."""
        before = self.statistics.moments
        was = self.statistics.inverse_std.clone()
        self.statistics.merge(grids)
        known = self.components.standing_for().view(-1, *was.shape) / was
        joined = joined_deviations(known, before.count, before.mean, grids) * self.statistics.inverse_std
        self.components.fit(joined.flatten(1), int(self.statistics.count))

    def forward(self, grids: Tensor) -> Tensor:
        """Largest unexplained deviation (N, h, w)."""
        left: Tensor = self.components(self.statistics.standardise(grids))
        return left.abs().amax(1)
