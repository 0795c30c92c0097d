"""Real defects: bad pictures that the user gives to push good places away from, besides the drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kenpin.pictures import Picture
from kenpin.train.data import load_masks, load_pictures
from kenpin.train.fold import fold
from kenpin.train.levels import COARSE, Level
from kenpin.train.views import random_crops, to_picture, uniform, warp


@dataclass(frozen=True)
class RealDefects:
    """Pictures of bad parts, M >= 1, in the computer's memory.

    Attributes:
        pictures: BGR uint8 (M, 3, S, S).
        masks: Where the defect is, bool (M, S, S); nowhere where it is not known.
    """

    pictures: Tensor
    masks: Tensor

    @classmethod
    def load(cls, pictures: Sequence[Picture], *, side: int) -> RealDefects:
        """Read pictures, and the masks of those that have one.

        Raises:
            DataError: A picture or a mask cannot be read, or the two differ in size.
        """
        masks = fold(torch.from_numpy(load_masks(pictures, shape=pictures[0].strips.shape(side))))
        return cls(load_pictures(pictures, side=side), masks)

    def cut(self, level: Level, count: int, *, side: int, device: torch.device) -> BadViews:
        """Cut a level's views out of pictures drawn by lot.

        Args:
            level: Geometry of the views.
            count: How many, N.
            side: Side of the views.
            device: Where they are wanted.
        """
        drawn = torch.randint(len(self.pictures), (count,))
        masks = self.masks[drawn]
        known = masks.flatten(1).any(1)
        crops = _crops(level, masks, known)
        wholes = self.pictures[drawn].to(device).float() / 255
        # NaN is neither good nor defect.
        shares = torch.where(known.view(-1, 1, 1), masks.float(), torch.nan)[:, None].to(device)
        return BadViews(wholes, warp(wholes, crops, side), warp(shares, crops, side))


@dataclass(frozen=True)
class BadViews:
    """Views of bad parts.

    Attributes:
        wholes: The pictures they were cut from, 0..1, (N, 3, S, S).
        views: (N, 3, s, s)
        mask: Share of each pixel that is defect, NaN where that is not known, (N, 1, s, s).
    """

    wholes: Tensor
    views: Tensor
    mask: Tensor

    def replace_first(self, others: BadViews) -> BadViews:
        """The views of `others`, then those of these that come after as many."""
        pairs = zip(
            (others.wholes, others.views, others.mask), (self.wholes, self.views, self.mask), strict=True
        )
        return BadViews(*(torch.cat([new, old[len(new) :]]) for new, old in pairs))


def _crops(level: Level, masks: Tensor, known: Tensor) -> Tensor:
    """Crops (N, 2, 3) as the level has them, but around a place of the defect where one is known.

    Where none is known, nearly the whole part: only then does "bad" hold for what the view shows.
    """
    crops = random_crops(len(masks), level.extent, rotation_deg=level.rotation_deg)
    wide = random_crops(len(masks), COARSE.extent, rotation_deg=level.rotation_deg)
    scale = crops[:, :, :2].flatten(1).norm(dim=1) / 2**0.5
    room = (1 - scale).clamp(min=0)[:, None]
    defect = _places_in(masks | ~known.view(-1, 1, 1))
    seen_at = uniform(2 * len(masks), -0.6, 0.6).view(-1, 1, 2)
    linear = torch.cat([crops[:, :, :2], torch.zeros(len(masks), 2, 1)], 2)
    centre = (defect - to_picture(linear, seen_at)[:, 0]).clamp(-room, room)
    around = torch.cat([crops[:, :, :2], centre[:, :, None]], 2)
    return torch.where(known.view(-1, 1, 1), around, wide)


def _places_in(masks: Tensor) -> Tensor:
    """One place by lot in each of the masks (N, S, S), none of them empty: (N, 2), -1..1, x first."""
    side = masks.shape[-1]
    pixel = torch.multinomial(masks.flatten(1).float(), 1)[:, 0]
    return (torch.stack([pixel % side, pixel // side], 1) + 0.5) / side * 2 - 1
