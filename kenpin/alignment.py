"""Alignment: where a part lies in a frame, by searching a place of the reference picture in it.

The search looks at shrunk grey pictures, and a parabola through the best match and its neighbours gives the
shift back in pixels of the frame. Where parts may be turned, the template is turned beforehand by every whole
degree; every fifth is tried at half the size, the best few are followed uphill degree by degree, and another
parabola gives the turn back. Where a part looks much the same turned, as a gear does, a closer look decides.
No scale is found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.cutout import turned_about
from kenpin.errors import WrongView
from kenpin.frame import Image
from kenpin.view import Align, Box

_REACH = 1.5  # times the allowed shift: a part just outside is misplaced, not absent
_LIGHT = 41  # shrunk pixels, of about 48 that a template has: over so many the light is evened out
_LEAST_CONTRAST = 4.0  # grey levels of standard deviation; less may be noise
_FADED = 0.1  # of the template's contrast: correlation means nothing in a place that has less
_ALIKE = 0.9  # a template that fits its own reference so well elsewhere cannot tell where the part is
_PEAK = 8  # so many shrunk pixels around the best match belong to it
_WHOLE_TURN = 360  # degrees
_STEP_DEG = 5  # turns that are tried first: on half a template, of 24 pixels, half of it moves no pixel by 1
_PEAKS = 3  # so many of them are followed at the least: head and tail of a part may look much alike
_MOST_PEAKS = 24  # a gear has one for every tooth
_CLOSE = 0.1  # a fit that is worse than the best by less may be the right one
_CLOSER_SIDE = 96  # pixels of a template for the closer look
_SLACK = 2  # of them: so far off a fit may be

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """How the part lies, against the reference picture.

    Attributes:
        right: Frame pixels to the right, of the template's middle.
        down: Frame pixels down.
        turn_deg: Degrees clockwise, -180 to 180; 0 where no turn is searched.
        match: Normalised correlation of the template there, -1 to 1.
    """

    right: int
    down: int
    turn_deg: float
    match: float

    @property
    def farthest(self) -> int:
        """The larger of the two shifts, without its sign."""
        return max(abs(self.right), abs(self.down))


@dataclass(frozen=True)
class _Fit:
    """Where the template fits best, turned by whole degrees: x and y in the correlation (h, w)."""

    match: float
    turn: int
    x: int
    y: int
    correlation: NDArray[np.float32]


class Alignment:
    """Searches one template.

    Attributes:
        middle: Of the template in the reference picture: x and y, which `Found` tells the shift of.

    Args:
        align: The template's place in the reference picture.
        reference: The reference picture, BGR uint8, shape (H, W, 3).
        where: What to name in an error.

    Raises:
        ConfigError: The place cannot be told from others: it has no contrast, or looks like its surroundings,
            or the same however it is turned.
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
        whole_steps = Box(template.x, template.y, columns, rows)
        self._area = Box(
            template.x - self._left,
            template.y - self._top,
            self._left + columns + right,
            self._top + rows + down,
        )
        self.middle = whole_steps.middle
        self._turns = align.max_turn_deg > 0
        area = self._shrunk(reference)
        at = Box(self._left // step, self._top // step, columns // step, rows // step)
        most = min(180, math.ceil(_REACH * align.max_turn_deg))
        # -180 is 180, and only one of them is tried.
        turns = range(-most, most + (most < 180))
        self._templates = {turn: _turned(area, at, turn) for turn in turns}
        self._halves = {turn: _halved(self._templates[turn]) for turn in turns[::_STEP_DEG]}
        self._contrast = float(self._templates[0].std())
        self._refuse_poor(area, where)
        self._closer = _CloserLook(self._area, whole_steps, reference)

    def find(self, image: Image) -> Found:
        """Find the part in a frame of the reference picture's size.

        Args:
            image: BGR uint8, shape (H, W, 3).
        """
        area = self._shrunk(image)
        known: dict[int, _Fit] = {}
        summits = {fit.turn: fit for fit in (self._summit(area, turn, known) for turn in self._likely(area))}
        founds = [self._found(area, fit, known) for fit in summits.values()]
        best = max(founds, key=lambda found: found.match)
        close = [found for found in founds if found.match > best.match - _CLOSE]
        return self._closer.most_like(image, close) if len(close) > 1 else best

    def _found(self, area: Grey, fit: _Fit, known: Mapping[int, _Fit]) -> Found:
        """How the part lies by a fit, in pixels of the frame."""
        height, width = self._templates[0].shape
        y, x, correlation = fit.y, fit.x, fit.correlation
        faded = area[y : y + height, x : x + width].std() < _FADED * self._contrast
        right = self._step * (x + _vertex(correlation[y], x)) - self._left
        down = self._step * (y + _vertex(correlation[:, x], y)) - self._top
        return Found(round(right), round(down), _turn(fit, known), 0.0 if faded else fit.match)

    def _likely(self, area: Grey) -> list[int]:
        """Turns from where to look for the best."""
        if not self._turns:
            return [0]
        small = _halved(area)
        return _peaks([_fit(small, template, turn) for turn, template in self._halves.items()])

    def _summit(self, area: Grey, turn: int, known: dict[int, _Fit]) -> _Fit:
        """The best fit uphill from a turn; what was tried on the way is known from then on."""
        near = [one for one in (turn, _wrapped(turn - 1), _wrapped(turn + 1)) if one in self._templates]
        for one in near:
            if one not in known:
                known[one] = _fit(area, self._templates[one], one)
        best = max(near, key=lambda one: known[one].match)
        return known[turn] if best == turn else self._summit(area, best, known)

    def _shrunk(self, image: Image) -> Grey:
        """What is searched in: grey, shrunk, and how it differs from its surroundings."""
        size = (self._area.width // self._step, self._area.height // self._step)
        return _evened(image[self._area.slices], size)

    def _refuse_poor(self, area: Grey, where: object) -> None:
        another = "choose a place with a corner or a mark that nothing near it looks like"
        if self._contrast < _LEAST_CONTRAST:
            what = "align.template shows a place without contrast"
            raise WrongView(what, finding="part_plain", where=where, cure=another)
        elsewhere = _fit(area, self._templates[0], 0).correlation
        y, x = self._top // self._step, self._left // self._step
        elsewhere[max(0, y - _PEAK) : y + _PEAK + 1, max(0, x - _PEAK) : x + _PEAK + 1] = 0
        _, match, _, (at_x, at_y) = cv2.minMaxLoc(elsewhere)
        if match > _ALIKE:
            right, down = (at_x - x) * self._step, (at_y - y) * self._step
            what = f"align.template looks the same {right} pixels to the right and {down} down"
            told = {"right": right, "down": down}
            raise WrongView(what, finding="part_alike", values=told, where=where, cure=another)
        if len(self._templates) < _WHOLE_TURN:
            return
        if min(_fit(area, self._templates[turn], turn).match for turn in self._halves) > _ALIKE:
            raise WrongView(
                "align.template looks the same however it is turned",
                finding="part_round",
                where=where,
                cure="leave max_turn_deg out, or choose a place with a mark off its middle",
            )


class _CloserLook:
    """Tells apart how a part might lie: a mark that tells one tooth of a gear from the next may be small.

    Args:
        area: What of a frame is looked at.
        template: The template's place in the reference picture.
        reference: The reference picture, BGR uint8, shape (H, W, 3).
    """

    def __init__(self, area: Box, template: Box, reference: Image) -> None:
        self._area = area
        self._middle = template.middle
        self._scale = min(1.0, _CLOSER_SIDE / max(template.width, template.height))
        least = 3 * _SLACK  # a narrow template is looked at with what lies beside it
        width, height = (max(least, round(side * self._scale)) for side in template[2:])
        self._side = (width, height)
        upright = self._cut(self._shrunk(reference), Found(0, 0, 0.0, 1.0))
        self._usual = upright[_SLACK:-_SLACK, _SLACK:-_SLACK]

    def most_like(self, image: Image, founds: Sequence[Found]) -> Found:
        """How the part looks most like the reference picture."""
        shrunk = self._shrunk(image)

        def unlike(found: Found) -> float:
            # What either look leaves unexplained: the fine one alone would follow shine, which does not turn.
            return (1 - found.match) * (1 - _fit(self._cut(shrunk, found), self._usual, 0).match)

        return min(founds, key=unlike)

    def _shrunk(self, image: Image) -> Grey:
        size = (round(self._area.width * self._scale), round(self._area.height * self._scale))
        return _evened(image[self._area.slices], size)

    def _cut(self, shrunk: Grey, found: Found) -> Grey:
        """The part, upright."""
        x = (self._middle[0] + found.right - self._area.x + 0.5) * self._scale - 0.5
        y = (self._middle[1] + found.down - self._area.y + 0.5) * self._scale - 0.5
        width, height = self._side
        matrix = turned_about((x, y), -found.turn_deg)
        matrix[:, 2] -= (x - (width - 1) / 2, y - (height - 1) / 2)
        cut = cv2.warpAffine(shrunk, matrix, self._side, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cut, np.uint8)


def _evened(image: Image, size: tuple[int, int]) -> Grey:
    """A picture in grey, shrunk to a width and height, and how it differs from its surroundings.

    Light that falls off across the frame stays while a part moves in it; a thin part would be hidden by it.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (3, 3), 0)  # as turning blurs: else an unturned template stands out
    light = cv2.blur(small, (_LIGHT, _LIGHT), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.addWeighted(small, 1, light, -1, 128), np.uint8)


def _turned(area: Grey, at: Box, turn: int) -> Grey:
    """A place of a picture, turned about its middle by degrees clockwise; what is not there goes on."""
    matrix = turned_about(at.middle, turn)
    matrix[:, 2] -= (at.x, at.y)
    turned = cv2.warpAffine(area, matrix, (at.width, at.height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8)


def _turn(best: _Fit, known: Mapping[int, _Fit]) -> float:
    """The turn with parts of a degree, by the matches of the degrees beside it."""
    before, after = known.get(_wrapped(best.turn - 1)), known.get(_wrapped(best.turn + 1))
    if before is None or after is None:
        return float(best.turn)
    more = _vertex(np.array([before.match, best.match, after.match], np.float32), 1)
    return math.remainder(best.turn + more, _WHOLE_TURN)


def _wrapped(turn: int) -> int:
    """The same turn, -180 to 179."""
    return (turn + 180) % _WHOLE_TURN - 180


def _halved(picture: Grey) -> Grey:
    height, width = picture.shape
    return np.asarray(cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)


def _fit(area: Grey, template: Grey, turn: int) -> _Fit:
    found = np.asarray(cv2.matchTemplate(area, template, cv2.TM_CCOEFF_NORMED), np.float32)
    _, match, _, (x, y) = cv2.minMaxLoc(found)
    return _Fit(match, turn, x, y, found)


def _peaks(ring: Sequence[_Fit]) -> list[int]:
    """Turns that fit no worse than those tried before and after them, the best few."""
    before, after = [*ring[-1:], *ring[:-1]], [*ring[1:], *ring[:1]]
    peaks = [
        fit
        for one, fit, other in zip(before, ring, after, strict=True)
        if not fit.match < max(one.match, other.match)  # one that is no number counts, too
    ]
    peaks.sort(key=lambda fit: -fit.match)
    close = sum(fit.match > peaks[0].match - _CLOSE for fit in peaks)
    return [fit.turn for fit in peaks[: min(max(close, _PEAKS), _MOST_PEAKS)]]


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
