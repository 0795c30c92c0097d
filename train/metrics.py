"""Figures that decide at the line, and their intervals by bootstrap over physical parts (groups)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Figure = Callable[[Floats, Bools], float]
# Good parts that a limit of a report may stop.
STOPPED_PER_1000 = 10.0


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval.

    Attributes:
        value: The figure itself.
        low: Lower end; NaN where there is too little to tell.
        high: Upper end; NaN as for `low`.
    """

    value: float
    low: float
    high: float


def auroc(scores: Floats, bad: Bools) -> float:
    """Area under the ROC curve: chance that a bad one scores above a good one. NaN with one class only.

    Args:
        scores: Any shape.
        bad: Same shape; true = bad.
    """
    good, defective = np.sort(scores[~bad]), scores[bad]
    if not len(good) or not len(defective):
        return float("nan")
    below = np.searchsorted(good, defective, side="left").mean()
    up_to = np.searchsorted(good, defective, side="right").mean()
    return float((below + up_to) / 2 / len(good))


def limit_at(good: Floats, *, false_calls_per_1000: float) -> float:
    """The lowest limit that stops at most this many of 1,000 good parts; a score at or above it is stopped.

    Args:
        good: Scores of good parts, at least one.
        false_calls_per_1000: 0 to below 1,000.
    """
    allowed = int(len(good) * false_calls_per_1000 / 1000)
    return float(np.nextafter(np.sort(good)[len(good) - 1 - allowed], np.inf))


def escapes_at(scores: Floats, bad: Bools) -> float:
    """Escapes per 1,000 bad parts where at most 10 of 1,000 good parts are stopped."""
    limit = limit_at(scores[~bad], false_calls_per_1000=STOPPED_PER_1000)
    return float((scores[bad] < limit).mean() * 1000)


def false_calls_at(scores: Floats, bad: Bools, *, caught: float = 0.95) -> float:
    """False calls per 1,000 good parts where this share of the bad parts is caught."""
    worst_first = np.sort(scores[bad])[::-1]
    threshold = worst_first[int(np.ceil(caught * len(worst_first))) - 1]
    return float((scores[~bad] >= threshold).mean() * 1000)


def aupro(maps: Floats, masks: Bools, *, limit: float) -> float:
    """Area under the per-region overlap curve up to a false positive rate of `limit`, scaled to 0..1.

    Bergmann et al., "Uninformed Students", CVPR 2020.

    Args:
        maps: Anomaly maps (N, H, W).
        masks: Defect masks (N, H, W).
        limit: Largest false positive rate.
    """
    regions = [np.sort(r) for m, k in zip(maps, masks, strict=True) for r in regions_of(m, k)]
    negatives = np.sort(maps[~masks])
    if not regions or not len(negatives):
        return float("nan")
    rates = np.linspace(0, limit, 200)
    picks = np.clip(((1 - rates) * len(negatives)).astype(int), 0, len(negatives) - 1)
    thresholds = negatives[picks]
    overlap = np.mean([1 - np.searchsorted(r, thresholds, side="right") / len(r) for r in regions], axis=0)
    return float(np.trapezoid(overlap, rates) / limit)


def regions_of(anomaly: Floats, mask: Bools) -> list[Floats]:
    """Values of one map (H, W) in each connected region of its mask, a list of (M,)."""
    if not mask.any():
        return []
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [anomaly[labels == label] for label in range(1, count)]


def bootstrap(figure: Figure, scores: Floats, bad: Bools, *, groups: Sequence[str]) -> Interval:
    """A figure with its 95 % percentile interval over resampled groups.

    Pictures of one part are alike; resampling pictures would make the interval too narrow.

    Args:
        figure: Function of scores and labels.
        scores: (N,)
        bad: (N,)
        groups: Physical part of each picture, (N,)
    """
    return hierarchical_interval(scores[None], bad, groups=groups, figure=figure)


def hierarchical_interval(
    per_seed: Floats, bad: Bools, *, groups: Sequence[str], figure: Figure = auroc, rounds: int = 500
) -> Interval:
    """The mean of a figure over seeds with its 95 % interval over resampled groups and seeds together.

    With three seeds the bootstrap takes their spread for a fifth smaller than it is; more seeds cure that.

    Args:
        per_seed: Scores of the same N pictures by S trainings, (S, N).
        bad: (N,)
        groups: Physical part of each picture, (N,)
        figure: Function of scores (N,) and labels (N,).
        rounds: Number of resamples; those with one class only are left out.
    """
    of_groups, of_seeds = np.random.default_rng(0), np.random.default_rng(1)
    members, seeds = members_of(groups), len(per_seed)
    means = []
    for _ in range(rounds):
        drawn = np.concatenate([members[i] for i in of_groups.integers(0, len(members), len(members))])
        if bad[drawn].any() and not bad[drawn].all():
            values = np.array([figure(scores[drawn], bad[drawn]) for scores in per_seed])
            means.append(values[of_seeds.integers(0, seeds, seeds)].mean())
    value = float(np.mean([figure(scores, bad) for scores in per_seed]))
    low, high = np.percentile(means, (2.5, 97.5)) if means else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def seconds_to(curve: Sequence[tuple[float, float]], target: float) -> float:
    """Seconds of training until a value is reached for the first time; NaN if it never is.

    Args:
        curve: Seconds and value of each measurement, in order of time; between two of them the value is
            taken to change evenly.
        target: The value to reach.
    """
    before: tuple[float, float] | None = None
    for seconds, value in curve:
        if value >= target:
            if before is None:
                return float(seconds)
            share = (target - before[1]) / (value - before[1])
            return float(before[0] + share * (seconds - before[0]))
        before = (seconds, value)
    return float("nan")


def members_of(groups: Sequence[str]) -> list[NDArray[np.intp]]:
    """Indices of the pictures of each group."""
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    in_order = np.argsort(inverse, kind="stable")
    return np.split(in_order, np.cumsum(np.bincount(inverse, minlength=len(names)))[:-1])
