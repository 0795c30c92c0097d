"""Figures that decide at the line, and their intervals by bootstrap over physical parts (groups)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; `low` and `high` equal NaN where there is nothing to resample."""

    value: float
    low: float
    high: float


def auroc(scores: Floats, bad: Bools) -> float:
    """Area under the ROC curve: chance that a bad one scores above a good one. NaN with one class only.

    Args:
        scores: Any shape.
        bad: Same shape; true = bad.
    """
    if bad.all() or not bad.any():
        return float("nan")
    # torchmetrics squashes scores outside 0..1 by a sigmoid, which merges large ones: rank them first.
    ranks = np.unique(scores.ravel(), return_inverse=True)[1].reshape(-1)
    scaled = torch.from_numpy(ranks.astype(np.float64) / max(1, ranks.max()))
    return float(binary_auroc(scaled, torch.from_numpy(bad.ravel().astype(np.int64))))


def escapes_at(scores: Floats, bad: Bools, *, false_calls_per_1000: float = 10.0) -> float:
    """Escapes per 1,000 bad parts where at most this many of 1,000 good parts are stopped."""
    good = np.sort(scores[~bad])
    allowed = int(len(good) * false_calls_per_1000 / 1000)
    threshold = np.nextafter(good[len(good) - 1 - allowed], np.inf)
    return float((scores[bad] < threshold).mean() * 1000)


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
    regions = [np.sort(r) for m, k in zip(maps, masks, strict=True) for r in _regions(m, k)]
    negatives = np.sort(maps[~masks])
    if not regions or not len(negatives):
        return float("nan")
    rates = np.linspace(0, limit, 200)
    picks = np.clip(((1 - rates) * len(negatives)).astype(int), 0, len(negatives) - 1)
    thresholds = negatives[picks]
    overlap = np.mean([1 - np.searchsorted(r, thresholds, side="right") / len(r) for r in regions], axis=0)
    return float(np.trapezoid(overlap, rates) / limit)


def bootstrap(
    figure: Callable[[Floats, Bools], float],
    scores: Floats,
    bad: Bools,
    *,
    groups: Sequence[str],
    rounds: int = 500,
) -> Interval:
    """A figure with its 95 % percentile interval over resampled groups.

    Pictures of one part are alike; resampling pictures would make the interval too narrow.

    Args:
        figure: Function of scores and labels.
        scores: (N,)
        bad: (N,)
        groups: Physical part of each picture, (N,)
        rounds: Number of resamples.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(np.asarray(groups) == g) for g in dict.fromkeys(groups)]
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        if bad[drawn].any() and not bad[drawn].all():
            values.append(figure(scores[drawn], bad[drawn]))
    if not values:
        return Interval(figure(scores, bad), float("nan"), float("nan"))
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval(figure(scores, bad), float(low), float(high))


def _regions(anomaly: Floats, mask: Bools) -> list[Floats]:
    if not mask.any():
        return []
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [anomaly[labels == label] for label in range(1, count)]
