"""Load pictures for training, and write down which ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kenpin import frame
from kenpin.counted import counted
from kenpin.errors import DataError
from kenpin.folder_names import GOOD
from kenpin.frame import Image, read_picture
from kenpin.picture_files import list_pictures, sha256_of
from kenpin.pictures import Picture, PictureSet, split_groups
from kenpin.preprocess import to_input
from kenpin.sight import take
from kenpin.train.fold import fold

Bools = NDArray[np.bool_]
T = TypeVar("T")

MIN_PICTURES = 8
HELD_BACK_SHARE = 0.2
# Of fewer the gate of an export to INT8 has no operating point, and hardly a flip could be seen.
MIN_HELD_BACK = 5
# Of 255.
QUARTER = 64
ROLES = ("fit", "held_back", "test", "no_decision", "teach")
MEASURE = ("test", "no_decision")  # nothing is learned from these


@dataclass(frozen=True)
class Roles:
    """Who does what.

    Attributes:
        fit: Good pictures that train.
        held_back: Good pictures that standardise and weigh.
        test: Good and bad pictures that only measure.
        no_decision: Good and bad pictures in which the view does not find the part. They are only counted.
        teach: Bad pictures that train, as negatives.
    """

    fit: tuple[Picture, ...]
    held_back: tuple[Picture, ...]
    test: tuple[Picture, ...]
    no_decision: tuple[Picture, ...] = ()
    teach: tuple[Picture, ...] = ()

    def manifest(self) -> dict[str, list[dict[str, str]]]:
        """Every picture with SHA-256, label, group, role and, where it has one, its mask with SHA-256."""
        every = (self.fit, self.held_back, self.test, self.no_decision, self.teach)
        rows = [
            _row(picture, role) for role, pictures in zip(ROLES, every, strict=True) for picture in pictures
        ]
        return {"pictures": rows}


def _row(picture: Picture, role: str) -> dict[str, str]:
    row = {
        "file": str(picture.path.resolve()),
        "sha256": sha256_of(picture.path),
        "label": picture.label,
        "group": picture.group,
        "role": role,
    }
    if picture.mask:
        row |= {"mask": str(picture.mask.resolve()), "mask_sha256": sha256_of(picture.mask)}
    return row


def assign_roles(
    pictures: PictureSet, *, where: object, seed: int, teach: float = 0.0, known: Collection[str] = ()
) -> Roles:
    """Hold a fifth of the good training parts back; no part has two roles.

    Args:
        pictures: What was found.
        where: The folder, to name in an error.
        seed: Decides which parts are held back and which ones teach.
        teach: Share of the bad parts that training may see, 0 to 0.5. The others only measure.
        known: Parts (groups) that the model learned from before. They are held back last of all, as they would
            set the scale of the score by what is known already.

    Raises:
        DataError: Fewer than eight good pictures, or all of one part, or all the same picture; or too few bad
            parts to teach.
    """
    if len(pictures.train) < MIN_PICTURES:
        raise DataError(
            f"too few pictures of good parts to learn from: {len(pictures.train)}",
            where=where,
            cure=f"give at least {MIN_PICTURES}, better 100 or more, of different good parts; without a test "
            "folder a quarter more, as a fifth is held back to measure",
        )
    _refuse_copies(pictures.train, where=where)
    fit, held_back = split_groups(pictures.train, HELD_BACK_SHARE, seed=seed, last=known)
    if not held_back:
        raise DataError(
            "all pictures to learn from show the same part (one group)",
            where=where,
            cure="give pictures of several parts, or correct the column group in manifest.csv: it names the "
            "part, not its lot or day",
        )
    roles = Roles(tuple(fit), tuple(held_back), pictures.test, pictures.misfits)
    return _with_teachers(roles, teach, where=where, seed=seed) if teach else roles


def _with_teachers(roles: Roles, share: float, *, where: object, seed: int) -> Roles:
    """Move a share of the bad parts from `test` to `teach`, none that also has good pictures."""
    tied = {p.group for p in roles.test if p.label == GOOD}
    label = {p.group: p.label for p in roles.test if p.group not in tied}
    groups = sorted(label)
    random.Random(seed).shuffle(groups)
    # Sorted by label and taken at equal distances: every kind of defect gives about its share.
    groups.sort(key=lambda group: label[group])
    chosen = {g for n, g in enumerate(groups) if int((n + 1) * share + 0.5) > int(n * share + 0.5)}
    if not chosen or len(groups) == 1:
        raise DataError(
            f"{counted(len(groups), 'part')} with bad pictures alone, too few to teach by a share of {share:g}",
            where=where,
            cure="give more bad parts, with --bad DIR or in --data, or leave --teach out",
        )
    moved = tuple(p for p in roles.test if p.group in chosen)
    return replace(roles, test=tuple(p for p in roles.test if p.group not in chosen), teach=moved)


def _refuse_copies(pictures: Sequence[Picture], *, where: object) -> None:
    """Refuse pictures that are all the same. As a rule two are read: the first that differs ends it."""
    first = read_picture(pictures[0].path)
    if all(np.array_equal(first, read_picture(p.path)) for p in pictures[1:]):
        raise DataError(
            f"all {len(pictures)} pictures of good parts are identical",
            where=where,
            cure="give pictures of different parts; look for copies of one file, or a camera that stands still",
        )


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 to count - 1, evenly spread."""
    return [round(n) for n in np.linspace(0, count - 1, min(count, most))]


