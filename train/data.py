"""Load pictures for training, and write down which ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kenpin.errors import DataError
from kenpin.frame import read_picture
from kenpin.pictures import Picture, PictureSet, sha256_of, split_groups
from kenpin.preprocess import to_input

MIN_PICTURES = 8
HELD_BACK_SHARE = 0.2
ROLES = ("fit", "held_back", "test")


@dataclass(frozen=True)
class Roles:
    """Who does what: `fit` trains, `held_back` standardises and weighs, `test` only measures."""

    fit: tuple[Picture, ...]
    held_back: tuple[Picture, ...]
    test: tuple[Picture, ...]

    def manifest(self) -> dict[str, list[dict[str, str]]]:
        """Every file with SHA-256, label, group and role."""
        rows = [
            {
                "file": str(picture.path.resolve()),
                "sha256": sha256_of(picture.path),
                "label": picture.label,
                "group": picture.group,
                "role": role,
            }
            for role, pictures in zip(ROLES, (self.fit, self.held_back, self.test), strict=True)
            for picture in pictures
        ]
        return {"pictures": rows}


def assign_roles(pictures: PictureSet, *, where: object, seed: int) -> Roles:
    """Hold a fifth of the good training parts back; no part has two roles.

    Args:
        pictures: What was found.
        where: The folder, to name in an error.
        seed: Decides which parts are held back.

    Raises:
        DataError: Fewer than eight good pictures, or all of one part.
    """
    if len(pictures.train) < MIN_PICTURES:
        raise DataError(
            f"{len(pictures.train)} pictures of good parts are too few to learn from",
            where=where,
            cure=f"give at least {MIN_PICTURES}, better 100 or more, of different good parts",
        )
    fit, held_back = split_groups(pictures.train, HELD_BACK_SHARE, seed=seed)
    if not held_back:
        raise DataError(
            "all pictures show the same part (one group)",
            where=where,
            cure="give pictures of several parts, or correct the column group in manifest.csv",
        )
    return Roles(tuple(fit), tuple(held_back), pictures.test)


def load_pictures(pictures: Iterable[Picture], *, side: int) -> Tensor:
    """Read and resize pictures: BGR uint8 (N, 3, side, side)."""
    images = [to_input(read_picture(p.path), height=side, width=side) for p in pictures]
    stacked = np.stack(images) if images else np.zeros((0, side, side, 3), np.uint8)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def load_masks(pictures: Sequence[Picture], *, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Masks of defects, bool (N, side, side); all false where there is none."""
    masks = np.zeros((len(pictures), side, side), np.bool_)
    for number, picture in enumerate(pictures):
        if picture.mask is not None:
            area = to_input((read_picture(picture.mask) > 0).astype(np.uint8) * 255, height=side, width=side)
            share = area[..., 0]
            # A defect smaller than a cell must not vanish.
            masks[number] = share >= min(64, max(1, int(share.max())))
    return masks
