"""All seeds of one recipe on one set, and what is concluded from two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kenpin.train.metrics import (
    Floats,
    Interval,
    auroc,
    escapes_at,
    hierarchical_interval,
    members_of,
    seconds_to,
)
from kenpin.train.outcome import Outcome

_RESAMPLES = 300


@dataclass(frozen=True)
class Arm:
    """All seeds of one recipe on one set.

    Attributes:
        outcomes: One for each seed, at least one.
    """

    outcomes: list[Outcome]

    @property
    def seconds(self) -> float:
        """Median CPU seconds of training."""
        return float(np.median([o.seconds for o in self.outcomes]))

    def auroc(self, which: str) -> Interval:
        """Mean image AUROC over the seeds, `learned` or `complete`, with its interval over seeds and parts."""
        first = self.outcomes[0]
        scores = np.stack([getattr(o, which) for o in self.outcomes])
        return hierarchical_interval(scores, first.bad, groups=first.groups, rounds=_RESAMPLES)

    def aurocs(self, which: str) -> Floats:
        """Image AUROC of each seed."""
        return np.array([auroc(getattr(o, which), o.bad) for o in self.outcomes])

    def mean(self, name: str) -> float:
        """Mean of a figure over the seeds."""
        return float(np.mean([getattr(o, name) for o in self.outcomes]))

    def escapes(self) -> float:
        """Mean escapes per 1,000 where at most 10 of 1,000 good parts are stopped."""
        return float(np.mean([escapes_at(o.complete, o.bad) for o in self.outcomes]))

    def curve(self) -> list[tuple[float, float]]:
        """Mean over the seeds of seconds and AUROC at each point of measurement."""
        points = min(len(o.curve) for o in self.outcomes)
        stacked = np.array([o.curve[:points] for o in self.outcomes]).mean(0)
        return [(float(seconds), float(value)) for seconds, value in stacked]


@dataclass(frozen=True)
class Headline:
    """The hierarchy against one reference on one set.

    Attributes:
        seconds_share: Seconds to the reference's final AUROC, as a share of the reference's seconds; NaN
            where it is never reached.
        points: AUROC, in points, by which it is ahead at the end; both spend the same compute.
    """

    seconds_share: float
    points: Interval


def headline(arm: Arm, reference: Arm) -> Headline:
    """Compare by what is learned alone; the points' interval resamples parts and seeds, paired."""
    seconds, target = reference.curve()[-1]
    return Headline(seconds_to(arm.curve(), target) / seconds, difference(arm, reference))


def difference(arm: Arm, reference: Arm, *, which: str = "learned") -> Interval:
    """Mean difference of AUROC in points, the interval by resampling parts and seeds of both together."""
    first = arm.outcomes[0]
    members = members_of(first.groups)
    pairs = list(zip(arm.outcomes, reference.outcomes, strict=True))
    rng = np.random.default_rng(0)

    def mean(chosen: list[tuple[Outcome, Outcome]], rows: NDArray[np.intp]) -> float:
        bad = first.bad[rows]
        ahead = [auroc(getattr(a, which)[rows], bad) - auroc(getattr(b, which)[rows], bad) for a, b in chosen]
        return 100 * float(np.mean(ahead))

    values = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        if first.bad[rows].any() and not first.bad[rows].all():
            values.append(mean([pairs[i] for i in rng.integers(0, len(pairs), len(pairs))], rows))
    low, high = np.percentile(values, (2.5, 97.5)) if values else (np.nan, np.nan)
    return Interval(mean(pairs, np.arange(len(first.bad))), float(low), float(high))


def arms(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, int], Arm]:
    """Outcomes sorted by set, recipe and number of pictures."""
    names = _short_names({outcome.job.set_name for outcome in outcomes})
    found: dict[tuple[str, str, int], list[Outcome]] = {}
    for outcome in outcomes:
        key = (names[outcome.job.set_name], outcome.job.recipe, outcome.job.pictures)
        found.setdefault(key, []).append(outcome)
    return {key: Arm(several) for key, several in found.items()}


def _short_names(sets: Iterable[str]) -> dict[str, str]:
    """The last part of each path; the whole path where several end alike."""
    found = {name: Path(name).name for name in sets}
    several = Counter(found.values())
    return {name: short if several[short] == 1 else name for name, short in found.items()}