def some_of(pictures: Sequence[T], most: int) -> list[T]:
    """At most so many, of all days and lots: pictures are in the order of their names."""
    return [pictures[number] for number in evenly(len(pictures), most)]


def load_pictures(pictures: Iterable[Picture], *, side: int) -> Tensor:
    """Read pictures, at least one, as squares of their strips: BGR uint8 (N, 3, side, side)."""
    stacked = np.stack([read_image(p, shape=p.strips.shape(side)) for p in pictures])
    return fold(torch.from_numpy(stacked).permute(0, 3, 1, 2)).contiguous()


def read_image(picture: Picture, *, shape: tuple[int, int]) -> Image:
    """Read and resize one picture: BGR uint8 (*shape, 3).

    Raises:
        DataError: The picture cannot be read, or does not show the part where its view wants it.
    """
    taken = take(read_picture(picture.path), picture.sight, where=picture.path)
    height, width = shape
    return to_input(taken.image, height=height, width=width)


def load_masks(pictures: Sequence[Picture], *, shape: tuple[int, int]) -> Bools:
    """Masks of defects, bool (N, *shape); all false where there is none.

    Raises:
        DataError: A mask or its picture cannot be read, or they differ in size.
    """
    height, width = shape
    masks = np.zeros((len(pictures), height, width), np.bool_)
    for number, picture in enumerate(pictures):
        if picture.mask is not None:
            masks[number] = shrink_mask(read_mask(picture.mask, of=picture), height=height, width=width)
    return masks


def shrink_mask(mask: Image, *, height: int, width: int) -> Bools:
    """A mask (H, W, 3), non-zero = defect, as bool (height, width): cells of which a quarter is defect.

    A defect that fills no cell so far keeps the cell, or cells, with the most of it.
    """
    area = np.asarray((mask > 0).any(2), np.uint8)
    share = to_input(np.dstack([area * 255] * 3), height=height, width=width)[..., 0]
    kept = (share >= QUARTER).ravel()
    count, labels = cv2.connectedComponents(area, connectivity=8)
    rows, columns = np.nonzero(area)
    cell = rows * height // area.shape[0] * width + columns * width // area.shape[1]
    pairs, pixels = np.unique(labels[rows, columns] * np.int64(height * width) + cell, return_counts=True)
    defect, cells = np.divmod(pairs, height * width)
    most, is_there = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    np.maximum.at(most, defect, pixels)
    np.logical_or.at(is_there, defect, kept[cells])
    kept[cells[~is_there[defect] & (pixels == most[defect])]] = True
    return kept.reshape(height, width)


def read_mask(path: Path, *, of: Picture) -> Image:
    """Read the mask of a picture, as its view shows it: (h, w, 3), non-zero = defect.

    Of a folder of masks, what any of them marks.

    Raises:
        DataError: A mask or its picture cannot be read, or they differ in size.
    """
    image = read_picture(of.path)
    mask = np.zeros_like(image)
    for file in list_pictures(path) if path.is_dir() else [path]:
        mask |= _read_fitting(file, image, of.path)
    if of.sight is None:
        return mask
    return of.sight.take_mask(mask, of.sight.take(image, where=of.path).cutout)


def _read_fitting(path: Path, image: Image, of: Path) -> Image:
    mask = frame.read_mask(path)
    if mask.shape != image.shape:
        sizes = [f"{width} x {height}" for height, width, _ in (mask.shape, image.shape)]
        raise DataError(
            f"the mask has {sizes[0]} pixels, its picture {sizes[1]}",
            where=f"{path}, mask of {of}",
            cure="draw the mask on this picture in its full size, or remove it",
        )
    return mask
