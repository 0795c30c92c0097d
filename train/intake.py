"""What is refused before a training rather than after it: every picture and mask is looked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from kenpin.errors import DataError, OutOfView
from kenpin.frame import read_picture
from kenpin.pictures import Picture
from kenpin.sight import take
from kenpin.train.data import read_mask
from kenpin.train.picture_cache import THREADS

_MOST_NAMED = 5


def check_pictures(
    pictures: Sequence[Picture], *, advance: Callable[[], object] = lambda: None
) -> dict[str, list[Picture]]:
    """Refuse pictures that cannot be read, or that do not show what their view wants.

    A test picture is used after the training only, and by then data.json names it for good.

    Args:
        pictures: Of every role.
        advance: Called after each picture.

    Returns:
        The pictures of each size of what is looked at, as in `640 x 480`; the size of the most first.

    Raises:
        DataError: Some cannot be used; the first ones are named.
    """
    refused: list[DataError] = []
    sizes: dict[str, list[Picture]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for picture, found in zip(pictures, pool.map(_look, pictures), strict=True):
            advance()
            if isinstance(found, DataError):
                refused.append(found)
            else:
                sizes.setdefault(found, []).append(picture)
    unreadable = [error for error in refused if not isinstance(error, OutOfView)]
    _refuse(unreadable, "cannot be used")
    _refuse(refused, "do not fit the view")
    return dict(sorted(sizes.items(), key=lambda size: -len(size[1])))


def check_masks(pictures: Iterable[Picture]) -> list[Picture]:
    """Refuse masks that do not fit; returns the pictures whose mask marks nothing.

    Raises:
        DataError: A mask or its picture cannot be read, or they differ in size.
    """
    masked = [(picture, picture.mask) for picture in pictures if picture.mask is not None]
    return [picture for picture, mask in masked if not read_mask(mask, of=picture).any()]


def check_teachers(empty: Iterable[Picture]) -> None:
    """Refuse bad parts that shall teach and have their defect where nobody looks.

    Args:
        empty: Those whose mask marks nothing, as `check_masks` told.

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


def _look(picture: Picture) -> str | DataError:
    """The size of what is looked at, or why it cannot be."""
    try:
        height, width = take(read_picture(picture.path), picture.sight, where=picture.path).image.shape[:2]
    except DataError as error:
        return error
    return f"{width} x {height}"


def _refuse(errors: Sequence[DataError], what: str) -> None:
    if errors:
        first, more = errors[0], len(errors) - _MOST_NAMED
        named = ", ".join(error.where for error in errors[:_MOST_NAMED])
        raise DataError(
            f"of the pictures {len(errors)} {what}, the first because {first.what}",
            where=f"{named} and {more} more" if more > 0 else named,
            cure=first.cure,
        )
