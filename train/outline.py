"""The outline of a part that lies alone on a plain background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.frame import Image

LEAST_SIDE = 16  # pixels; in less nothing is looked for
_EDGE = 3  # pixels: there is no part
_DUST = 0.01  # of the part's area: smaller things lie anywhere
_MOST_DUST = 0.05
_LONG = 1.3  # times as long as wide; a rounder part has no length to go by


@dataclass(frozen=True)
class Outline:
    """Where a part lies in a picture.

    Attributes:
        x: Its middle, in pixels from the left edge.
        y: The same from the upper edge.
        wide: Its width along the picture, in pixels.
        high: Its height.
        mask: All that stands out, (h, w), non-zero.
    """

    x: float
    y: float
    wide: int
    high: int
    mask: Image

    @property
    def side(self) -> int:
        """The longer side."""
        return max(self.wide, self.high)

    @property
    def straight(self) -> tuple[tuple[float, float], float]:
        """Its sides, the longer one first, where it is turned back by so many degrees clockwise."""
        corners = np.argwhere(self.mask)[:, ::-1].astype(np.float32)
        _, sides, turn_deg = cv2.minAreaRect(corners)
        return (max(sides), min(sides)), turn_deg

    @property
    def is_long(self) -> bool:
        """Whether it pays to show it along its length."""
        longer, shorter = self.straight[0]
        return longer >= _LONG * shorter

    def lying_as(self, other: Outline) -> tuple[float, float]:
        """Width and height where it lies along the picture, as another one does."""
        longer, shorter = self.straight[0]
        return (longer, shorter) if other.wide >= other.high else (shorter, longer)

    @property
    def to_edge(self) -> float:
        """Pixels from the middle to the nearest edge of the frame."""
        height, width = self.mask.shape
        return float(min(self.x, width - self.x, self.y, height - self.y))


def outline_of(frame: Image) -> Outline | None:
    """The part of a frame (h, w, 3), where something lies whole on a plain background; else `None`."""
    height, width = frame.shape[:2]
    if min(height, width) < LEAST_SIDE:
        return None
    unlike = np.abs(frame - _background(frame)).max(2).clip(0, 255).astype(np.uint8)
    _, mask = cv2.threshold(unlike, 0, 255, cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)
    mask = _without_dust(mask)
    x, y, wide, high = cv2.boundingRect(mask)
    if not wide or min(x, y) < 1 or x + wide >= width or y + high >= height:
        return None
    return Outline(x + wide / 2, y + high / 2, wide, high, mask)


def _background(frame: Image) -> NDArray[np.float64]:
    """What the frame (h, w, 3) would be without a part: light that changes evenly, as its edge tells."""
    height, width = frame.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 2)
    edge = np.ones((height, width), np.bool_)
    edge[_EDGE:-_EDGE, _EDGE:-_EDGE] = False
    light = np.linalg.lstsq(terms[edge], frame[edge].astype(np.float64), rcond=None)[0]
    return np.asarray(terms @ light, np.float64)


def _without_dust(mask: Image) -> Image:
    """All that stands out but specks; nothing at all where they are many, as on a background of structure."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0
    dust = areas < _DUST * areas.max()
    if areas[dust].sum() > _MOST_DUST * areas.sum():
        return np.zeros_like(mask)
    return np.where(dust[labels], np.uint8(0), mask)
