"""Intervals of the pixel figures, from counts: a map is binned once, so that a resample costs one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kenpin.train.metrics import Bools, Floats, regions_of

# Shares of good pixels above each edge: close together where false positive rates are small.
_RATES = np.concatenate([np.geomspace(1e-5, 1, 500), [1.0]])


@dataclass(frozen=True)
class PixelCounts:
    """What resampling needs of N maps: how much of each lies above each of B falling edges.

    Attributes:
        good: Number of good pixels, (N, B).
        defective: Number of defective pixels, (N, B).
        overlap: Sum over a picture's defect regions of their share, (N, B).
    """

    good: Floats
    defective: Floats
    overlap: Floats


def count_pixels(maps: Floats, masks: Bools) -> PixelCounts:
    """Count maps (N, H, W) with masks (N, H, W), at least one good pixel among them."""
    edges = np.quantile(maps[~masks], 1 - _RATES, method="lower")
    edges[-1] = min(maps.min(), edges[-1])
    pairs = list(zip(maps, masks, strict=True))
    return PixelCounts(
        np.stack([_above(m[~k], edges) for m, k in pairs]),
        np.stack([_above(m[k], edges) for m, k in pairs]),
        np.stack([_overlap(m, k, edges) for m, k in pairs]),
    )


def pixel_intervals(
    maps: Floats, masks: Bools, *, groups: Sequence[str], rounds: int = 500
) -> dict[str, tuple[float, float]]:
    """95 % intervals over resampled groups: `pixel_auroc`, `aupro_30` and `aupro_05`, low and high each.

    The bins shift an end by less than a thousandth or so, far less than it is wide.

    Args:
        maps: Anomaly maps (N, H, W).
        masks: Defect masks (N, H, W), not all of them empty.
        groups: Physical part of each picture, (N,)
        rounds: Number of resamples.
    """
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), rounds)
    figures = resampled_figures(count_pixels(maps, masks), draws[:, inverse].astype(np.float64))
    ends = {name: np.percentile(values, (2.5, 97.5)) for name, values in figures.items() if len(values)}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def resampled_figures(counts: PixelCounts, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The three figures of each resample that has a defect.

    Args:
        counts: Of N maps.
        weights: How often each picture was drawn, (R, N).
    """
    good, defective, overlap = (weights @ part for part in (counts.good, counts.defective, counts.overlap))
    usable = (defective[:, -1] > 0) & (good[:, -1] > 0)
    rates, caught, covered = (_to_one(part[usable]) for part in (good, defective, overlap))
    return {
        "pixel_auroc": np.trapezoid(caught, rates, axis=1) + rates[:, 0] * caught[:, 0] / 2,
        "aupro_30": _area_up_to(0.3, rates, covered),
        "aupro_05": _area_up_to(0.05, rates, covered),
    }


def _above(values: Floats, edges: Floats) -> Floats:
    """How many values lie at or above each of the falling edges, (B,)."""
    return len(values) - np.searchsorted(np.sort(values), edges, side="left").astype(np.float64)


def _overlap(anomaly: Floats, mask: Bools, edges: Floats) -> Floats:
    shares = [_above(region, edges) / len(region) for region in regions_of(anomaly, mask)]
    return np.sum(shares, axis=0) if shares else np.zeros(len(edges))


def _to_one(sums: Floats) -> Floats:
    """Sums (R, B) that grow along the row, as shares of the row's last."""
    return sums / sums[:, -1:]


def _area_up_to(limit: float, rates: Floats, covered: Floats) -> NDArray[np.float64]:
    grid = np.linspace(0, limit, 200)
    curves = [np.interp(grid, rate, cover) for rate, cover in zip(rates, covered, strict=True)]
    return np.array([np.trapezoid(curve, grid) / limit for curve in curves])
