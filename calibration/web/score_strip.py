"""The last scores as dots in a small drawing, with T1 and T2 as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.calibration.web.line_parts import PartRow

# In the 800 x 110 of the page; on the right there is room for the words T1 and T2.
_TOP, _BOTTOM = 10, 100
_LEFT, _RIGHT = 8, 756


@dataclass(frozen=True)
class Dot:
    """A part.

    Attributes:
        x: In the drawing.
        y: In the drawing.
        verdict: Of the part.
        part_id: Of the part.
    """

    x: float
    y: float
    verdict: str
    part_id: str


@dataclass(frozen=True)
class Strip:
    """The drawing.

    Attributes:
        dots: The parts, oldest first; one without a score stands at the bottom.
        t1_y: Height of T1; `None` where there are no thresholds.
        t2_y: Height of T2.
    """

    dots: Sequence[Dot]
    t1_y: float | None
    t2_y: float | None


def draw_strip(parts: Sequence[PartRow]) -> Strip:
    """Where everything stands.

    Args:
        parts: Newest first.
    """
    t1, t2 = next(((p.t1, p.t2) for p in parts if p.t1 is not None), (None, None))
    heights = [p.score for p in parts if p.score is not None]
    heights += [value for value in (t1, t2) if value is not None]
    low, high = min(heights, default=0.0), max(heights, default=1.0)
    span = (high - low) or 1.0

    def y_of(value: float | None) -> float:
        share = 0.0 if value is None else (value - low) / span
        return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)

    step = (_RIGHT - _LEFT) / max(59, len(parts) - 1)
    dots = [Dot(round(_RIGHT - k * step, 1), y_of(p.score), p.verdict, p.part_id) for k, p in enumerate(parts)]
    return Strip(dots[::-1], None if t1 is None else y_of(t1), None if t2 is None else y_of(t2))
