"""The anomaly head: from features to an anomaly map and scores.

Plain convolutions, matrix products and minima with static shapes, so that it exports as it is.

Six maps, two per level:

    coarse  place: unlike what is usual at this place (stride 16; PaDiM, Defard et al. 2020, diagonal form)
            light: local mean and contrast unlike what is usual at this place
    mid     bank16: unlike any place of good parts (stride 16; PatchCore, Roth et al., CVPR 2022)
            defect16: the discriminator trained on synthetic defects
    fine    bank8, defect8: the same at stride 8

Each map is standardised on held-back good pictures, which did not fill the banks. A score of 1 is what the
worst place of one good part in ten reaches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVEL_NAMES = ("coarse", "mid", "fine")
MAPS = ("place", "light", "bank16", "defect16", "bank8", "defect8")
LIGHT_CELLS = 16
# Added before the logarithm (0..1 scale), so that the noise of black pixels stays small.
DARK = 0.02
BANK_SIZE = 1000
# The score is the mean of this share of the fused map's highest places: robust against a single hot pixel.
TOP_SHARE = 0.001


class PlaceStatistics(nn.Module):
    """Mean and spread of features at each place of good parts.

    Args:
        shape: (C, h, w) of the features.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("inverse_std", torch.ones(shape))

    def fit(self, features: Tensor) -> None:
        """Learn from features (N, C, h, w). Half of the variance is the one over all places: few pictures."""
        self.mean.copy_(features.mean(0))
        own = features.var(0, unbiased=False)
        common = features.var((0, 2, 3), unbiased=False)[:, None, None]
        self.inverse_std.copy_((0.5 * own + 0.5 * common + 1e-8).rsqrt())

    def forward(self, features: Tensor) -> Tensor:
        """Standardised deviations (N, C, h, w)."""
        return (features - self.mean) * self.inverse_std


