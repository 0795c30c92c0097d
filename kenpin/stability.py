"""The population stability index (PSI): whether scores still lie as those of the calibration do.

The one definition, for the alarm of the station and for the Drift page. The index is the sum of (p - q) ln(p
/ q) over bins that held equal shares of the reference. Between two samples of the same parts it is not 0:
with B bins, PSI / (1/n + 1/m) has about the chi-squared distribution with B - 1 degrees of freedom (Yurdakul,
"Statistical Properties of Population Stability Index", 2018). So the customary 0.1 and 0.25 (N. Siddiqi,
"Credit Risk Scorecards", 2006) say little by themselves where parts are few: of calibrations with 50 good
parts, one in eighty is beyond 0.25 with nothing changed, and may stay so, as its good parts stay. A
difference counts only beyond them and beyond what chance does once in a thousand times; and a large reference
gets more bins, which see more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ENOUGH = 50
SMALL, LARGE = 0.1, 0.25
_BINS = 10
_PER_BIN = (
    10  # of a small reference: with fewer in a bin its border is chance, and the distribution no longer holds
)
_Z_999 = 3.0902

Word = Literal["steady", "moved", "drifted", "unknown"]


@dataclass(frozen=True)
class Psi:
    """How far a sample is from a reference.

    Attributes:
        psi: The index; 0 where too few parts are known.
        chance: What it stays below in 999 of 1,000 cases when nothing has changed.
        parts: Size of the sample.
        word: `steady`, `moved` (above 0.1), `drifted` (above 0.25), or `unknown` with too few parts.
    """

    psi: float
    chance: float
    parts: int
    word: Word

    @property
    def beyond_chance(self) -> float:
        """The index, or 0 where chance alone could be as large."""
        return self.psi if self.psi > self.chance else 0.0


def population_stability(reference: NDArray[np.float64], sample: NDArray[np.float64], *, parts: int = 0) -> Psi:
    """How far a sample is from a reference.

    Args:
        reference: Scores, finite, shape (N,).
        sample: Scores, finite, shape (M,).
        parts: How many parts the reference shows: pictures of one part are alike; 0 = N.
    """
    n, m = parts or len(reference), len(sample)
    if n < ENOUGH or m < ENOUGH:
        return Psi(0.0, 0.0, m, "unknown")
    edges = bin_edges(reference, parts=n)
    expected, found = _smoothed(reference, edges), _smoothed(sample, edges)
    psi = float(((found - expected) * np.log(found / expected)).sum())
    chance = (1 / n + 1 / m) * _chi_squared_999(len(edges))
    word: Word = "steady"
    if psi > max(SMALL, chance):
        word = "drifted" if psi > max(LARGE, chance) else "moved"
    return Psi(psi, chance, m, word)


def bin_edges(reference: NDArray[np.float64], *, parts: int = 0) -> NDArray[np.float64]:
    """Inner borders of bins with equal shares of the reference; fewer than ten where it is small.

    Args:
        reference: Scores, shape (N,).
        parts: How many parts it shows; 0 = N.
    """
    bins = max(2, min(_BINS, (parts or len(reference)) // _PER_BIN))
    return np.unique(np.quantile(reference, np.arange(1, bins) / bins))


def shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values in each bin, 0 to 1.

    Args:
        values: Scores, shape (N,).
        edges: Inner borders, shape (B - 1,).
    """
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return counts / max(len(values), 1)


def _smoothed(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half a part more in each bin, so that an empty one does not make the index infinite."""
    bins = len(edges) + 1
    smoothed: NDArray[np.float64] = (shares(values, edges) * len(values) + 0.5) / (len(values) + 0.5 * bins)
    return smoothed


def _chi_squared_999(freedom: int) -> float:
    """Quantile 0.999 of the chi-squared distribution (Wilson and Hilferty, PNAS 17, 1931); within 4 %."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + _Z_999 * math.sqrt(spread)) ** 3)
