"""The two thresholds, and what a count of parts proves about the rate behind it.

The bounds are those of Clopper and Pearson (Biometrika 26, 1934), one-sided and exact. They hold for
independent parts, and for a threshold just above the k-th highest of n good scores as well, where k was fixed
beforehand: the share of good parts beyond it has the distribution Beta(k, n - k + 1), which gives the same
number as k - 1 of n seen (split conformal prediction: Papadopoulos et al., ECML 2002). After m fresh parts, x
of which were stopped, the share has the distribution Beta(k + x, n + m - k - x + 1), which again gives the same
number as k - 1 + x of n + m, at whatever time one looks. A threshold placed in view of the scores has no bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.record import Bound

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Thresholds:
    """Scores below `t1` are OK, from `t2` on NG, between them REVIEW.

    Attributes:
        t1: Lower threshold.
        t2: Upper threshold, not below `t1`.
        method: How they were chosen, in words.
    """

    t1: float
    t2: float
    method: str


def choose_thresholds(good: Sequence[float], masters: Sequence[float], *, rank: int = 1) -> Thresholds:
    """Choose the thresholds so that no known bad part is released.

    Args:
        good: Scores of good parts, one per part, at least `rank`, finite.
        masters: Scores of known bad parts, finite; may be empty.
        rank: How many good scores, from the highest, the threshold need not clear, plus one; to be fixed before
            the scores are seen.
    """
    above_good = math.nextafter(sorted(good)[-rank], math.inf)
    highest = "the highest good score" if rank == 1 else f"good score number {rank} from the highest"
    if not masters:
        return Thresholds(above_good, above_good, f"T1 = T2 = just above {highest}; no masters")
    lowest_master = min(masters)
    if lowest_master >= above_good:
        between = "between them, REVIEW" + (": no part was seen there" if rank == 1 else "")
        return Thresholds(above_good, lowest_master, f"T1 just above {highest}, T2 = lowest master; {between}")
    method = (
        f"good parts and masters overlap: T1 = lowest master, T2 just above {highest}; the overlap is REVIEW"
    )
    return Thresholds(lowest_master, above_good, method)


def false_call_bound(stopped: int, of: int, *, confidence: float = CONFIDENCE) -> Bound:
    """What `stopped` of `of` good parts prove: at most `bound` are, rounded up to 0.1 per 1,000."""
    bound = math.ceil(upper_limit(stopped, of, confidence) * 10_000) / 10_000
    return Bound(seen=stopped, of=of, bound=bound, confidence=confidence)


def caught_bound(stopped: int, of: int) -> Bound:
    """What `stopped` of `of` masters prove: at least `bound` are, rounded down to 0.1 %."""
    bound = math.floor((1 - upper_limit(of - stopped, of, CONFIDENCE)) * 1000) / 1000
    return Bound(seen=stopped, of=of, bound=bound, confidence=CONFIDENCE)


def upper_limit(seen: int, of: int, confidence: float) -> float:
    """The smallest rate at which so few as `seen` of `of` are no more likely than 1 - `confidence`.

    Args:
        seen: Number of parts that did, 0 to `of`.
        of: Number of independent parts, at least 1.
        confidence: Between 0 and 1.

    Raises:
        ValueError: A number is out of range.
    """
    if not 0 <= seen <= of or of < 1 or not 0 < confidence < 1:
        raise ValueError(f"no limit for {seen} of {of} at confidence {confidence}")
    if seen == of:
        return 1.0
    low, high = seen / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(seen, of, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def parts_needed(rate: float, *, stopped: int, confidence: float = CONFIDENCE) -> int:
    """How many good parts, `stopped` of them stopped, prove that at most `rate` are stopped."""
    low, high = stopped, stopped + 1
    while _at_most(stopped, high, rate) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _at_most(stopped, middle, rate) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(seen: int, of: int, rate: float) -> float:
    """Probability of at most `seen` of `of` when each does so at `rate` (binomial distribution)."""
    if rate >= 1:
        return 0.0
    log_rate, log_rest, log_all = math.log(rate), math.log1p(-rate), math.lgamma(of + 1)
    return math.fsum(
        math.exp(log_all - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * log_rate + (of - k) * log_rest)
        for k in range(seen + 1)
    )
