"""Alignment: where a part lies in a frame, by searching a place of the reference picture in it.

The search looks at shrunk grey pictures, and a parabola through the best match and its neighbours gives the
shift back in pixels of the frame. Only a shift is found, no rotation and no scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.errors import ConfigError
from kenpin.frame import Image
from kenpin.view import Align, Box

_REACH = 1.5  # times the allowed shift: a part just outside is misplaced, not absent
_LEAST_CONTRAST = 4.0  # grey levels of standard deviation; less may be noise
_FADED = 0.1  # of the template's contrast: correlation means nothing in a place that has less
_ALIKE = 0.9  # a template that fits its own reference so well elsewhere cannot tell where the part is
_PEAK = 8  # so many shrunk pixels around the best match belong to it

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Shift:
    """Where the part lies, against the reference picture.

    Attributes:
        right: Frame pixels to the right.
        down: Frame pixels down.
        match: Normalised correlation of the template there, -1 to 1.
    """

    right: int
    down: int
    match: float

    @property
    def farthest(self) -> int:
        """The larger of the two, without its sign."""
        return max(abs(self.right), abs(self.down))


class Alignment:
    """Searches one template.

    Args:
        align: The template's place in the reference picture.
        reference: The reference picture, BGR uint8, shape (H, W, 3).
        where: What to name in an error.

    Raises:
        ConfigError: The place cannot be told from others: it has no contrast, or looks like its surroundings.
    """

    def __init__(self, align: Align, reference: Image, *, where: object) -> None:
        self._step = step = align.reduction
        height, width = reference.shape[:2]
        template = align.template
        reach = round(_REACH * align.max_shift_px) + step
        # Whole steps before the template: its reference lies on the same grid as the pictures to search.
        self._left, self._top = _multiple(template.x, reach, step), _multiple(template.y, reach, step)
        right = _multiple(width - template.x - template.width, reach, step)
        down = _multiple(height - template.y - template.height, reach, step)
        # The last pixels of a template that is no whole number of steps are not looked at.
        columns, rows = template.width // step * step, template.height // step * step
        self._area = Box(
            template.x - self._left,
            template.y - self._top,
            self._left + columns + right,
            self._top + rows + down,
        )
        area = self._shrunk(reference)
        y, x = self._top // step, self._left // step
        self._template = np.ascontiguousarray(area[y : y + rows // step, x : x + columns // step])
        self._contrast = float(self._template.std())
        self._refuse_poor(area, where)

    def find(self, image: Image) -> Shift:
        """Find the part in a frame of the reference picture's size.

        Args:
            image: BGR uint8, shape (H, W, 3).
        """
        area = self._shrunk(image)
        found = self._correlation(area)
        _, match, _, (x, y) = cv2.minMaxLoc(found)
        height, width = self._template.shape
        if area[y : y + height, x : x + width].std() < _FADED * self._contrast:
            match = 0.0
        right = self._step * (x + _vertex(found[y], x)) - self._left
        down = self._step * (y + _vertex(found[:, x], y)) - self._top
        return Shift(round(right), round(down), float(match))

    def _shrunk(self, image: Image) -> Grey:
        """What is searched in, grey and shrunk."""
        grey = cv2.cvtColor(image[self._area.slices], cv2.COLOR_BGR2GRAY)
        size = (self._area.width // self._step, self._area.height // self._step)
        return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _correlation(self, area: Grey) -> NDArray[np.float32]:
        return np.asarray(cv2.matchTemplate(area, self._template, cv2.TM_CCOEFF_NORMED), np.float32)

    def _refuse_poor(self, area: Grey, where: object) -> None:
        another = "choose a place with a corner or a mark that nothing near it looks like"
        if self._contrast < _LEAST_CONTRAST:
            raise ConfigError("align.template shows a place without contrast", where=where, cure=another)
        elsewhere = self._correlation(area)
        y, x = self._top // self._step, self._left // self._step
        elsewhere[max(0, y - _PEAK) : y + _PEAK + 1, max(0, x - _PEAK) : x + _PEAK + 1] = 0
        _, match, _, (at_x, at_y) = cv2.minMaxLoc(elsewhere)
        if match > _ALIKE:
            apart = f"{(at_x - x) * self._step} pixels to the right and {(at_y - y) * self._step} down"
            raise ConfigError(f"align.template looks the same {apart}", where=where, cure=another)


def _multiple(room: int, wanted: int, step: int) -> int:
    """The largest multiple of `step` that is neither more than the room nor more than what is wanted."""
    return min(room, wanted) // step * step


def _vertex(values: NDArray[np.float32], at: int) -> float:
    """Where the parabola through a maximum and its neighbours is highest, from it; 0 at the edge."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(v) for v in values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
