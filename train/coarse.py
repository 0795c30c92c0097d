"""The two maps of the coarse level: usual light and colour at each place, and usual patterns of whole parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kenpin.train.moments import Moments

# Principal components of the pattern: at most this many, and one for every four pictures.
PATTERN_SIZE = 32
PICTURES_PER_COMPONENT = 4
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
    """What a linear model of whole good parts leaves unexplained: principal components of the light grid.

    Turk & Pentland, "Eigenfaces for Recognition", 1991. Parts differ from one to the next in a few ways
    that concern the whole picture (a shadow, a shift, a shade); these are explained, a local fault is not.

    Args:
        cells: h = w of the grids.
    """

    basis: Tensor
    strength: Tensor

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.statistics = LightStatistics(cells)
        self.register_buffer("basis", torch.zeros(PATTERN_SIZE, 2 * cells**2))
        # Singular value of each component; it does not score, `merge` needs it.
        self.register_buffer("strength", torch.zeros(PATTERN_SIZE))

    def fit(self, grids: Tensor) -> None:
        """Learn from light grids (N, 2, h, w)."""
        self.statistics.fit(grids)
        self._decompose(self.statistics.standardise(grids).flatten(1))

    def merge(self, grids: Tensor) -> None:
        """Learn from further light grids (N, 2, h, w).

        The components stand for the pictures they came from (sequential Karhunen-Loeve: Levy & Lindenbaum
        2000; Ross et al. 2008); one more row is the shift of the mean.
        """
        before = self.statistics.moments
        was = self.statistics.inverse_std.clone()
        self.statistics.merge(grids)
        # Without those that stand for nothing: of ever so many rows of zeros eigh does not always find an end.
        used = self.strength > 0
        known = (self.strength[used, None] * self.basis[used]).view(-1, *was.shape) / was
        own = grids.mean(0)
        shift = (before.count * len(grids) / self.statistics.count).sqrt() * (own - before.mean)
        rows = torch.cat([known, grids - own, shift[None]]) * self.statistics.inverse_std
        self._decompose(rows.flatten(1))

    def _decompose(self, rows: Tensor) -> None:
        """Principal components of centred rows (M, D)."""
        count = min(PATTERN_SIZE, int(self.statistics.count) // PICTURES_PER_COMPONENT, len(rows))
        self.basis.zero_()
        self.strength.zero_()
        if count:
            # The eigenvectors of the small M x M matrix give those of the large one: exact and quick.
            values, vectors = torch.linalg.eigh(rows @ rows.T)
            strength = values[-count:].clamp(min=1e-9).sqrt()
            self.strength[:count] = strength
            self.basis[:count] = (vectors[:, -count:] / strength).T @ rows

    def forward(self, grids: Tensor) -> Tensor:
        """Largest unexplained deviation (N, h, w)."""
        deviation = self.statistics.standardise(grids)
        rows = deviation.flatten(1)
        explained = rows @ self.basis.T @ self.basis
        return (rows - explained).reshape_as(deviation).abs().amax(1)
