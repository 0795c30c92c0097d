"""What a position of T1 and T2 means for the parts that were shown, and whether it may be signed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.calibration.confirm import WANTED_RATE
from kenpin.calibration.fit import LEAST_GOOD_PARTS, left_above
from kenpin.calibration.scores import best_of_parts, worst_of_parts
from kenpin.calibration.threshold import (
    Thresholds,
    caught_bound,
    choose_thresholds,
    false_call_bound,
    parts_needed,
)
from kenpin.calibration.web.calibrate_parts import Shown
from kenpin.calibration.web.calibrate_run import Run
from kenpin.edge_runtime.decide import judge
from kenpin.record import Bound

NEAR = 8


@dataclass(frozen=True)
class Assessment:
    """What a position means.

    Attributes:
        t1: Scores below are OK.
        t2: Scores from here on are NG.
        is_suggested: Whether this is the position that the rule gives.
        good: Number of good parts.
        stopped: How many of them are stopped, REVIEW or NG.
        as_ng: How many of them are NG.
        masters: Number of masters.
        passing: Names of masters that would be released.
        in_review: How many masters fall between T1 and T2.
        weakest: Name and score of the lowest master that is caught; `None` = none is.
        calls: Upper limit of the rate of good parts stopped; `None` = nothing is proved.
        caught: Lower limit of the rate of bad parts stopped; `None` without masters.
        is_alone: Whether fresh parts alone will count, as a hand, a master, or leaving parts out has placed T1.
        more: How many good parts more, none of them stopped, prove the wanted rate; 0 = proved.
        left: How many of the good parts that were left out the rule's T1 would stop: then nothing is proved.
        parts: Which parts it rests on, and what was said of them, as a digest.
        refusal: Key of the words that say why it may not be signed; empty = it may.
    """

    t1: float
    t2: float
    is_suggested: bool
    good: int
    stopped: int
    as_ng: int
    masters: int
    passing: Sequence[str]
    in_review: int
    weakest: tuple[str, float] | None
    calls: Bound | None
    caught: Bound | None
    is_alone: bool
    more: int
    left: int
    parts: str
    refusal: str

    @property
    def seen(self) -> str:
        """What whoever signs has seen: another one says that somebody has changed something meanwhile."""
        return f"{self.t1!r} {self.t2!r} {self.parts}"


@dataclass(frozen=True)
class Near:
    """A part to look at before signing.

    Attributes:
        seq: Its number.
        score: Its score.
        name: Of the master; empty = shown as good.
        verdict: What the station would say.
    """

    seq: int
    score: float
    name: str
    verdict: str


def suggest(shown: Shown) -> Thresholds:
    """The thresholds as the signed record would choose them; there is at least one good part."""
    good, masters = worst_of_parts(shown.good_scores), best_of_parts(shown.master_scores)
    return choose_thresholds([*good.values()], [*masters.values()])


def limits_of(run: Run, shown: Shown) -> tuple[float, float]:
    """Where T1 and T2 stand: as placed by hand, else as suggested; there is at least one good part."""
    suggested = suggest(shown)
    return (suggested.t1 if run.t1 is None else run.t1, suggested.t2 if run.t2 is None else run.t2)


def assess(shown: Shown, t1: float, t2: float) -> Assessment:
    """Work out what a position means, by the same functions as the signed record.

    Args:
        shown: At least one good part.
        t1: Scores below are OK.
        t2: Scores from here on are NG, not below `t1`.
    """
    fitted = suggest(shown)
    good, masters = worst_of_parts(shown.good_scores), best_of_parts(shown.master_scores)
    fitted_stopped = sum(score >= fitted.t1 for score in good.values())
    left = left_above(worst_of_parts(shown.left_scores), fitted.t1)
    calls = false_call_bound(fitted_stopped, len(good)) if t1 >= fitted.t1 and not left else None
    is_suggested = (t1, t2) == (fitted.t1, fitted.t2)
    is_alone = not is_suggested or fitted_stopped > 0 or left > 0
    caught = sorted((score, name) for name, score in masters.items() if score >= t1)
    as_ng = sum(score >= t2 for score in good.values())
    passing = sorted(name for name, score in masters.items() if score < t1)
    return Assessment(
        t1=t1,
        t2=t2,
        is_suggested=is_suggested,
        good=len(good),
        stopped=sum(score >= t1 for score in good.values()),
        as_ng=as_ng,
        masters=len(masters),
        passing=passing,
        in_review=sum(score < t2 for score, _ in caught),
        weakest=(caught[0][1], caught[0][0]) if caught else None,
        calls=calls,
        caught=caught_bound(len(caught), len(masters)) if masters else None,
        is_alone=is_alone,
        more=_more(None if is_alone else calls),
        left=left,
        parts=_digest(shown),
        refusal="limits_learned" if shown.learned else _refusal(len(good), as_ng, passing),
    )


def nearest(shown: Shown, t1: float, t2: float) -> list[Near]:
    """The highest good parts and the lowest masters, lowest score first: where a wrong label matters."""
    masters = list(shown.masters)[: NEAR // 2]
    good = sorted(shown.good, key=lambda part: part.score)[-(NEAR - len(masters)) :]
    shown_as = [(part, "") for part in good] + [(master.part, master.label.name) for master in masters]
    return [Near(p.seq, p.score, name, judge(p.score, t1, t2).value) for p, name in shown_as]


def _digest(shown: Shown) -> str:
    masters = [(m.part.seq, m.label.name, m.label.type) for m in shown.masters]
    said = repr(([p.seq for p in shown.good], masters, [p.seq for p in shown.left]))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _more(calls: Bound | None) -> int:
    """Without a bound that counts with them, fresh parts alone must prove it."""
    if calls is None:
        return parts_needed(WANTED_RATE, stopped=0)
    return max(parts_needed(WANTED_RATE, stopped=calls.seen) - calls.of, 0)


def _refusal(good: int, as_ng: int, passing: Sequence[str]) -> str:
    if good < LEAST_GOOD_PARTS:
        return "limits_few"
    if passing:
        return "limits_passing"
    return "limits_many" if as_ng > WANTED_RATE * good else ""