class MemoryBank(nn.Module):
    """Distance of each place to the nearest remembered place of good parts.

    Args:
        channels: C of the features.
        size: Number of remembered places.
    """

    mean: Tensor
    inverse_std: Tensor
    bank: Tensor
    squares: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("inverse_std", torch.ones(channels, 1, 1))
        self.register_buffer("bank", torch.zeros(channels, size))
        self.register_buffer("squares", torch.zeros(size))

    def fit(self, features: Tensor) -> None:
        """Fill the bank from features (N, C, h, w) by a greedy k-centre coreset."""
        self.mean.copy_(features.mean((0, 2, 3))[:, None, None])
        self.inverse_std.copy_((features.std((0, 2, 3)) + 1e-6).reciprocal()[:, None, None])
        places = self._standardise(features).flatten(2).transpose(1, 2).flatten(0, 1)
        chosen = places[k_centres(places, self.bank.shape[1])]
        self.bank.copy_(chosen.T)
        self.squares.copy_((chosen**2).sum(1))

    def forward(self, features: Tensor) -> Tensor:
        """Distances (N, h, w)."""
        places = self._standardise(features).flatten(2).transpose(1, 2)
        squared = (places**2).sum(2, keepdim=True) - 2 * places @ self.bank + self.squares
        nearest = squared.amin(2).clamp(min=0).sqrt()
        return nearest.reshape(-1, features.shape[2], features.shape[3])

    def _standardise(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.inverse_std


def k_centres(points: Tensor, count: int, *, candidates: int = 30_000, dimensions: int = 32) -> Tensor:
    """Indices (count,) of points (N, D) that cover all points, greedily (Sener & Savarese, ICLR 2018).

    Distances are taken after a random projection, and among a random part of very many points.
    """
    generator = torch.Generator().manual_seed(0)
    pool = torch.randperm(len(points), generator=generator)[:candidates].to(points.device)
    projection = torch.randn(points.shape[1], dimensions, generator=generator).to(points)
    projected = points[pool] @ projection
    chosen = [0]
    distance = ((projected - projected[0]) ** 2).sum(1)
    for _ in range(min(count, len(pool)) - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, ((projected - projected[chosen[-1]]) ** 2).sum(1))
    picked = pool[torch.tensor(chosen, device=points.device)]
    return picked[torch.arange(count, device=points.device) % len(picked)]


@dataclass(frozen=True)
class HeadShape:
    """What fixes the shapes of a head.

    Attributes:
        side: Side of the model's input, a multiple of 16.
        channels: Channels of the encoder's taps.
    """

    side: int
    channels: tuple[int, int, int]


class AnomalyHead(nn.Module):
    """Features and pictures to scores and a map.

    Args:
        shape: Input side and channels.
        discriminators: Defect maps for strides 8 and 16, from pretraining.
    """

    offset: Tensor
    scale: Tensor
    weight: Tensor
    level_scale: Tensor
    fused_scale: Tensor

    def __init__(self, shape: HeadShape, discriminators: nn.ModuleList) -> None:
        super().__init__()
        cells = shape.side // 16
        self.map_side = shape.side // 4
        self.place = PlaceStatistics((shape.channels[2], cells, cells))
        self.light = PlaceStatistics((2, LIGHT_CELLS, LIGHT_CELLS))
        self.bank8 = MemoryBank(shape.channels[1], BANK_SIZE)
        self.bank16 = MemoryBank(shape.channels[2], BANK_SIZE)
        self.discriminators = discriminators
        self.register_buffer("offset", torch.zeros(len(MAPS)))
        self.register_buffer("scale", torch.ones(len(MAPS)))
        self.register_buffer("weight", torch.ones(len(MAPS)))
        self.register_buffer("level_scale", torch.ones(len(LEVEL_NAMES)))
        self.register_buffer("fused_scale", torch.ones(()))

    def forward(self, pictures: Tensor, taps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Score pictures.

        Args:
            pictures: BGR 0..1, (N, 3, S, S).
            taps: The encoder's features of them.

        Returns:
            score (N,), level_scores (N, 3) in the order coarse, mid, fine, anomaly_map (N, S/4, S/4).
        """
        maps = self.maps(pictures, taps) * self.weight.view(1, -1, 1, 1)
        levels = by_level(maps)
        fused = levels.sum(1) * self.fused_scale
        level_scores = robust_maximum(levels) * self.level_scale
        return robust_maximum(fused), level_scores, fused

    def maps(self, pictures: Tensor, taps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The six standardised maps (N, 6, S/4, S/4)."""
        resized = [self._resize(m) for m in self.raw_maps(pictures, taps)]
        return (torch.stack(resized, 1) - self.offset.view(1, -1, 1, 1)) * self.scale.view(1, -1, 1, 1)

    def raw_maps(self, pictures: Tensor, taps: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        """The six maps (N, h, w), each at its own resolution and in its own unit."""
        stride8, stride16 = smooth(taps[1]), smooth(taps[2])
        return [
            (self.place(stride16) ** 2).mean(1).sqrt(),
            self.light(light(pictures)).abs().amax(1),
            self.bank16(stride16),
            self.discriminators[1](taps[2])[:, 0],
            self.bank8(stride8),
            self.discriminators[0](taps[1])[:, 0],
        ]

    def _resize(self, raw: Tensor) -> Tensor:
        size = (self.map_side, self.map_side)
        large = functional.interpolate(raw[:, None], size=size, mode="bilinear", align_corners=False)
        return smooth(large)[:, 0]


def by_level(maps: Tensor) -> Tensor:
    """Sum of each level's two maps: (N, 6, h, w) -> (N, 3, h, w)."""
    return maps.reshape(-1, len(LEVEL_NAMES), 2, *maps.shape[2:]).sum(2)


def smooth(x: Tensor) -> Tensor:
    """3x3 mean over the inside, (N, C, h, w)."""
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def light(pictures: Tensor) -> Tensor:
    """Logarithm of local mean and contrast of pictures (N, 3, S, S) on a coarse grid: (N, 2, 16, 16).

    Light multiplies: a lamp that ages changes every logarithm alike, a dead cell changes its own a lot.
    """
    cell = pictures.shape[-1] // LIGHT_CELLS
    grey = pictures.mean(1, keepdim=True)
    mean = functional.avg_pool2d(grey, cell)
    variance = functional.avg_pool2d(grey**2, cell) - mean**2
    return (torch.cat([mean, variance.clamp(min=0).sqrt()], 1) + DARK).log()


def robust_maximum(maps: Tensor) -> Tensor:
    """Mean of the highest places of maps (..., h, w): (...)."""
    flat = maps.flatten(-2)
    count = max(1, math.ceil(TOP_SHARE * flat.shape[-1]))
    return flat.topk(count, dim=-1).values.mean(-1)
