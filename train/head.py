"""The anomaly head: from features to an anomaly map and scores.

Plain convolutions, matrix products and minima with static shapes, so that it exports as it is.

Seven maps:

    coarse  light: local mean and contrast, and colour in finer cells, unlike what is usual at this place
            pattern: what a linear model of the whole part (principal components) cannot explain
    mid     bank16: unlike any place of good parts (stride 16; PatchCore, Roth et al., CVPR 2022)
            defect16: the discriminator trained on synthetic defects
    fine    bank8, defect8: the same at stride 8
            grain: fine lines and edges unlike what is usual at this place, and what the whole part explains

Each map is standardised on good pictures that it does not know, and at each place for itself (PaDiM, Defard et
al. 2020, has that idea for features): edges and prints vary more than plain surface. A score of 1 is what the
worst place of one good part in ten reaches. The levels add up to one map, in which mid stands where the others
see most (`fuse`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from kenpin.train.bank import MemoryBank
from kenpin.train.coarse import LightStatistics, Pattern
from kenpin.train.encoder import whole_mean
from kenpin.train.grain import Grain
from kenpin.train.light import DARK, cells_of, colour, grey_of, light
from kenpin.train.moments import Moments

MAPS_OF_LEVEL = {
    "coarse": ("light", "pattern"),
    "mid": ("bank16", "defect16"),
    "fine": ("bank8", "defect8", "grain"),
}
LEVEL_NAMES = tuple(MAPS_OF_LEVEL)
MAPS = tuple(itertools.chain(*MAPS_OF_LEVEL.values()))
# What nothing is trained for.
UNTRAINED_MAPS = ("light", "pattern", "grain")
LIGHT_CELLS = 16
PATTERN_CELLS = 32
# A colour that differs by less than 2 % is noise: the colour of a grey product does not vary, and every lamp
# that ages would be seen.
LEAST_COLOUR = 0.02
BANK_SIZE = 1000
# What is usual at a place counts as much as what is usual anywhere from this many held-back pictures on.
PLACE_PICTURES = 30
# The score is the mean of this share of the fused map's highest places: robust against a single hot pixel.
TOP_SHARE = 0.001
# What mid sees goes to the highest of so many places along a side, one of its own cells to either side.
OUTLINE_PLACES = 9
# Where the other levels see less than this, all places count alike, in units of the score.
OUTLINE_LEAST = 0.25
# Quantile of the per-picture maximum over held-back good pictures that becomes 1.
UNIT_QUANTILE = 0.9


class Grids(NamedTuple):
    """What the maps look at that nothing is trained for.

    Attributes:
        light: Local light, (N, 2, 16, 16).
        colour: Local colour, (N, 2, S/4, S/4).
        relative: Local light relative to the picture's own, (N, 2, cells, cells).
        energies: Local energies of fine structure, (N, 8, S/4, S/4).
    """

    light: Tensor
    colour: Tensor
    relative: Tensor
    energies: Tensor


@dataclass(frozen=True)
class HeadShape:
    """What fixes the shapes of a head.

    Attributes:
        side: Side of the model's input, a multiple of 16.
        channels: Channels of the encoder's taps.
        bank: Places that each memory bank remembers.
    """

    side: int
    channels: tuple[int, int, int]
    bank: int = BANK_SIZE

    @property
    def pattern_cells(self) -> int:
        """Cells along a side of the grid of the pattern, such that all have the same size."""
        return PATTERN_CELLS if self.side % PATTERN_CELLS == 0 else LIGHT_CELLS


class AnomalyHead(nn.Module):
    """Features and pictures to scores and a map.

    Args:
        shape: Input side and channels.
        discriminators: Defect maps for strides 8 and 16, from pretraining.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor
    unit: Tensor
    offset: Tensor
    scale: Tensor
    weight: Tensor
    level_scale: Tensor
    fused_scale: Tensor

    def __init__(self, shape: HeadShape, discriminators: nn.ModuleList) -> None:
        super().__init__()
        self.map_side = shape.side // 4
        self.light = LightStatistics(LIGHT_CELLS)
        self.colour = LightStatistics(self.map_side, 2 * (LEAST_COLOUR**2,))
        self.pattern = Pattern(shape.pattern_cells)
        self.grain = Grain(self.map_side)
        self.bank8 = MemoryBank(shape.channels[1], shape.bank)
        self.bank16 = MemoryBank(shape.channels[2], shape.bank)
        self.discriminators = discriminators
        self.pattern_cells = shape.pattern_cells
        # These four do not score; `restandardise` needs them.
        self.register_buffer("count", torch.zeros(len(MAPS), 1, 1))
        self.register_buffer("mean", torch.zeros(len(MAPS), self.map_side, self.map_side))
        self.register_buffer("variance", torch.ones(len(MAPS), self.map_side, self.map_side))
        self.register_buffer("unit", torch.ones(len(MAPS)))
        self.register_buffer("offset", torch.zeros(len(MAPS), self.map_side, self.map_side))
        self.register_buffer("scale", torch.ones(len(MAPS), self.map_side, self.map_side))
        self.register_buffer("weight", torch.ones(len(MAPS)))
        self.register_buffer("level_scale", torch.ones(len(LEVEL_NAMES)))
        self.register_buffer("fused_scale", torch.ones(()))

    @property
    def side(self) -> int:
        """Side of the model's input, pixels."""
        return 4 * self.map_side

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
        fused = fuse(levels) * self.fused_scale
        level_scores = robust_maximum(levels) * self.level_scale
        return robust_maximum(fused), level_scores, fused

    def maps(self, pictures: Tensor, taps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The standardised maps (N, 7, S/4, S/4)."""
        return (self.raw_maps(pictures, taps) - self.offset) * self.scale

    def fill(self, grids: Grids, stride8: Tensor, stride16: Tensor) -> None:
        """Learn what is usual from good pictures.

        Args:
            grids: Of them.
            stride8: Their features (N, C, h, w).
            stride16: The same at stride 16.
        """
        self.fill_untrained(grids)
        self.bank8.fit(smooth(stride8))
        self.bank16.fit(smooth(stride16))

    def fill_untrained(self, grids: Grids) -> None:
        """Learn anew what is usual on the maps that nothing is trained for, from good pictures."""
        self.light.fit(grids.light)
        self.colour.fit(grids.colour)
        self.pattern.fit(grids.relative)
        self.grain.fit(grids.energies)

    def merge(self, grids: Grids, stride8: Tensor, stride16: Tensor) -> None:
        """Learn from further good pictures what else is usual; the arguments are those of `fill`."""
        self.merge_untrained(grids)
        self.bank8.merge(smooth(stride8))
        self.bank16.merge(smooth(stride16))

    def merge_untrained(self, grids: Grids) -> None:
        """Learn what else is usual on these maps, from further good pictures."""
        self.light.merge(grids.light)
        self.colour.merge(grids.colour)
        self.pattern.merge(grids.relative)
        self.grain.merge(grids.energies)

    def grids(self, pictures: Tensor) -> Grids:
        """What the maps that nothing is trained for look at, of pictures BGR 0..1, (N, 3, S, S)."""
        own, grey = whole_mean(pictures), grey_of(pictures)
        mean, variance = cells_of(grey, self.pattern_cells)
        wide, between = cells_of(mean, LIGHT_CELLS)
        within, _ = cells_of(variance, LIGHT_CELLS)
        relative = 0.5 / (own + DARK)
        return Grids(
            light(wide, between + within),
            colour(pictures, self.map_side),
            light(relative * mean, relative**2 * variance),
            self.grain.energies(grey),
        )

    def standardise(self, raw: Sequence[Tensor]) -> None:
        """Set offset and scale, such that each map has zero mean and unit spread at each place.

        Then the worst place of one good part in ten becomes 1.

        Args:
            raw: Each map of good pictures that it does not know, (N, h, w); N may differ.
        """
        self._set_usual(_moments(raw))
        self._set_unit(self._unit_of(raw))

    def restandardise(self, raw: Sequence[Tensor]) -> None:
        """Set offset and scale from further good pictures and what is kept of the first."""
        self._set_usual(self.usual.joined(_moments(raw)))
        share = raw[0].new_tensor([len(maps) for maps in raw]) / self.count.flatten()
        self._set_unit(torch.lerp(self.unit, self._unit_of(raw), share))

    @property
    def usual(self) -> Moments:
        """What is known of the raw maps of good pictures."""
        return Moments(self.count.clone(), self.mean.clone(), self.variance.clone())

    def _set_usual(self, usual: Moments) -> None:
        """Offset and scale, such that what is usual has zero mean and unit spread."""
        self.count.copy_(usual.count)
        self.mean.copy_(usual.mean)
        self.variance.copy_(usual.variance)
        trust = usual.count / (usual.count + PLACE_PICTURES)
        mean = _wide_mean(usual.mean)
        variance = _wide_mean(usual.variance + (usual.mean - mean) ** 2)
        everywhere = usual.mean.mean((1, 2), keepdim=True)
        common = (usual.variance + (usual.mean - everywhere) ** 2).mean((1, 2), keepdim=True)
        self.offset.copy_(trust * mean + (1 - trust) * everywhere)
        self.scale.copy_((trust * variance + (1 - trust) * common + 1e-12).rsqrt())

    def _unit_of(self, raw: Sequence[Tensor]) -> Tensor:
        """What the worst place of one good part in ten reaches on each map, (7,)."""
        worst = [robust_maximum((raw[k] - self.offset[k]) * self.scale[k]) for k in range(len(MAPS))]
        return torch.stack([scores.quantile(UNIT_QUANTILE) for scores in worst]).clamp(min=0.1)

    def _set_unit(self, unit: Tensor) -> None:
        self.unit.copy_(unit)
        self.scale.div_(unit.view(-1, 1, 1))

    def raw_maps(self, pictures: Tensor, taps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The maps (N, 7, S/4, S/4), each in its own unit."""
        mid = torch.stack([self.bank16(smooth(taps[2])), self.discriminators[1](taps[2])[:, 0]], 1)
        fine = torch.stack([self.bank8(smooth(taps[1])), self.discriminators[0](taps[1])[:, 0]], 1)
        seen_light, pattern, grain = self.untrained_maps(self.grids(pictures))
        return torch.cat([seen_light, pattern, self._resize(mid), self._resize(fine), grain], 1)

    def untrained_maps(self, grids: Grids) -> tuple[Tensor, ...]:
        """The raw maps (N, 1, S/4, S/4) that nothing is trained for, in the order of `UNTRAINED_MAPS`.

        Colour and grain have the cells of the map, and are not smoothed: a spot as small as a cell would fade
        to a ninth.
        """
        raw = self.light(grids.light), self.pattern(grids.relative)
        seen_light, pattern = (self._resize(one[:, None]) for one in raw)
        colours, grain = self.colour(grids.colour)[:, None], self.grain(grids.energies)[:, None]
        return torch.maximum(seen_light, colours), pattern, grain

    def _resize(self, maps: Tensor) -> Tensor:
        size = (self.map_side, self.map_side)
        return smooth(functional.interpolate(maps, size=size, mode="bilinear", align_corners=False))


def _moments(raw: Sequence[Tensor]) -> Moments:
    """Moments of maps (N, h, w) that may be of different pictures, as (C, h, w)."""
    each = [Moments.of(maps[:, None]) for maps in raw]
    count = torch.stack([m.count for m in each]).view(-1, 1, 1)
    return Moments(count, torch.cat([m.mean for m in each]), torch.cat([m.variance for m in each]))


def by_level(maps: Tensor) -> Tensor:
    """Sum of each level's maps: (N, 7, h, w) -> (N, 3, h, w)."""
    levels = torch.split(maps, [len(of_level) for of_level in MAPS_OF_LEVEL.values()], 1)
    return torch.stack([level.sum(1) for level in levels], 1)


def fuse(levels: Tensor) -> Tensor:
    """One map of those of the levels: (N, 3, h, w) -> (N, h, w).

    Mid sees a defect in cells of 16 pixels, and spread over them it would hide the outline that fine shows. So
    of what it adds each place gets the share that the other levels see there of what they see nearby; where
    they see most it is all.
    """
    coarse, mid, fine = levels.unbind(1)
    others = coarse + fine
    seen = functional.relu(others) + OUTLINE_LEAST
    nearby = functional.max_pool2d(seen[:, None], OUTLINE_PLACES, 1, OUTLINE_PLACES // 2)[:, 0]
    return others + mid * (seen / nearby)


def smooth(x: Tensor) -> Tensor:
    """3x3 mean over the inside, (N, C, h, w)."""
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _wide_mean(maps: Tensor) -> Tensor:
    """5x5 mean of maps (C, h, w): neighbouring places lend each other their pictures."""
    return functional.avg_pool2d(maps[None], 5, 1, 2, count_include_pad=False)[0]


def robust_maximum(maps: Tensor) -> Tensor:
    """Mean of the highest places of maps (..., h, w): (...)."""
    flat = maps.flatten(-2)
    count = max(1, math.ceil(TOP_SHARE * flat.shape[-1]))
    return flat.topk(count, dim=-1).values.mean(-1)
