"""The grain: how strong fine lines and edges are, in each direction, compared with what is usual at a place.

Nothing of it is trained. The filters are first and second derivatives of a Gaussian at four angles; textures
are told by their local energy (Bovik, Clark & Geisler, IEEE TPAMI 1990). What is usual is a mean at each place
(PaDiM, Defard et al. 2020) and how parts differ as wholes, so that an outline that lies a little to the side is
no scratch. The distance of the rest is Mahalanobis', with one covariance for all places, which takes fewer
pictures.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from kenpin.train.components import Components, joined_deviations
from kenpin.train.light import DARK

CELL = 4  # pixels along a side
ANGLES = 4
CHANNELS = 2 * ANGLES
GRAIN_SIZE = 16  # components: 32 rank no better and take twice the memory
_SIGMA = 1.0  # pixels: the finest structure that a picture shows
_RADIUS = 3
# Energy of a flat place, which is all noise; and what a variance of the logarithms is at least.
_LEAST_ENERGY = 0.003
_LEAST_VARIANCE = 1e-4
# Share of the variances that is added to them, because energies of neighbouring angles are nearly one.
_RIDGE = 0.1


class Grain(nn.Module):
    """Distance of local energies of fine structure from what is usual at each place of good parts.

    Args:
        cells: h = w of the grids.
    """

    filters: Tensor
    pooling: Tensor
    count: Tensor
    mean: Tensor
    covariance: Tensor
    whitening: Tensor

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.register_buffer("filters", _in_pairs(_derivatives()), persistent=False)
        self.register_buffer("pooling", _pooling(), persistent=False)
        # Count and covariance do not score; `merge` needs them.
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(CHANNELS, cells, cells))
        self.components = Components(GRAIN_SIZE, CHANNELS * cells**2)
        self.register_buffer("covariance", torch.zeros(CHANNELS, CHANNELS))
        self.register_buffer("whitening", torch.eye(CHANNELS))

    def energies(self, grey: Tensor) -> Tensor:
        """Logarithms of local energies of grey pictures (N, 1, S, S), 0..1: (N, 8, S/4, S/4).

        They are energies of the logarithm of light, so a brighter lamp changes none. The outermost cells, where
        filters would look beyond the picture, show what their neighbours show.
        """
        answers = functional.conv2d((grey + DARK).log(), self.filters, stride=(1, 2), padding=_RADIUS)
        # A product and a convolution: a power and a mean would leave the memory layout of the convolutions.
        power = functional.conv2d(answers * answers, self.pooling, stride=(CELL, CELL // 2))
        energies = (power.sqrt() + _LEAST_ENERGY).log()
        energies = torch.cat([energies[:, :, 1:2], energies[:, :, 1:-1], energies[:, :, -2:-1]], 2)
        return torch.cat([energies[..., 1:2], energies[..., 1:-1], energies[..., -2:-1]], 3)

    def fit(self, energies: Tensor) -> None:
        """Learn from energies (N, 8, h, w)."""
        self.count.fill_(len(energies))
        self.mean.copy_(energies.mean(0))
        deviations = energies - self.mean
        self.components.fit(deviations.flatten(1), len(energies))
        self._set_covariance(_covariance(self.components(deviations)))

    def merge(self, energies: Tensor) -> None:
        """Learn from further energies (N, 8, h, w).

        What is left of the first ones is taken to vary as before.
        """
        known = self.components.standing_for().view(-1, *self.mean.shape)
        joined = joined_deviations(known, self.count, self.mean, energies)
        self.count += len(energies)
        share = len(energies) / self.count
        self.mean.lerp_(energies.mean(0), share)
        self.components.fit(joined.flatten(1), int(self.count))
        new = _covariance(self.components(energies - self.mean))
        self._set_covariance(torch.lerp(self.covariance, new, share))

    def _set_covariance(self, covariance: Tensor) -> None:
        self.covariance.copy_(covariance)
        spread = covariance + torch.diag(_RIDGE * covariance.diag() + _LEAST_VARIANCE)
        self.whitening.copy_(torch.linalg.inv(torch.linalg.cholesky(spread)))

    def forward(self, energies: Tensor) -> Tensor:
        """Distances (N, h, w)."""
        left: Tensor = self.components(energies - self.mean)
        return (functional.conv2d(left, self.whitening[:, :, None, None]) ** 2).sum(1).sqrt()


def _covariance(deviations: Tensor) -> Tensor:
    """Of deviations (N, C, h, w) over all places: (C, C)."""
    rows = deviations.transpose(0, 1).flatten(1)
    return rows @ rows.T / rows.shape[1]


def _derivatives() -> Tensor:
    """First and second derivatives of a Gaussian at four angles, each with absolute sum 1: (8, 1, 7, 7)."""
    at = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64) / _SIGMA
    bell = torch.exp(-(at[:, None] ** 2 + at**2) / 2)
    bell = bell / bell.sum()
    filters = []
    for angle in (math.pi * k / ANGLES for k in range(ANGLES)):
        along = at * math.cos(angle) + at[:, None] * math.sin(angle)
        second = (along**2 - 1) * bell
        filters += [along * bell, second - second.mean()]  # both are blind to light
    stacked = torch.stack(filters)[:, None]
    return (stacked / stacked.abs().sum((2, 3), keepdim=True)).float()


def _in_pairs(filters: Tensor) -> Tensor:
    """Filters (8, 1, 7, 7) as (16, 1, 7, 8): first those of a pixel, then those of the next in its row.

    ONNX Runtime computes 16 channels at once where a processor has AVX-512: a pair costs what one pixel costs.
    """
    return torch.cat([functional.pad(filters, (0, 1)), functional.pad(filters, (1, 0))])


def _pooling() -> Tensor:
    """A convolution that takes the mean over a cell of pairs: (8, 16, 4, 2)."""
    each = torch.eye(CHANNELS).repeat(1, 2) / CELL**2
    return each[:, :, None, None].repeat(1, 1, CELL, CELL // 2)
