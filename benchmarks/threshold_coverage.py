"""How often the sentence "95 % certain not more than" is right: python -m benchmarks.threshold_coverage [RUNS].

Every scenario draws parts, sets thresholds and counts as `kenpin calibrate` does, and looks whether the true
rate of false calls lies within the bound. Those that kenpin uses must be right in 94.5 % of runs or more; below
them stands what people do instead. Ends with 1 if one of the first kind is not.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from kenpin.calibration.threshold import choose_thresholds, false_call_bound, parts_needed

_RUNS = 20_000
_WANTED = 0.945
_PARTS = 50
_VIEWS, _SHARED = 5, 0.8  # pictures of one part, and the share of their variance that the part gives
_LOTS, _LOT_PARTS, _LOT_SHARE = 60, 5, 0.5
_RATE = 0.01
_LOOKS = 30

Floats = NDArray[np.float64]
Scenario = Callable[[np.random.Generator, int], Iterable[bool]]


def tail(threshold: float) -> float:
    """Share of good parts at or above a threshold; scores are standard normal."""
    return 0.5 * math.erfc(threshold / math.sqrt(2))


@functools.cache
def bound(stopped: int, of: int) -> float:
    """What `kenpin calibrate` says of a count."""
    return false_call_bound(stopped, of).bound


def fitted(parts: int, rank: int = 1) -> Scenario:
    """T1 just above the good score of a rank fixed beforehand."""

    def run(rng: np.random.Generator, runs: int) -> Iterable[bool]:
        for good in rng.standard_normal((runs, parts)):
            t1 = choose_thresholds(good.tolist(), [], rank=rank).t1
            yield tail(t1) <= bound(int((good >= t1).sum()), parts)

    return run


def overlapping(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """T1 at the lowest of twelve masters, some of which look like good parts."""
    for _ in range(runs):
        good, masters = rng.standard_normal(_PARTS), rng.normal(3, 0.7, 12)
        t1 = choose_thresholds(good.tolist(), masters.tolist()).t1
        yield tail(t1) <= bound(int((good >= t1).sum()), _PARTS)


def pictures(rng: np.random.Generator, parts: int) -> Floats:
    """Scores of several pictures of each part, shape (parts, views)."""
    own = rng.standard_normal((parts, _VIEWS)) * math.sqrt(1 - _SHARED)
    return np.asarray(rng.standard_normal((parts, 1)) * math.sqrt(_SHARED) + own)


def part_counts_once(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """Five pictures of each of fifty parts; a part counts by its worst one."""
    # The share of parts whose worst picture is above: of a million parts, which is exact enough.
    worst = np.sort(pictures(rng, 1_000_000).max(axis=1))
    for _ in range(runs):
        t1 = choose_thresholds(pictures(rng, _PARTS).max(axis=1).tolist(), []).t1
        yield 1 - int(np.searchsorted(worst, t1)) / len(worst) <= bound(0, _PARTS)


def every_picture_counts(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """The same pictures, each counted as if it were a part."""
    for _ in range(runs):
        t1 = choose_thresholds(pictures(rng, _PARTS).ravel().tolist(), []).t1
        yield tail(t1) <= bound(0, _PARTS * _VIEWS)


def lots(rng: np.random.Generator) -> Floats:
    """Scores of the parts of several lots, shape (lots, parts)."""
    own = rng.standard_normal((_LOTS, _LOT_PARTS)) * math.sqrt(1 - _LOT_SHARE)
    return np.asarray(rng.standard_normal((_LOTS, 1)) * math.sqrt(_LOT_SHARE) + own)


def lot_counts_once(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """Lots differ; the lot is the group, and counts once."""
    for _ in range(runs):
        t1 = choose_thresholds(lots(rng).max(axis=1).tolist(), []).t1
        yield tail(t1) <= bound(0, _LOTS)


def one_of_each_lot(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """Lots differ; one part of each is drawn."""
    for _ in range(runs):
        t1 = choose_thresholds(lots(rng)[:, 0].tolist(), []).t1
        yield tail(t1) <= bound(0, _LOTS)


def every_part_of_a_lot_counts(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """Lots differ; every part counts."""
    for _ in range(runs):
        t1 = choose_thresholds(lots(rng).ravel().tolist(), []).t1
        yield tail(t1) <= bound(0, _LOTS * _LOT_PARTS)


def one_lot(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """Lots differ; all fifty parts are of one."""
    for _ in range(runs):
        lot = rng.standard_normal() * math.sqrt(_LOT_SHARE)
        good = lot + rng.standard_normal(_PARTS) * math.sqrt(1 - _LOT_SHARE)
        yield tail(choose_thresholds(good.tolist(), []).t1) <= bound(0, _PARTS)


def confirmed_at_any_look(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """T1 fitted to fifty parts; fresh ones count with them, with a look after each, until 10 per 1,000."""
    for good in rng.standard_normal((runs, _PARTS)):
        true_rate = tail(choose_thresholds(good.tolist(), []).t1)
        yield true_rate <= _RATE or not ever_proved(rng, true_rate, _PARTS)


def by_eye_then_fresh(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """T1 below the widest gap; 299 fresh parts are counted once, alone."""
    fresh = parts_needed(_RATE, stopped=0)
    for good in rng.standard_normal((runs, _PARTS)):
        true_rate = tail(below_the_gap(good))
        yield true_rate <= bound(int(rng.binomial(fresh, true_rate)), fresh)


def by_eye(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """T1 just above the bulk, below the widest gap; the bound is that of the count there."""
    for good in rng.standard_normal((runs, _PARTS)):
        t1 = below_the_gap(good)
        yield tail(t1) <= bound(int((good >= t1).sum()), _PARTS)


def slider(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """Just above any of the twenty highest scores, each with the bound of its count; all must be right."""
    for good in rng.standard_normal((runs, _PARTS)):
        highest = np.sort(good)[::-1][:20]
        yield all(tail(float(score)) <= bound(above, _PARTS) for above, score in enumerate(highest))


def looks_until_it_fits(rng: np.random.Generator, runs: int) -> Iterable[bool]:
    """T1 by hand at a true rate just above 10 per 1,000; fresh parts until the count says 10 per 1,000."""
    for _ in range(runs):
        yield not ever_proved(rng, _RATE * 1.000_001, 0)


def below_the_gap(good: Floats) -> float:
    """Just above the score at which the widest gap of the upper half begins."""
    upper = np.sort(good)[len(good) // 2 :]
    return math.nextafter(float(upper[int(np.argmax(np.diff(upper)))]), math.inf)


def ever_proved(rng: np.random.Generator, true_rate: float, counted: int) -> bool:
    """Whether the count of parts proves 10 per 1,000 at any time, up to thirty stopped ones."""
    stopped_at = counted + np.cumsum(rng.geometric(true_rate, _LOOKS))
    return any(int(at) > needed(k) for k, at in enumerate(stopped_at))


@functools.cache
def needed(stopped: int) -> int:
    """Parts that prove 10 per 1,000."""
    return parts_needed(_RATE, stopped=stopped)


KENPIN: dict[str, Scenario] = {
    "50 parts, T1 above the highest": fitted(_PARTS),
    "50 parts, rank 3 fixed beforehand": fitted(_PARTS, rank=3),
    "299 parts, T1 above the highest": fitted(299),
    "T1 at the lowest of 12 masters": overlapping,
    "50 parts x 5 pictures, a part counts once": part_counts_once,
    "60 lots x 5 parts, a lot counts once": lot_counts_once,
    "60 lots, one part of each": one_of_each_lot,
    "fresh parts counted with the 50, a look after each": confirmed_at_any_look,
    "T1 by eye below the widest gap, then 299 fresh parts alone, one look": by_eye_then_fresh,
}
NAIVE: dict[str, Scenario] = {
    "T1 by eye below the widest gap": by_eye,
    "a slider of 20 positions, each with its bound": slider,
    "50 parts x 5 pictures, every picture counts": every_picture_counts,
    "60 lots x 5 parts, every part counts": every_part_of_a_lot_counts,
    "50 parts of one lot": one_lot,
    "T1 by hand, fresh parts until the count fits": looks_until_it_fits,
}


def right(scenario: Scenario, runs: int) -> float:
    """Share of runs in which the sentence is true."""
    return sum(scenario(np.random.default_rng(20261127), runs)) / runs


def main() -> int:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    print(f"| the bound is right in, of {runs:,} runs | |\n|---|---|")
    lowest = 1.0
    for name, scenario in KENPIN.items():
        share = right(scenario, runs)
        lowest = min(lowest, share)
        print(f"| {name} | {share:.1%} |", flush=True)
    for name, scenario in NAIVE.items():
        print(f"| not kenpin: {name} | {right(scenario, runs):.1%} |", flush=True)
    return 0 if lowest >= _WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
