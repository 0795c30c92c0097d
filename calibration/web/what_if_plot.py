"""The scores of the last days as bars, with what is known of parts as marks, and the thresholds as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kenpin.calibration.what_if import History, Known, Limits

WIDTH = 800
_TOP, _BOTTOM = 34, 200
_BARS = 80
_MARKS = 60
_MARK_ROWS = 4


@dataclass(frozen=True)
class Scale:
    """What the drawing and the sliders span.

    Attributes:
        low: Score at the left edge.
        high: Score at the right edge; higher ones stand in the last bar.
    """

    low: float
    high: float

    def x_of(self, score: float) -> float:
        """Where a score stands in the drawing."""
        share = (score - self.low) / (self.high - self.low)
        return round(WIDTH * min(max(share, 0.0), 1.0), 1)

    def clamp(self, score: float) -> float:
        """The nearest score within."""
        return min(max(score, self.low), self.high)


@dataclass(frozen=True)
class Bar:
    """A bar, in units of the drawing."""

    x: float
    y: float
    height: float


@dataclass(frozen=True)
class Mark:
    """A part that is known to be good or bad, in units of the drawing."""

    x: float
    y: float
    kind: str
    name: str


@dataclass(frozen=True)
class Plot:
    """The drawing.

    Attributes:
        bars: Numbers of parts, on a logarithmic scale: bad parts are few.
        marks: Known parts.
        now: Where the thresholds in force stand.
        then: Where the ones stand that are tried.
        ticks: Places and scores of the axis.
    """

    bars: Sequence[Bar]
    marks: Sequence[Mark]
    now: tuple[float, float]
    then: tuple[float, float]
    ticks: Sequence[tuple[float, float]]


def scale_of(history: History, now: Limits) -> Scale:
    """What is worth looking at: from the lowest score to well above T2.

    Args:
        history: The scores.
        now: The thresholds in force.
    """
    scores = history.scores
    low = min([now.t1, *scores[:1].tolist()])
    reach = [now.t2 + 0.6 * (now.t2 - low), *(np.quantile(scores, [0.998]).tolist() if len(scores) else [])]
    return Scale(low, max(*reach, low + 1e-6))


def draw(history: History, known: Known, scale: Scale, *, now: Limits, then: Limits) -> Plot:
    """Where everything stands.

    Args:
        history: The scores.
        known: Parts that are known to be good or bad.
        scale: What the drawing spans.
        now: The thresholds in force.
        then: The ones that are tried.
    """
    counts, _ = np.histogram(np.minimum(history.scores, scale.high), _BARS, (scale.low, scale.high))
    heights = (_BOTTOM - _TOP) * np.log1p(counts) / np.log1p(max(int(counts.max()), 1))
    bars = [
        Bar(k * WIDTH / _BARS, round(_BOTTOM - height, 1), round(height, 1))
        for k, height in enumerate(heights.tolist())
        if height
    ]
    return Plot(
        bars=bars,
        marks=_marks(known, scale),
        now=(scale.x_of(now.t1), scale.x_of(now.t2)),
        then=(scale.x_of(then.t1), scale.x_of(then.t2)),
        ticks=[(k * WIDTH / 5, scale.low + k * (scale.high - scale.low) / 5) for k in range(6)],
    )


def _marks(known: Known, scale: Scale) -> Sequence[Mark]:
    """The newest answers, and every master."""
    found = [("good", a.part_id, a.score) for a in known.good[-_MARKS:]]
    found += [("bad", a.part_id, a.score) for a in known.bad[-_MARKS:]]
    found += [("master", name, score) for name, score in known.masters.items()]
    return [
        Mark(min(scale.x_of(score), WIDTH - 8), _TOP + 14 + 18 * (k % _MARK_ROWS), kind, name)
        for k, (kind, name, score) in enumerate(found)
        if score is not None
    ]
