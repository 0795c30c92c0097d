"""Load pictures for training, and write down which ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kenpin.errors import DataError
from kenpin.frame import Image, read_picture
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
        DataError: Fewer than eight good pictures, or all of one part, or all the same picture.
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
    _refuse_copies(pictures.train, where=where)
    return Roles(tuple(fit), tuple(held_back), pictures.test)


def _refuse_copies(pictures: Sequence[Picture], *, where: object) -> None:
    """Refuse pictures that are all the same. As a rule two are read: the first that differs ends it."""
    first = read_picture(pictures[0].path)
    if all(np.array_equal(first, read_picture(p.path)) for p in pictures[1:]):
        raise DataError(
            f"all {len(pictures)} pictures of good parts are identical",
            where=where,
            cure="give pictures of different parts; look for copies of one file, or a camera that stands still",
        )


def load_pictures(pictures: Iterable[Picture], *, side: int) -> Tensor:
    """Read and resize pictures: BGR uint8 (N, 3, side, side)."""
    images = [read_image(p, side=side) for p in pictures]
    stacked = np.stack(images) if images else np.zeros((0, side, side, 3), np.uint8)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def read_image(picture: Picture, *, side: int) -> Image:
    """Read and resize one picture: BGR uint8 (side, side, 3).

    Raises:
        DataError: The picture cannot be read.
    """
    return to_input(read_picture(picture.path), height=side, width=side)


def load_masks(pictures: Sequence[Picture], *, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Masks of defects, bool (N, side, side); all false where there is none.

    Raises:
        DataError: A mask or its picture cannot be read, or they differ in size.
    """
    masks = np.zeros((len(pictures), side, side), np.bool_)
    for number, picture in enumerate(pictures):
        if picture.mask is not None:
            mask = _read_mask(picture.mask, of=picture.path)
            share = to_input((mask > 0).astype(np.uint8) * 255, height=side, width=side)[..., 0]
            # A defect smaller than a cell must not vanish.
            masks[number] = share >= min(64, max(1, int(share.max())))
    return masks


def _read_mask(path: Path, *, of: Path) -> Image:
    mask, image = read_picture(path), read_picture(of)
    if mask.shape != image.shape:
        sizes = [f"{width} x {height}" for height, width, _ in (mask.shape, image.shape)]
        raise DataError(
            f"the mask has {sizes[0]} pixels, its picture {sizes[1]}",
            where=f"{path}, mask of {of}",
            cure="draw the mask on this picture in its full size, or remove it",
        )
    return mask
