"""Light and focus of parts against what the sign-off allows: before scores drift, these do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kenpin.quality_limits import QualityLimits
from kenpin.stability import Word

MEASURES = ("light", "focus")
_TAILS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Allowed:
    """What the sign-off allows, in shares of `unit`.

    Attributes:
        low: Frames below are refused.
        high: Frames above are refused; infinite = none are.
        unit: What counts as 1, as on the Line page: the usual light, and the least focus.
    """

    low: float
    high: float
    unit: float


@dataclass(frozen=True)
class Spread:
    """Where a measure of some frames lies, in shares of the unit.

    Attributes:
        low: One in twenty is lower.
        middle: Half of them are lower.
        high: One in twenty is higher.
        word: `steady`, `moved` (more than one in twenty is refused), `drifted` (most are) or `unknown`
            without frames.
    """

    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0
    word: Word = "unknown"


def allowed_by(limits: QualityLimits | None) -> Mapping[str, Allowed]:
    """What is allowed, by the name of the measure; empty where nothing was learned.

    Args:
        limits: Of the calibration record.
    """
    if limits is None:
        return {}
    low, high = limits.light
    usual, least = max(1.0, math.sqrt(low * high)), max(1e-9, limits.focus)
    return {
        "light": Allowed(low / usual, high / usual, usual),
        "focus": Allowed(limits.focus / least, math.inf, least),
    }


def spread_of(values: NDArray[np.float64], allowed: Allowed) -> Spread:
    """Where the values lie.

    Args:
        values: Of one measure, finite, shape (N,).
        allowed: What the sign-off allows.
    """
    if not len(values):
        return Spread()
    low, middle, high = (float(v) for v in np.quantile(values / allowed.unit, _TAILS))
    word: Word = "moved" if low < allowed.low or high > allowed.high else "steady"
    return Spread(low, middle, high, word if allowed.low <= middle <= allowed.high else "drifted")
