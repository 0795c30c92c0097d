"""What is refused before a training rather than after it: every picture and mask is looked at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kenpin.errors import DataError, OutOfView
from kenpin.folder_names import GOOD
from kenpin.frame import read_picture
from kenpin.pictures import Picture, PictureSet
from kenpin.quality_limits import Finding
from kenpin.sight import take
from kenpin.train.data import read_mask
from kenpin.train.picture_cache import THREADS

_MOST_NAMED = 5
_MOST_MISFITS = 0.02  # of the good parts: at the line each of them stops it


@dataclass(frozen=True)
class Looked:
    """What a look at all pictures found.

    Attributes:
        sizes: The pictures of each width and height of what is looked at; those of the most first.
        misfits: Why the view cannot use a picture, as its part is absent or misplaced.
    """

    sizes: Mapping[tuple[int, int], Sequence[Picture]]
    misfits: Mapping[Path, OutOfView]

    @property
    def proportion(self) -> float:
        """How many times as wide as high what is looked at is, in the median."""
        return statistics.median(width / height for (width, height), some in self.sizes.items() for _ in some)


def check_pictures(pictures: Sequence[Picture], *, advance: Callable[[], object] = lambda: None) -> Looked:
    """Look at pictures; refuse those that cannot be read, or that are of another camera than their view.

    A test picture is used after the training only, and by then data.json names it for good.

    Args:
        pictures: Of every role.
        advance: Called after each picture.

    Raises:
        DataError: Some cannot be used; the first ones are named.
    """
    refused: list[DataError] = []
    misfits: dict[Path, OutOfView] = {}
    sizes: dict[tuple[int, int], list[Picture]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for picture, found in zip(pictures, pool.map(_look, pictures), strict=True):
            advance()
            if isinstance(found, OutOfView) and found.finding != Finding.WRONG_SIZE.value:
                misfits[picture.path] = found
            elif isinstance(found, DataError):
                refused.append(found)
            else:
                sizes.setdefault(found, []).append(picture)
    unreadable = [error for error in refused if not isinstance(error, OutOfView)]
    _refuse(unreadable, "cannot be used")
    _refuse(refused, "do not fit the view")
    return Looked(dict(sorted(sizes.items(), key=lambda size: -len(size[1]))), misfits)


def set_apart(found: PictureSet, misfits: Mapping[Path, OutOfView]) -> PictureSet:
    """Pictures without those that the view cannot use; these become its `misfits`.

    Raises:
        DataError: They are more than 2 % of the good parts, so that the view is the wrong one.
    """
    every = (*found.train, *found.test)
    good = [picture.path for picture in every if picture.label == GOOD]
    wrong = [misfits[path] for path in good if path in misfits]
    if len(wrong) > _MOST_MISFITS * len(good):
        _refuse(wrong, "do not fit the view")
    train, test = (tuple(p for p in part if p.path not in misfits) for part in (found.train, found.test))
    return replace(found, train=train, test=test, misfits=tuple(p for p in every if p.path in misfits))


@dataclass(frozen=True)
class Masked:
    """What a look at all masks found.

    Attributes:
        empty: Pictures whose mask marks nothing of what is looked at.
        most: Pictures whose mask marks more than half of it, as one does with dark and bright exchanged.
    """

    empty: Sequence[Picture]
    most: Sequence[Picture]


def check_masks(pictures: Iterable[Picture]) -> Masked:
    """Look at masks; refuse those that do not fit.

    Raises:
        DataError: A mask or its picture cannot be read, or they differ in size.
    """
    masked = [(picture, picture.mask) for picture in pictures if picture.mask is not None]
    shares = [
        (picture, np.count_nonzero(marks := read_mask(mask, of=picture)) / marks.size)
        for picture, mask in masked
    ]
    return Masked([p for p, share in shares if not share], [p for p, share in shares if share > 0.5])


def check_teachers(empty: Iterable[Picture]) -> None:
    """Refuse bad parts that shall teach and have their defect where nobody looks.

    Args:
        empty: Those whose mask marks nothing, as `check_masks` found.

    Raises:
        DataError: One has.
    """
    for picture in empty:
        if picture.sight is not None:
            raise DataError(
                "a bad part that shall teach has its defect outside of the view",
                where=picture.path,
                cure="leave it out: all that the view shows of it is good",
            )


def _look(picture: Picture) -> tuple[int, int] | DataError:
    """Width and height of what is looked at, or why it cannot be."""
    try:
        height, width = take(read_picture(picture.path), picture.sight, where=picture.path).image.shape[:2]
    except DataError as error:
        return error
    return width, height


def _refuse(errors: Sequence[DataError], what: str) -> None:
    if errors:
        first, more = errors[0], len(errors) - _MOST_NAMED
        named = ", ".join(error.where for error in errors[:_MOST_NAMED])
        raise DataError(
            f"of the pictures {len(errors)} {what}, the first because {first.what}",
            where=f"{named} and {more} more" if more > 0 else named,
            cure=first.cure,
        )
