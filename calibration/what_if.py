"""What other thresholds would have made of the parts of the last days. Nothing is changed by looking.

Every part's score is stored, so the answer is exact for what was scored. What it cannot know is what the parts
were: that is known only of those that somebody looked at, and of masters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kenpin.calibration.review import Answer, Reviewed
from kenpin.calibration.stored import HOUR_MS, first_since
from kenpin.edge_runtime.database import reading

VERDICTS = ("OK", "REVIEW", "NG")
_LISTED = 4
_ROW = np.dtype([("score", np.float64), ("seq", np.int64), ("hour", np.int64)])


@dataclass(frozen=True)
class Limits:
    """A pair of thresholds: scores below `t1` are OK, from `t2` on NG, between them REVIEW."""

    t1: float
    t2: float


@dataclass(frozen=True)
class History:
    """Scores that one bundle gave.

    Attributes:
        scores: Lowest first, float64, shape (N,).
        seqs: Numbers of the parts, in the same order, int64, shape (N,).
        hours: In how many hours parts came.
    """

    scores: NDArray[np.float64]
    seqs: NDArray[np.int64]
    hours: int


@dataclass(frozen=True)
class Change:
    """Parts of which the station would say something else.

    Attributes:
        before: Verdict by the thresholds in force.
        after: Verdict by the others.
        parts: How many.
        seqs: Numbers of some of them.
    """

    before: str
    after: str
    parts: int
    seqs: Sequence[int]


@dataclass(frozen=True)
class Outcome:
    """What a pair of thresholds makes of the parts.

    Attributes:
        parts: Number of parts by verdict.
        review_per_hour: Parts for the review bench in an hour with parts.
        changes: What differs from the thresholds in force.
        good: Number of parts that people said are good.
        good_stopped: How many of those would be REVIEW or NG: false calls.
        good_ng: How many of those would be NG.
        bad: Number of parts that people said are bad.
        bad_passed: Those of them that would be OK: escapes.
        masters_passed: Masters of the calibration that would be OK.
    """

    parts: Mapping[str, int]
    review_per_hour: float
    changes: Sequence[Change]
    good: int
    good_stopped: int
    good_ng: int
    bad: int
    bad_passed: Sequence[Answer]
    masters_passed: Sequence[str]


@dataclass(frozen=True)
class Known:
    """Parts that are known to be good or bad.

    Attributes:
        good: What people said is good, with a score of this bundle.
        bad: What people said is bad.
        masters: Score of each master of the calibration.
    """

    good: Sequence[Answer]
    bad: Sequence[Answer]
    masters: Mapping[str, float]


def read_history(database: Path, bundle_sha256: str, *, since_ms: int) -> History:
    """Read the scores that a bundle gave; of 600,000 parts this takes a second or two.

    Parts that were shown in a calibration or a shift check are left out.

    Args:
        database: The station's database.
        bundle_sha256: The bundle; scores of different bundles have nothing in common.
        since_ms: UTC, milliseconds since 1970.

    Raises:
        StoreError: The database cannot be read.
    """
    sql = """SELECT score, seq, ts_ms / ? FROM part
        WHERE seq >= ? AND bundle_sha256 = ? AND score IS NOT NULL AND cause <> 'calibrating'"""
    with reading(database) as connection:
        first = first_since(connection, since_ms)
        found = connection.execute(sql, (HOUR_MS, first, bundle_sha256))
        rows: NDArray[Any] = np.fromiter(found, dtype=_ROW)
    order = np.argsort(rows["score"], kind="stable")
    return History(rows["score"][order], rows["seq"][order], len(np.unique(rows["hour"])))


def known_parts(reviewed: Iterable[Reviewed], bundle_sha256: str, masters: Mapping[str, float]) -> Known:
    """What is known of the parts that a bundle scored; where people do not agree, nothing is.

    Args:
        reviewed: What people looked at.
        bundle_sha256: The bundle.
        masters: Score of each master of the calibration.
    """
    agreed = [part.agreed for part in reviewed if part.agreed]
    scored = [a for a in agreed if a.bundle_sha256 == bundle_sha256 and a.score is not None]
    good = [answer for answer in scored if answer.label == "good"]
    return Known(good, [answer for answer in scored if answer.label == "bad"], masters)


def what_if(history: History, known: Known, *, now: Limits, then: Limits) -> Outcome:
    """What thresholds make of the parts.

    Args:
        history: The scores.
        known: Parts that are known to be good or bad.
        now: The thresholds in force.
        then: The ones that are tried.
    """
    ends = _ends(history, then)
    parts = dict(zip(VERDICTS, np.diff(ends).tolist(), strict=True))
    good = np.array([answer.score for answer in known.good], dtype=np.float64)
    return Outcome(
        parts=parts,
        review_per_hour=parts["REVIEW"] / max(history.hours, 1),
        changes=_changes(history, now, then),
        good=len(good),
        good_stopped=int((good >= then.t1).sum()),
        good_ng=int((good >= then.t2).sum()),
        bad=len(known.bad),
        bad_passed=[a for a in known.bad if a.score is not None and a.score < then.t1],
        masters_passed=sorted(name for name, score in known.masters.items() if score < then.t1),
    )


def _ends(history: History, limits: Limits) -> list[int]:
    """Where OK, REVIEW and NG begin in the sorted scores, and where NG ends."""
    inner = np.searchsorted(history.scores, [limits.t1, limits.t2], side="left")
    return [0, *inner.tolist(), len(history.scores)]


def _changes(history: History, now: Limits, then: Limits) -> list[Change]:
    before, after = _ends(history, now), _ends(history, then)
    found = []
    for old in range(3):
        for new in range(3):
            first, last = max(before[old], after[new]), min(before[old + 1], after[new + 1])
            if old != new and first < last:
                some = history.seqs[first:last][:: max(1, (last - first) // _LISTED)][:_LISTED]
                found.append(Change(VERDICTS[old], VERDICTS[new], last - first, some.tolist()))
    return found
