"""From a frame to the model's input: the one definition for training, calibration and the station."""

from __future__ import annotations

from math import gcd

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.errors import DataError
from kenpin.frame import Image

_LARGE = 1_000_000  # pixels; a smaller frame takes OpenCV a few milliseconds at most


def to_input(image: Image, *, height: int, width: int) -> Image:
    """Stretch a frame to the model's input size.

    Shrinking averages over the covered area, so that a one-pixel scratch fades but is never skipped;
    enlarging is bilinear. The aspect ratio is not kept: a camera on a line always has the same one.

    Args:
        image: BGR uint8, shape (H, W, 3).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        BGR uint8, shape (height, width, 3), contiguous.

    Raises:
        DataError: The frame is not BGR uint8 (H, W, 3).
    """
    check_frame(image)
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    if _goes_rows_first(image, height=height, width=width):
        # OpenCV's numbers, faster: only a mean of exactly n + 1/2 may be rounded to the other side.
        means = cv2.resize(_mean_rows(image, height), (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.convertScaleAbs(means), np.uint8)
    # Each side is shrunk or enlarged for itself: OpenCV averages only where neither side grows.
    least = (min(image.shape[1], width), min(image.shape[0], height))
    resized = cv2.resize(image, least, interpolation=cv2.INTER_AREA)
    if least != (width, height):
        resized = cv2.resize(resized, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, dtype=np.uint8)


def _goes_rows_first(image: Image, *, height: int, width: int) -> bool:
    """Whether a frame is large and only shrinks; OpenCV itself is fast where it does so by whole numbers."""
    tall, wide = image.shape[:2]
    is_whole = tall % height == 0 and wide % width == 0
    return tall * wide >= _LARGE and tall > height and wide >= width and not is_whole


def _mean_rows(image: Image, height: int) -> NDArray[np.float32]:
    """Average rows over what each of the result covers; shape (height, W, 3).

    Which rows are covered, and how far, repeats: 135 rows become 28 eight times when 1080 become 224. One call
    does the same row of all repeats, and a whole row in a call is what makes it fast.
    """
    repeats = gcd(image.shape[0], height)
    source, target = image.shape[0] // repeats, height // repeats
    rows = image.reshape(repeats, source, -1)
    means = np.empty((repeats, target, rows.shape[2]), np.float32)
    for number in range(target):
        # In parts of a row, so that all numbers are whole: a source row has `target` of them.
        begin, end, seen = number * source, (number + 1) * source, 0
        mean = means[:, number]
        for row in range(begin // target, -(-end // target)):
            part = min(end, (row + 1) * target) - max(begin, row * target)
            seen += part
            if seen == part:
                mean[...] = rows[:, row]
            else:
                cv2.accumulateWeighted(rows[:, row], mean, part / seen)
    return means.reshape(height, *image.shape[1:])


def check_frame(image: Image) -> None:
    """Refuse what is no frame.

    Raises:
        DataError: It is not BGR uint8 (H, W, 3).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(
            f"a frame must be BGR uint8 (H, W, 3), not {image.dtype} {image.shape}",
            cure="set the camera to 8-bit colour or mono converted to BGR",
        )
