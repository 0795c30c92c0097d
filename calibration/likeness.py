"""Whether parts that are shown as good look to the model like those that it was trained with.

T1 stands above whatever is shown as good: where that is another product, everything passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

_LEAST_SHOWN = 5
_LEAST_KNOWN = 10  # of fewer the 99th percentile says little
_ENOUGH_TO_DOUBT = 8
_FAR_OUT = 3.0  # quartile distances above the upper quartile (Tukey, Exploratory Data Analysis, 1977)


@dataclass(frozen=True)
class Unlike:
    """Scores that are not those of the parts of the training.

    Attributes:
        middle: Half of the good parts score above it.
        known: 99 % of the good pictures that the training held back score below it.
    """

    middle: float
    known: float


def unlike(scores: Sequence[float], stats: Mapping[str, float]) -> Unlike | None:
    """What tells that the good parts are not like those of the training; `None` where nothing does.

    Args:
        scores: Of the good parts.
        stats: `score_stats` of the bundle's manifest.
    """
    if len(scores) < _LEAST_SHOWN or stats.get("count", 0) < _LEAST_KNOWN:
        return None
    middle, known = median(scores), stats["p99"]
    return Unlike(middle, known) if middle > known + stats["std"] else None


def fence_above(scores: Sequence[float]) -> float:
    """Above it a good part is far from the others and may not be good; infinite where they are too few to tell.

    Args:
        scores: Of the good parts.
    """
    if len(scores) < _ENOUGH_TO_DOUBT:
        return math.inf
    lower, _, upper = quantiles(scores, n=4, method="inclusive")
    return upper + _FAR_OUT * (upper - lower)
