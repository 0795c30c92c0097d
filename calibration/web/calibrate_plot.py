"""The scores as a drawing: good parts as bars, masters as diamonds, T1 and T2 as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.calibration.web.calibrate_parts import Shown

LEFT, RIGHT, BOTTOM = 40.0, 770.0, 250.0
_BINS = 50
_TALLEST = 150.0
_ROWS = 4
_TICKS = 6
_MARGIN = 0.06
_STEPS = 200


@dataclass(frozen=True)
class Plot:
    """Where everything stands, in units of the drawing.

    Attributes:
        low: Score at the left end.
        high: Score at the right end.
        bars: Left, top, width and height of each bar.
        diamonds: Middle, height and name of each master.
        ticks: Place and score of each mark of the axis.
        t1_x: Place of T1.
        t2_x: Place of T2.
        step: By how much an arrow moves a threshold.
    """

    low: float
    high: float
    bars: Sequence[tuple[float, float, float, float]]
    diamonds: Sequence[tuple[float, float, str]]
    ticks: Sequence[tuple[float, float]]
    t1_x: float
    t2_x: float
    step: float


def draw_plot(shown: Shown, t1: float, t2: float) -> Plot:
    """Draw what was shown; the scale is of the scores, so that it stands still while T1 and T2 are moved.

    Args:
        shown: At least one good part.
        t1: Where T1 stands.
        t2: Where T2 stands.
    """
    low, high = _scale(shown)

    def x_of(score: float) -> float:
        share = min(max((score - low) / (high - low), 0.0), 1.0)
        return round(LEFT + share * (RIGHT - LEFT), 1)

    return Plot(
        low,
        high,
        _bars([part.score for part in shown.good], low, high),
        [(x_of(m.part.score), 66 + (k % _ROWS) * 26, m.label.name) for k, m in enumerate(shown.masters)],
        [(x_of(s), s) for s in (low + k * (high - low) / (_TICKS - 1) for k in range(_TICKS))],
        x_of(t1),
        x_of(t2),
        step_of(shown),
    )


def step_of(shown: Shown) -> float:
    """By how much an arrow moves a threshold; there is at least one good part."""
    low, high = _scale(shown)
    return (high - low) / _STEPS


def _scale(shown: Shown) -> tuple[float, float]:
    scores = [part.score for part in shown.good] + [master.part.score for master in shown.masters]
    span = (max(scores) - min(scores)) or max(abs(scores[0]), 1.0)
    return min(scores) - _MARGIN * span, max(scores) + 2 * _MARGIN * span


def _bars(scores: Sequence[float], low: float, high: float) -> list[tuple[float, float, float, float]]:
    counts = [0] * _BINS
    for score in scores:
        counts[min(int((score - low) / (high - low) * _BINS), _BINS - 1)] += 1
    width = (RIGHT - LEFT) / _BINS
    tall = _TALLEST / max(counts)
    return [
        (round(LEFT + k * width + 1, 1), round(BOTTOM - n * tall, 1), round(width - 2, 1), round(n * tall, 1))
        for k, n in enumerate(counts)
        if n
    ]
