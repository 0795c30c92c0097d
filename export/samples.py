"""The pictures of a run that export works with: for ranges, for parity and for the golden frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kenpin.errors import DataError
from kenpin.folder_names import GOOD
from kenpin.frame import Image, read_picture
from kenpin.picture_files import sha256_of
from kenpin.preprocess import to_input
from kenpin.sight import Sight, take
from kenpin.train.data import some_of

# Enough for stable figures, few enough for a minute on two cores.
MOST_FIT = 48
MOST_HELD_BACK = 64
MOST_TEST_OF_EACH = 64

Row = Mapping[str, str]


@dataclass(frozen=True)
class Samples:
    """Pictures at model resolution, BGR uint8.

    Attributes:
        fit: Good pictures the model was trained on (F, H, W, 3): they give the ranges of activations.
        held_back: Good pictures it was not trained on (G, H, W, 3): they give the threshold and the
            score statistics.
        test: Pictures with known labels (T, H, W, 3); T may be 0.
        test_bad: (T,) true = bad.
    """

    fit: Image
    held_back: Image
    test: Image
    test_bad: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of each."""
        height, width = self.fit.shape[1:3]
        return height, width

    @property
    def all(self) -> Image:
        """Held-back, then test pictures (G + T, H, W, 3)."""
        return np.concatenate([self.held_back, self.test])


def choose_rows(data: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Choose pictures from the data manifest of a run, evenly over each list.

    Args:
        data: Content of `data.json`.

    Returns:
        Rows for `fit`, `held_back`, `test_good` and `test_bad`.
    """
    rows: list[Row] = data["pictures"]
    test = [row for row in rows if row["role"] == "test"]
    return {
        "fit": some_of([r for r in rows if r["role"] == "fit"], MOST_FIT),
        "held_back": some_of([r for r in rows if r["role"] == "held_back"], MOST_HELD_BACK),
        "test_good": some_of([r for r in test if r["label"] == GOOD], MOST_TEST_OF_EACH),
        "test_bad": some_of([r for r in test if r["label"] != GOOD], MOST_TEST_OF_EACH),
    }


def read_samples(
    chosen: Mapping[str, Sequence[Row]],
    *,
    shape: tuple[int, int],
    sight: Sight | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Samples:
    """Read chosen pictures.

    Args:
        chosen: What `choose_rows` returned.
        shape: Height and width of the model's input.
        sight: What of each picture the model looks at; `None` = all of it.
        advance: Called after each picture.

    Raises:
        DataError: A picture is gone or has changed since training.
    """

    def images(part: str) -> Image:
        read = []
        for row in chosen[part]:
            read.append(_read(row, shape, sight))
            advance()
        return np.stack(read) if read else np.zeros((0, *shape, 3), np.uint8)

    good, bad = images("test_good"), images("test_bad")
    is_bad = np.arange(len(good) + len(bad)) >= len(good)
    return Samples(images("fit"), images("held_back"), np.concatenate([good, bad]), is_bad)


def _read(row: Row, shape: tuple[int, int], sight: Sight | None) -> Image:
    path = Path(row["file"])
    image = read_picture(path)
    if sha256_of(path) != row["sha256"]:
        raise DataError(
            "the picture has changed since training",
            where=path,
            cure="restore it, or train again: figures of other pictures would not belong to this model",
        )
    height, width = shape
    return to_input(take(image, sight, where=path).image, height=height, width=width)
