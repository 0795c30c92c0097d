"""Limits of a frame's quality, learned from good parts at the sign-off and signed with the thresholds."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from enum import Enum
from statistics import NormalDist

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from kenpin.quality import Quality, Small, locate

LEAST = 20  # pictures; fewer say too little about how much good ones differ
_INSIDE, _CONFIDENCE = 0.999, 0.95
# Ten minutes at the sign-off do not show a day: no limit is closer than this, in shares of the usual value.
_LIGHT, _COLOUR, _FOCUS, _SHIFT, _CLIPPED = 0.10, 0.05, 0.35, 0.02, 0.005
_MATCH = 0.15
_NO_PLACE = 0.6  # a reference that good parts themselves match worse than this is a texture, which has no place
_BLACK = 0.2  # of the lowest light
WHITE = 255  # no frame has more light, so higher limits are told as this
_WIDEST = 1e6


class Finding(str, Enum):
    """Why a frame cannot be judged."""

    WRONG_SIZE = "wrong_size"
    BLACK = "black"
    OVER_EXPOSED = "over_exposed"
    LIGHT_DRIFT = "light_drift"
    COLOUR_DRIFT = "colour_drift"
    FROZEN = "frozen"
    ABSENT = "absent"
    MISPLACED = "misplaced"
    BLURRED = "blurred"


AS_EMPTY = (Finding.LIGHT_DRIFT, Finding.COLOUR_DRIFT)  # of an empty place, too: it looks otherwise than a part


class QualityLimits(BaseModel):
    """Limits of one camera.

    Attributes:
        pictures: Number of good pictures that they were learned from.
        size: Height and width of a frame; `None` where the pictures had different ones.
        light: Lowest and highest mean grey, 0 to 255.
        colour: Lowest and highest blue over green, then red over green; `None` in records of before colour was
            looked at.
        clipped: Highest share of white pixels.
        focus: Lowest focus.
        reference: The small picture of a usual good part, PNG in base64; empty where parts have no place.
        match: Lowest match with it.
        shift: Largest shift against it, in shares of the longer side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pictures: int = Field(ge=LEAST)
    size: tuple[int, int] | None
    light: tuple[float, float]
    colour: tuple[tuple[float, float], tuple[float, float]] | None = None
    clipped: float
    focus: float
    reference: str = ""
    match: float = -1.0
    shift: float = 1.0

    @model_serializer(mode="wrap")
    def _as_signed(self, usual: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A record of before colour was looked at is signed without."""
        fields: dict[str, object] = usual(self)
        if self.colour is None:
            del fields["colour"]
        return fields

    @property
    def light_told(self) -> str:
        """The lowest and highest light as people read them."""
        low, high = self.light
        return f"{low:.0f} to {min(high, WHITE):.0f}"

    def reference_picture(self) -> Small | None:
        """The small picture of a usual good part; `None` where parts have no place."""
        if not self.reference:
            return None
        data = np.frombuffer(base64.b64decode(self.reference), np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)

    def check(self, seen: Quality, reference: Small | None) -> tuple[Finding, str] | None:
        """Compare a frame with the limits.

        Args:
            seen: What it measures.
            reference: From `reference_picture`.

        Returns:
            What is wrong, and the same in words with the number and the limit; `None` where all is well.
        """
        if self.size is not None and seen.size != self.size:
            return Finding.WRONG_SIZE, f"the frame is {_by(seen.size)} pixels, not {_by(self.size)}"
        found = self._check_light(seen)
        if reference is not None and seen.small.shape == reference.shape:
            found = self._check_place(found, seen, reference)
        if found is None and seen.focus < self.focus:
            found = Finding.BLURRED, f"blurred: focus {seen.focus:.2g}, allowed from {self.focus:.2g}"
        return found

    def _check_light(self, seen: Quality) -> tuple[Finding, str] | None:
        low, high = self.light
        allowed = f"light {seen.light:.0f}, allowed {self.light_told}"
        if seen.light < _BLACK * low:
            return Finding.BLACK, f"black picture: {allowed}"
        if seen.clipped > self.clipped:
            white = f"{seen.clipped:.1%} of the picture is white, allowed {self.clipped:.1%}"
            return Finding.OVER_EXPOSED, f"over-exposed: {white}"
        if not low <= seen.light <= high:
            return Finding.LIGHT_DRIFT, f"{'too dark' if seen.light < low else 'too bright'}: {allowed}"
        for name, ratio, (low, high) in zip(("blue", "red"), seen.colour, self.colour or (), strict=False):
            if not low <= ratio <= high:
                told = f"{name} over green {ratio:.2f}, allowed {low:.2f} to {high:.2f}"
                return Finding.COLOUR_DRIFT, f"another colour: {told}"
        return None

    def _check_place(
        self, found: tuple[Finding, str] | None, seen: Quality, reference: Small
    ) -> tuple[Finding, str] | None:
        if found is not None and found[0] not in AS_EMPTY:
            return found
        place = locate(seen.small, reference)
        match = f"no part, or another one: match {place.match:.2f}, allowed from {self.match:.2f}"
        if found is not None:
            # Light from one side makes a part match less, but not like an empty place.
            is_empty = place.match < min(self.match, _NO_PLACE)
            return (Finding.ABSENT, f"{match}; {found[1]}") if is_empty else found
        if place.match < self.match:
            return Finding.ABSENT, match
        if place.shift > self.shift:
            shift = f"{place.shift:.1%} of the frame, allowed {self.shift:.1%}"
            return Finding.MISPLACED, f"the part lies elsewhere: shifted by {shift}"
        return None


def learn_limits(seen: Sequence[Quality], *, place: bool = True, parts: int = 0) -> QualityLimits | None:
    """Learn limits from good pictures; `None` where there are too few.

    Each limit holds, with 95 % confidence, at least 99.9 % of frames like these: a normal tolerance interval
    (W. G. Howe, Two-sided tolerance limits for normal populations, JASA 64, 1969), of the logarithm for light,
    colour and focus. No limit is closer than a floor, as a day differs more than the ten minutes of a sign-off,
    and none stops a picture that it was learned from.

    Args:
        seen: What good pictures of one camera measure.
        place: Whether parts have a place to keep; they need none where a view follows them.
        parts: How many parts the pictures show: those of one part are alike; 0 = one each.
    """
    if len(seen) < LEAST:
        return None
    count = parts or len(seen)
    factor = _tolerance_factor(count)
    focus = np.log([max(q.focus, 1e-9) for q in seen])
    deep = max(factor * float(focus.std(ddof=1)), -math.log(1 - _FOCUS))
    clipped = np.array([q.clipped for q in seen])
    sizes = {q.size for q in seen}
    limits = QualityLimits(
        pictures=len(seen),
        size=sizes.pop() if len(sizes) == 1 else None,
        light=light_limits([q.light for q in seen], parts=count),
        colour=(
            _around([q.colour[0] for q in seen], _COLOUR, count),
            _around([q.colour[1] for q in seen], _COLOUR, count),
        ),
        clipped=float(max(clipped.mean() + max(factor * clipped.std(ddof=1), _CLIPPED), clipped.max())),
        focus=math.exp(min(focus.mean() - deep, focus.min())),
    )
    if limits.size is None or not place:
        return limits
    return limits.model_copy(update=_learn_place(seen, factor))


def light_limits(light: Sequence[float], *, parts: int = 0) -> tuple[float, float]:
    """Lowest and highest light allowed, as `learn_limits` finds it.

    Args:
        light: Of good pictures, at least one.
        parts: As in `learn_limits`.
    """
    return _around([max(value, 0.1) for value in light], _LIGHT, parts or len(light))


def _around(values: Sequence[float], floor: float, parts: int) -> tuple[float, float]:
    """Tolerance interval of the logarithm, no closer than a floor in shares, with all values inside."""
    logs = np.log(values)
    spread = _tolerance_factor(parts) * float(logs.std(ddof=1)) if len(logs) > 1 else 0.0
    wide = max(spread, math.log(1 + floor))
    # Of two pictures nearly nothing is known: the interval is wider than numbers are.
    high = min(max(logs.mean() + wide, logs.max()), math.log(_WIDEST))
    return math.exp(min(logs.mean() - wide, logs.min())), math.exp(high)


def _learn_place(seen: Sequence[Quality], factor: float) -> dict[str, object]:
    """The reference and how far good parts are from it; nothing where they have no place."""
    reference = np.median([q.small for q in seen], axis=0).astype(np.uint8)
    places = [locate(q.small, reference) for q in seen]
    match = np.array([p.match for p in places])
    if not np.isfinite(match).all() or match.min() < _NO_PLACE:
        return {}
    shift = np.array([p.shift for p in places])
    png = cv2.imencode(".png", reference)[1].tobytes()
    return {
        "reference": base64.b64encode(png).decode(),
        "match": float(min(match.mean() - max(factor * match.std(ddof=1), _MATCH), match.min())),
        "shift": float(max(shift.mean() + max(factor * shift.std(ddof=1), _SHIFT), shift.max())),
    }


def _tolerance_factor(count: int) -> float:
    """Howe's factor; the quantile of chi squared is Wilson's and Hilferty's, within one per cent here."""
    freedom = max(count - 1, 1)
    normal = NormalDist()
    low = normal.inv_cdf(1 - _CONFIDENCE)
    chi2 = freedom * (1 - 2 / (9 * freedom) + low * math.sqrt(2 / (9 * freedom))) ** 3
    return normal.inv_cdf((1 + _INSIDE) / 2) * math.sqrt(freedom * (1 + 1 / count) / chi2)


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
