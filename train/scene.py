"""A scene: what a level sees of a batch, with all that is known about where places and defects are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kenpin.train.defects import add_defects
from kenpin.train.encoder import light_of
from kenpin.train.levels import Level
from kenpin.train.real_defects import BadViews, RealDefects
from kenpin.train.views import Photometry, jitter, overlapping, random_crops, to_picture, to_view, warp

# Where there are real defects, this share of the pictures shows one instead of a drawn one.
REAL_SHARE = 0.25


@dataclass(frozen=True)
class Scene:
    """Three views of each picture of a batch, and what is known about them.

    Attributes:
        views: Two views of the good part and one with a defect, normalised, (3 * N, 3, S, S).
        mask: Share of each pixel that is defect, NaN where that is not known, (N, 1, S, S).
        places: Places in the first view, -1..1, (N, K, 2).
        places_second: The same places in the second view.
        seen: 1 where both views see the place, (N, K).
    """

    views: Tensor
    mask: Tensor
    places: Tensor
    places_second: Tensor
    seen: Tensor


def cut_scene(
    level: Level, batch: Tensor, photometry: Photometry, *, growth: float = 1.0, real: RealDefects | None = None
) -> Scene:
    """Cut a level's views out of a batch.

    A view is normalised by the light of its whole picture, as the station does it: by its own light, a dark
    corner would look like any other.

    Args:
        level: Geometry, light and defects of the views.
        batch: Good pictures, BGR 0..1, (N, 3, S, S).
        photometry: Spread of light and contrast among good parts.
        growth: Resolution of the views relative to the level's full one.
        real: Bad pictures to show besides the drawn defects.
    """
    count, side = len(batch), level.view_side(batch.shape[-1], growth=growth)
    first = random_crops(count, level.extent, rotation_deg=level.rotation_deg)
    others = random_crops(count, level.extent, rotation_deg=level.rotation_deg)
    second = overlapping(first, others, extent=level.extent[0])
    view = warp(batch, first, side)
    middle = sum(level.extent) / 2
    broken, mask = add_defects(view, (level.defect_sizes[0] / middle, level.defect_sizes[1] / middle))
    third = BadViews(batch, broken, mask)
    if real is not None:
        some = math.ceil(count * REAL_SHARE)
        third = third.replace_first(real.cut(level, some, side=side, device=batch.device))
    light = replace(photometry, gain=photometry.gain * level.light, contrast=photometry.contrast * level.light)
    views = []
    for cut, whole in ((view, batch), (warp(batch, second, side), batch), (third.views, third.wholes)):
        mean, spread = light_of(whole)
        views.append((jitter(cut, light) - mean) / spread)
    places = [p.to(batch.device) for p in _common_places(first, second, level.places)]
    return Scene(torch.cat(views), third.mask, *places)


def _common_places(first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places that both views see: (N, K, 2) in each view, and (N, K) 1 where both really do."""
    candidates = torch.rand(len(first), 4 * count, 2) * 1.7 - 0.85
    mirrored = to_view(second, to_picture(first, candidates))
    inside = (mirrored.abs().amax(2) < 0.9).float() + 1e-4 * torch.rand(mirrored.shape[:2])
    best = inside.topk(count, 1).indices[..., None].expand(-1, -1, 2)
    places, places_second = candidates.gather(1, best), mirrored.gather(1, best)
    return places, places_second, (places_second.abs().amax(2) < 0.95).float()
