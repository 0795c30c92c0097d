"""Intervals that do not take a few parts for many.

A bootstrap over parts can only repeat what it has seen: where all bad parts of a test were caught, all are
caught in every resample, and the interval has no width, with one bad part as with a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv, ndtri

from kenpin.train.metrics import Bools, Figure, Floats, Interval, auroc, bootstrap

# With fewer parts of a class no interval is given for what rests on where its scores lie.
LEAST_PARTS = 5
UNKNOWN = float("nan")
_Z = float(ndtri(0.975))


def parts_of(groups: Sequence[str], chosen: Bools) -> int:
    """Number of physical parts among the chosen pictures."""
    return len(set(np.asarray(groups)[chosen].tolist()))


def auroc_interval(scores: Floats, bad: Bools, *, groups: Sequence[str]) -> Interval:
    """Image AUROC; the ends of the bootstrap, widened by `newcombe`, NaN with few parts of a class.

    Args:
        scores: (N,)
        bad: (N,)
        groups: Physical part of each picture, (N,)
    """
    parts = parts_of(groups, bad), parts_of(groups, ~bad)
    if min(parts) < LEAST_PARTS:
        return Interval(auroc(scores, bad), UNKNOWN, UNKNOWN)
    found = bootstrap(auroc, scores, bad, groups=groups)
    return _widened(found, newcombe(found.value, *parts))


def rate_interval(
    figure: Figure, scores: Floats, bad: Bools, *, groups: Sequence[str], counted: Bools
) -> Interval:
    """A rate per 1,000; the ends of the bootstrap, widened by `clopper_pearson` for the counted parts.

    NaN with few parts of the other class, which decide where the limit lies.

    Args:
        figure: Function of scores and labels.
        scores: (N,)
        bad: (N,)
        groups: Physical part of each picture, (N,)
        counted: The pictures that the rate counts, those of one class, (N,)
    """
    if parts_of(groups, ~counted) < LEAST_PARTS:
        return Interval(figure(scores, bad), UNKNOWN, UNKNOWN)
    found = bootstrap(figure, scores, bad, groups=groups)
    low, high = clopper_pearson(found.value / 1000, parts_of(groups, counted))
    return _widened(found, (1000 * low, 1000 * high))


def clopper_pearson(share: float, count: int) -> tuple[float, float]:
    """Exact 95 % interval of a share of `count` independent parts (Clopper & Pearson, Biometrika 26, 1934)."""
    hits = share * count
    low = float(betaincinv(hits, count - hits + 1, 0.025)) if hits > 0 else 0.0
    return low, float(betaincinv(hits + 1, count - hits, 0.975)) if hits < count else 1.0


def newcombe(area: float, bad: int, good: int) -> tuple[float, float]:
    """95 % score interval of an AUROC, which has a width also where the classes do not overlap.

    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 25, 2006, method 5.

    Args:
        area: The AUROC.
        bad: Number of bad parts.
        good: Number of good parts.
    """
    return _below(area, bad, good), 1 - _below(1 - area, bad, good)


def _below(area: float, bad: int, good: int) -> float:
    """Lower end: where the area found would be 1.96 standard deviations away."""
    low, high = 0.0, area
    for _ in range(50):
        middle = (low + high) / 2
        if (area - middle) ** 2 > _Z**2 * _variance(middle, bad, good):
            low = middle
        else:
            high = middle
    return low


def _variance(area: float, bad: int, good: int) -> float:
    mean = (bad + good) / 2 - 1
    return area * (1 - area) * (1 + mean * ((1 - area) / (2 - area) + area / (1 + area))) / (bad * good)


def _widened(found: Interval, ends: tuple[float, float]) -> Interval:
    """An interval that reaches at least to `ends`; these alone where the bootstrap gave none."""
    return Interval(found.value, float(np.fmin(found.low, ends[0])), float(np.fmax(found.high, ends[1])))
