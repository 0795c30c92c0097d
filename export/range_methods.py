"""From how far an activation reaches to the range that INT8 shall keep: five methods.

max_1.25    the largest value with room for what is stranger than the pictures
max         the largest value
percentile  what 99.99 % of the values of each picture stay below
entropy     least loss of information (Kullback-Leibler; Migacz, "8-bit inference with TensorRT", GTC 2017)
mse         least mean squared error
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from kenpin.export.ranges import BINS, Reach

# Of the encoder's activations, above what good parts with drawn defects reach.
HEADROOM = 1.25
LEVELS = 128
_ENTROPY_STRIDE = 16
_SHARES = tuple(share / 100 for share in range(10, 126))


def by_mse(reach: Reach) -> float:
    """The range with the least mean squared error of 127 steps, among shares of the largest value."""
    middle = (np.arange(BINS) + 0.5) / BINS

    def error(share: float) -> float:
        step = share / (LEVELS - 1)
        # Within the range the error is spread evenly over a step; what rounds to zero errs by itself.
        inside = np.where(middle < step / 2, middle**2, step**2 / 12)
        return float((np.where(middle <= share, inside, (middle - share) ** 2) * reach.counts).sum())

    return min(_SHARES, key=error) * reach.largest


def by_entropy(reach: Reach) -> float:
    """The range whose 128 levels tell the values apart with the least loss of information."""
    counts = reach.counts.copy()
    # Exact zeros of a Relu need no level of their own.
    counts[0] = counts[1]
    kept = min(range(LEVELS, BINS + 1, _ENTROPY_STRIDE), key=lambda bins: _divergence(counts, bins))
    return kept / BINS * reach.largest


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    """Kullback-Leibler divergence of the first bins, the rest clipped into the last, from their 128 levels."""
    inside = counts[:bins]
    true = inside.copy()
    true[-1] += counts[bins:].sum()
    level = np.arange(bins) * LEVELS // bins
    total = np.bincount(level, inside, minlength=LEVELS)
    used = np.bincount(level, inside > 0, minlength=LEVELS)
    coarse = np.where(inside > 0, (total / np.maximum(used, 1))[level], 0)
    if not coarse.any():
        return np.inf
    p, q = true / true.sum(), np.maximum(coarse / coarse.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


METHODS: Mapping[str, Callable[[Reach], float]] = MappingProxyType(
    {
        f"max_{HEADROOM}": lambda reach: HEADROOM * reach.largest,
        "max": lambda reach: reach.largest,
        "percentile": lambda reach: reach.percentile,
        "entropy": by_entropy,
        "mse": by_mse,
    }
)


# They clip nothing that was seen. Real defects go beyond drawn ones, and clipped ones score too low.
WHOLE = (f"max_{HEADROOM}", "max")


def ranges_by(method: str, reaches: Mapping[str, Reach]) -> dict[str, float]:
    """Range of each activation by one of METHODS."""
    return {name: METHODS[method](reach) for name, reach in reaches.items()}
