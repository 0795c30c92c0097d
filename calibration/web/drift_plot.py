"""The last 24 hours as columns, and the scores now against those of the calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.calibration.drift import HOURS, Drift, Hour, Level, Measure
from kenpin.calibration.stored import HOUR_MS
from kenpin.stability import LARGE, SMALL

WIDTH = 800
_TOP, _BOTTOM = 24, 160
_COLUMN = WIDTH / HOURS
_LARGEST_PSI = 0.6
_LEAST_SHARE = 0.02


@dataclass(frozen=True)
class Column:
    """A bar, in units of the drawing.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: Of the bar.
        height: Of the bar.
        kind: What it shows; a class of the style sheet.
        hour: The hour that it stands for; `None` = it stands for none.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str
    hour: Hour | None = None


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        columns: Its bars.
        lines: Heights of lines across it, with their values.
        ticks: Places of full hours, UTC in milliseconds since 1970.
        dashes: Left edge, height and width of a dash over each column: up to where chance alone could reach, or
            the middle of a measure.
    """

    columns: Sequence[Column]
    lines: Sequence[tuple[float, float]]
    ticks: Sequence[tuple[float, int]]
    dashes: Sequence[tuple[float, float, float]] = ()


def draw_psi(drift: Drift, level: str, *, now_ms: int) -> Chart:
    """The index of each hour with enough parts.

    Args:
        drift: What was found.
        level: Which of the scores.
        now_ms: UTC, milliseconds since 1970.
    """
    columns = []
    dashes = []
    for hour in drift.hours:
        x, psi = _x_of(hour.start_ms, now_ms), hour.psi[level]
        if psi.word != "unknown" and x >= 0:
            columns.append(_column(x, (0.0, psi.psi / _LARGEST_PSI), psi.word, hour))
            dashes.append((columns[-1].x, _y_of(psi.chance / _LARGEST_PSI), columns[-1].width))
    lines = [(_y_of(value / _LARGEST_PSI), value) for value in (SMALL, LARGE)]
    return Chart(columns, lines, _ticks(now_ms), dashes)


def draw_measure(drift: Drift, measure: Measure, *, now_ms: int) -> Chart:
    """Light or focus of each hour: nine in ten frames as a column, the middle one as a dash, limits as lines.

    Args:
        drift: What was found.
        measure: Which one.
        now_ms: UTC, milliseconds since 1970.
    """
    spreads = [(_x_of(h.start_ms, now_ms), h.spreads[measure.name], h) for h in drift.hours]
    shown = [found for found in spreads if found[1].word != "unknown" and found[0] >= 0]
    limits = [v for v in (measure.allowed.low, measure.allowed.high) if math.isfinite(v)]
    bottom, top = _range([*limits, *(v for _, s, _ in shown for v in (s.low, s.high))])
    columns = []
    dashes = []
    for x, spread, hour in shown:
        below, middle, above = ((v - bottom) / (top - bottom) for v in (spread.low, spread.middle, spread.high))
        columns.append(_column(x, (below, above - below), spread.word, hour))
        dashes.append((columns[-1].x, _y_of(middle), columns[-1].width))
    lines = [(_y_of((value - bottom) / (top - bottom)), value) for value in limits]
    return Chart(columns, lines, _ticks(now_ms), dashes)


def draw_stopped(drift: Drift, *, now_ms: int) -> Chart:
    """The share of NG, of REVIEW and of parts without a verdict in each hour, one on top of the other.

    Args:
        drift: What was found.
        now_ms: UTC, milliseconds since 1970.
    """
    stopped = [(h.ng + h.review + h.no_verdict) / h.parts for h in drift.hours]
    largest = max([_LEAST_SHARE, *stopped])
    columns = []
    for hour in drift.hours:
        x, below = _x_of(hour.start_ms, now_ms), 0.0
        for kind, count in (("NG", hour.ng), ("REVIEW", hour.review), ("none", hour.no_verdict)):
            share = count / hour.parts / largest
            if share and x >= 0:
                columns.append(_column(x, (below, share), kind, hour))
            below += share
    lines = [(_y_of(share), share * largest) for share in (0.5, 1.0)]
    return Chart(columns, lines, _ticks(now_ms))


def draw_level(level: Level) -> Chart:
    """The shares of the calibration and of the last hours in each bin, side by side; nothing without bins.

    Args:
        level: What was found.
    """
    if not level.edges:
        return Chart((), (), ())
    largest = max([*level.expected, *level.found, 0.01])
    step = WIDTH / len(level.expected)
    columns = []
    for k, (expected, found) in enumerate(zip(level.expected, level.found, strict=True)):
        columns.append(_bar(k * step + 4, step / 2 - 6, expected / largest, "expected"))
        columns.append(_bar(k * step + step / 2 - 1, step / 2 - 6, found / largest, "found"))
    return Chart(columns, [], [])


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A range around values, with room on both sides: at least so much that a tenth can be seen."""
    low, high = min(values), max(values)
    room = max(0.25 * (high - low), 0.1 * high)
    return max(0.0, low - room), high + room


def _x_of(start_ms: int, now_ms: int) -> float:
    age = now_ms // HOUR_MS - start_ms // HOUR_MS
    return WIDTH - (age + 1) * _COLUMN


def _y_of(share: float) -> float:
    return round(_BOTTOM - min(share, 1.0) * (_BOTTOM - _TOP), 1)


def _column(x: float, span: tuple[float, float], kind: str, hour: Hour) -> Column:
    """A bar that begins at one share of the height and is as high as another."""
    below, share = span
    top, bottom = _y_of(below + share), _y_of(below)
    return Column(round(x + 3, 1), top, round(_COLUMN - 6, 1), round(max(bottom - top, 1.0), 1), kind, hour)


def _bar(x: float, width: float, share: float, kind: str) -> Column:
    top = _y_of(share)
    return Column(round(x, 1), top, round(width, 1), round(_BOTTOM - top, 1), kind)


def _ticks(now_ms: int) -> list[tuple[float, int]]:
    newest = now_ms // HOUR_MS
    return [(WIDTH - (age + 0.5) * _COLUMN, (newest - age) * HOUR_MS) for age in range(HOURS - 2, -1, -3)]
