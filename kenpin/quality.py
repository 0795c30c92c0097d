"""What a frame measures, apart from any defect: light, colour, clipping, focus, position. Cheap for each frame.

Of a large frame only some rows and their neighbours are looked at, at full resolution: blur shows between
neighbouring pixels, and averaging a whole frame first would cost more than everything else here.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.frame import Image

_ROWS = 135  # so many are looked at, or all of a smaller frame
_NEAR = 2  # pixels between those that are compared for focus: wide enough that noise counts for little
_CLIPPED = 250
_DARK = 5.0  # grey levels, added before a ratio of colours, so that the noise of a dark picture counts little
_SMALL = 160  # longest side of the small picture for the position, in pixels
_SEARCH = 0.15  # of each side that the part may move and still be found

Small = NDArray[np.uint8]


@dataclass(frozen=True)
class Quality:
    """The measures of one frame.

    Attributes:
        size: Height and width in pixels.
        light: Mean grey, 0 to 255.
        colour: Mean blue and mean red over mean green; 1 where the picture is grey.
        clipped: Share of colour values that are at their upper end, 0 to 1.
        focus: Mean squared second difference of neighbours over squared light; falls with blur.
        content: Checksum of the pixels that were looked at.
        small: The frame as a small grey picture, for `locate`.
    """

    size: tuple[int, int]
    light: float
    colour: tuple[float, float]
    clipped: float
    focus: float
    content: int
    small: Small


@dataclass(frozen=True)
class Place:
    """Where the part is.

    Attributes:
        match: How well the picture fits the reference there, -1 to 1.
        shift: How far it is from where it was, in shares of the longer side of the frame.
    """

    match: float
    shift: float


def measure(image: Image) -> Quality:
    """Measure a frame.

    Args:
        image: BGR uint8, shape (H, W, 3).
    """
    height, width = image.shape[:2]
    grey = _grey(image, 0)
    light = float(cv2.mean(grey)[0])
    rows = image.reshape(height, -1)[_rows(height)]  # numpy is faster where a row is one run of values
    return Quality(
        size=(height, width),
        light=light,
        colour=_colour(image),
        clipped=float(np.count_nonzero(rows >= _CLIPPED) / rows.size),
        focus=_detail(image, grey) / max(1.0, light) ** 2,
        content=zlib.crc32(grey.data),
        small=_small(grey, width / height),
    )


def locate(small: Small, reference: Small) -> Place:
    """Find the part of a reference picture in another one, by normalised correlation.

    Args:
        small: From `Quality.small`.
        reference: The same of the sign-off, of the same size.
    """
    height, width = reference.shape
    top, left = round(_SEARCH * height), round(_SEARCH * width)
    template = reference[top : height - top, left : width - left]
    found = cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED)
    _, match, _, (x, y) = cv2.minMaxLoc(found)
    return Place(float(match), float(np.hypot(x - left, y - top)) / max(height, width))


def _rows(height: int) -> slice:
    near = _NEAR if height > 2 * _NEAR else 0
    return slice(near, height - near, max(1, height // _ROWS))


def _grey(image: Image, offset: int) -> Small:
    """The rows that are looked at, or those so many below them, in grey."""
    rows = _rows(image.shape[0])
    taken = image[rows.start + offset : rows.stop + offset : rows.step]
    return np.asarray(cv2.cvtColor(taken, cv2.COLOR_BGR2GRAY), np.uint8)


def _colour(image: Image) -> tuple[float, float]:
    blue, green, red, _ = cv2.mean(image[_rows(image.shape[0])])
    return (blue + _DARK) / (green + _DARK), (red + _DARK) / (green + _DARK)


def _detail(image: Image, middle: Small) -> float:
    """Mean squared second difference, across and down; the smaller one, as motion blurs in one direction."""
    if image.shape[0] <= 2 * _NEAR or image.shape[1] <= 2 * _NEAR:
        return 0.0
    down = _second_difference(_grey(image, -_NEAR), middle, _grey(image, _NEAR))
    across = _second_difference(middle[:, : -2 * _NEAR], middle[:, _NEAR:-_NEAR], middle[:, 2 * _NEAR :])
    return min(down, across)


def _second_difference(before: Small, here: Small, after: Small) -> float:
    bent = np.subtract(here, before, dtype=np.int16)
    bent += np.subtract(here, after, dtype=np.int16)
    return float(cv2.norm(bent, cv2.NORM_L2SQR)) / bent.size


def _small(grey: Small, aspect: float) -> Small:
    width = _SMALL if aspect >= 1 else max(8, round(_SMALL * aspect))
    height = _SMALL if aspect < 1 else max(8, round(_SMALL / aspect))
    if height > grey.shape[0] or width > grey.shape[1]:
        return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    # Across first: one side alone, and by a whole number as 1920 to 160, is what OpenCV averages fast.
    levels = cv2.resize(grey.astype(np.float32), (width, grey.shape[0]), interpolation=cv2.INTER_AREA)
    levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.convertScaleAbs(levels), np.uint8)
