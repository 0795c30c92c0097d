"""Loose parts: where parts do not lie still, it draws a view that shifts and turns each as the others lie.

Only a part that lies alone on a plain background can be found without being told where to look.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from kenpin.alignment import Alignment, Found
from kenpin.cutout import turned_about
from kenpin.errors import ConfigError, OutOfView
from kenpin.frame import Image, read_picture
from kenpin.sight import Sight
from kenpin.train.data import evenly
from kenpin.train.outline import LEAST_SIDE, Outline, outline_of
from kenpin.view import Align, Box, View

_LOOKED_AT = 24
_CANDIDATES = 3  # for the reference picture
_SIDE = 256  # pictures are shrunk to this, the longer side
_SHOWN = 0.95  # of what stands out from the background, in every picture that was looked at
_MARGIN = 1.1  # of the part's longer side: what the view shows
_LONGEST = 3  # times the shorter side of what the view shows
_CUT = 0.8  # of the part's longer side: the least that is looked for
_LOOK_ROUND = 0.06  # of it: how far at the least, to see how parts lie
_ROOM = 0.02  # of it: what the view allows beyond what was seen
_TURNED_DEG = 2.0
_BETTER = 2.0  # times less of a turned part is unlike the reference once it is upright
_LEAST_ROOM = 1.1  # times the farthest shift that was seen
_MANY = 0.25  # share of the parts that lie turned
_SHIFTED = 0.01  # of what the view shows: a tenth of the parts lies farther from the others' usual place
_ROUNDED = 1.0  # pixel of the shrunk picture: places are whole ones, and a small part seems so far off
_LEAST_MATCH = 0.85  # of the upright parts, in the median

_Shapes = Sequence[tuple[float, float]]  # width and height of each part as it is shown, in the shrunk picture


@dataclass(frozen=True)
class Loose:
    """How parts lie, and the view that follows them.

    Attributes:
        sight: The view; `None` where none shows all of each part.
        turned: Share of the parts that lie turned.
        shift_px: How far a tenth of the parts lies from the others' usual place, in pixels of the frame.
    """

    sight: Sight | None
    turned: float
    shift_px: float


@dataclass(frozen=True)
class _Followed:
    """Where all parts are found with one of them as the reference, by shifts alone and with turns."""

    number: int
    shifted: list[Found]
    turned: list[Found]

    @property
    def found(self) -> list[Found]:
        """With turns where many parts are turned."""
        return self.turned if self.turned_share >= _MANY else self.shifted

    @property
    def match(self) -> float:
        return statistics.median(one.match for one in self.found)

    @property
    def turned_share(self) -> float:
        pairs = zip(self.turned, self.shifted, strict=True)
        return statistics.mean(
            abs(one.turn_deg) >= _TURNED_DEG and 1 - other.match >= _BETTER * (1 - one.match)
            for one, other in pairs
        )

    @property
    def max_turn_deg(self) -> int:
        """Twice what was seen."""
        return min(180, math.ceil(2 * max(abs(one.turn_deg) for one in self.found)))

    @property
    def shift(self) -> float:
        places = np.array([(one.right, one.down) for one in self.found])
        return float(np.quantile(np.abs(places - np.median(places, 0)).max(1), 0.9))


def follow_loose(paths: Sequence[Path]) -> Loose | None:
    """Draw a view for parts that lie turned or shifted on a plain background; `None` for others.

    Args:
        paths: Pictures of good parts.

    Raises:
        DataError: A picture cannot be read.
    """
    looked_at = [paths[number] for number in evenly(len(paths), _LOOKED_AT)]
    scales, frames = zip(*(_shrunk(path) for path in looked_at), strict=True)
    if len({(scale, frame.shape) for scale, frame in zip(scales, frames, strict=True)}) > 1:
        return None
    outlined = ((number, outline_of(frame)) for number, frame in enumerate(frames))
    outlines = {number: outline for number, outline in outlined if outline is not None}
    if len(outlines) < 0.9 * len(frames):
        return None
    central = sorted(outlines, key=lambda number: -outlines[number].to_edge)[:_CANDIDATES]
    alone = {number: frames[number] for number in outlines}  # where a part lies otherwise is not known
    tried = [_follow(number, outlines[number], alone) for number in central]
    followed = [one for one in tried if one is not None and one.match >= _LEAST_MATCH]
    loose = None
    for one in sorted(followed, key=lambda one: -one.match):
        outline, scale = outlines[one.number], 1 / scales[0]
        if one.turned_share < _MANY and one.shift <= max(_SHIFTED * outline.side, _ROUNDED):
            return None
        loose = Loose(None, one.turned_share, one.shift * scale)
        for way in _ways(outlines, scale, one, read_picture(looked_at[one.number])):
            sight = _draw(one, scale, *way)
            if sight is not None and all(_shows_all(sight, looked_at[k], outlines[k].mask) for k in outlines):
                return replace(loose, sight=sight)
    return loose


def _shrunk(path: Path) -> tuple[float, Image]:
    image = read_picture(path)
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return scale, np.asarray(small, np.uint8)


def _align(outline: Outline, scale: float, *, shift: float) -> Align | None:
    """How to follow a part that may lie anyhow; `None` where the frame has too little room around it.

    Args:
        outline: The part of the reference picture.
        scale: So many times larger is the frame that it is for.
        shift: The room to leave, in pixels of that frame. What is left besides is given as well.
    """
    part, to_edge = outline.side * scale, outline.to_edge * scale
    coarsest = Align(template=Box(0, 0, *[math.ceil(_MARGIN * part)] * 2), max_shift_px=1).reduction
    margin = coarsest + math.ceil(scale)  # the shrunk frame is known to one of its pixels
    side = math.floor(min(_MARGIN * part, 2 * (to_edge - margin - shift)))
    free = math.floor(to_edge - side / 2) - margin
    if side < max(_CUT * part, LEAST_SIDE) or free < 1:
        return None
    return Align(template=_square(outline, scale, side), max_shift_px=free, max_turn_deg=180)


def _square(outline: Outline, scale: float, side: int) -> Box:
    left, top = outline.x * scale - side / 2, outline.y * scale - side / 2
    return Box(round(left), round(top), side, side)


def _follow(number: int, outline: Outline, frames: Mapping[int, Image]) -> _Followed | None:
    """Look for the part of one frame in all of them; `None` where it is no part to follow."""
    align = _align(outline, 1, shift=_LOOK_ROUND * outline.side)
    if align is None:
        return None
    try:
        still = Alignment(align.model_copy(update={"max_turn_deg": 0}), frames[number], where="")
    except ConfigError:
        return None
    shifted = [still.find(frame) for frame in frames.values()]
    try:
        turning = Alignment(align, frames[number], where="")
    except ConfigError:  # a round part tells no turn
        return _Followed(number, shifted, shifted)
    return _Followed(number, shifted, [turning.find(frame) for frame in frames.values()])


def _ways(
    outlines: Mapping[int, Outline], scale: float, followed: _Followed, image: Image
) -> Iterator[tuple[Image, Outline, _Shapes]]:
    """Reference picture, part and shapes: first little beside it, then a square, which needs less room."""
    outline = outlines[followed.number]
    if followed.max_turn_deg < 180:
        yield image, outline, [(one.wide, one.high) for one in outlines.values()]
    elif outline.is_long:
        turned, straight = _straightened(image, outline, scale)
        yield turned, straight, [one.lying_as(straight) for one in outlines.values()]
    yield image, outline, [(outline.side, outline.side)]


def _draw(followed: _Followed, scale: float, image: Image, outline: Outline, shapes: _Shapes) -> Sight | None:
    """The view itself, with twice the room that was seen; `None` where the frame has hardly as much."""
    part, to_edge = outline.side * scale, outline.to_edge * scale - math.ceil(scale)
    farthest = max(found.farthest for found in followed.found) * scale
    shift = min(math.ceil(2 * farthest + _ROOM * part), math.floor(to_edge - part / 2))
    align = _align(outline, scale, shift=shift)
    if align is None or shift < max(1, _LEAST_ROOM * farthest):
        return None
    update = {
        "max_shift_px": shift,
        "max_turn_deg": float(followed.max_turn_deg),
        "min_match": round(max(0.3, 0.5 * min(found.match for found in followed.found)), 2),
    }
    reference = cv2.imencode(".png", image)[1].tobytes()
    height, width = image.shape[:2]
    view = View(
        frame_size=(width, height),
        roi=_region(outline, scale, shapes, 2 * (to_edge - shift)),
        align=align.model_copy(update=update),
        reference=hashlib.sha256(reference).hexdigest(),
    )
    try:
        return Sight(view, reference, where="")
    except ConfigError:  # in its full size it looks like what is beside it
        return None


def _straightened(image: Image, outline: Outline, scale: float) -> tuple[Image, Outline]:
    """A picture turned so that its part lies along it; as it is where the part is not found in it any more."""
    middle = (outline.x * scale - 0.5, outline.y * scale - 0.5)
    matrix = turned_about(middle, -outline.straight[1])
    turned = cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(turned, outline.mask.shape[::-1], interpolation=cv2.INTER_AREA)
    found = outline_of(np.asarray(small, np.uint8))
    return (image, outline) if found is None else (np.asarray(turned, np.uint8), found)


def _region(outline: Outline, scale: float, shapes: _Shapes, most: float) -> Box:
    """What the view shows: a rectangle for the largest part, as a long one would be small in a square.

    Args:
        outline: The part of the reference picture.
        scale: So many times larger is the frame.
        shapes: Width and height of each part as it is shown, in the shrunk picture.
        most: The longest side for which the frame has room, in its pixels.
    """
    wide, high = np.max(shapes, 0) * scale + (_MARGIN - 1) * outline.side * scale
    least = max(wide, high) / _LONGEST
    wide, high = (math.floor(min(max(side, least), most)) for side in (wide, high))
    return Box(round(outline.x * scale - wide / 2), round(outline.y * scale - high / 2), wide, high)


def _shows_all(sight: Sight, path: Path, mask: Image) -> bool:
    """Whether all that stands out in a picture is looked at: another part beside it would pass uninspected."""
    image = read_picture(path)
    large = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    try:
        shown = sight.take_mask(np.dstack([large] * 3), sight.take(image).cutout)
    except OutOfView:
        return False
    return bool(np.count_nonzero(shown[..., 0]) >= _SHOWN * np.count_nonzero(large))
