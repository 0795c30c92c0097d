"""What other thresholds would have made of stored scores, against counting one by one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.calibration.review import Answer, Label, Reviewed
from kenpin.calibration.what_if import History, Known, Limits, known_parts, read_history, what_if
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import BUNDLE, HOUR_MS, Made, inspect

NOBODY = Known((), (), {})
scores = st.integers(0, 20).map(lambda n: n / 10)


def history(values: list[float], hours: int = 1) -> History:
    order = np.argsort(values, kind="stable")
    return History(np.array(values, dtype=np.float64)[order], order + 1, hours)


def verdict(score: float, limits: Limits) -> str:
    return "OK" if score < limits.t1 else "NG" if score >= limits.t2 else "REVIEW"


def answer(label: Label, score: float | None, *, bundle: str = BUNDLE, name: str = "sato") -> Answer:
    return Answer(1, "A-1", 0, "NG", score, bundle, label, False, name, 0, "0" * 64)


@given(st.lists(scores, max_size=40), *[st.tuples(scores, scores).map(sorted)] * 2)
def test_every_part_is_counted_as_the_station_would(
    values: list[float], now: list[float], then: list[float]
) -> None:
    before, after = Limits(*now), Limits(*then)
    outcome = what_if(history(values), NOBODY, now=before, then=after)
    counted = Counter(verdict(v, after) for v in values)
    assert outcome.parts == {word: counted[word] for word in ("OK", "REVIEW", "NG")}
    moved = Counter((verdict(v, before), verdict(v, after)) for v in values)
    wanted = {pair: n for pair, n in moved.items() if pair[0] != pair[1]}
    assert {(c.before, c.after): c.parts for c in outcome.changes} == wanted
    for change in outcome.changes:
        assert change.seqs
        for seq in change.seqs:
            value = values[seq - 1]
            assert (verdict(value, before), verdict(value, after)) == (change.before, change.after)


def test_the_load_is_per_hour_with_parts() -> None:
    outcome = what_if(history([0.4] * 30, hours=5), NOBODY, now=Limits(0.3, 0.5), then=Limits(0.3, 0.5))
    assert outcome.review_per_hour == 6
    assert outcome.changes == []


def test_known_parts_are_false_calls_and_escapes() -> None:
    reviewed = [
        Reviewed((answer("good", 0.4),)),
        Reviewed((answer("good", 0.6),)),
        Reviewed((answer("bad", 0.3),)),
        Reviewed((answer("bad", 0.9), answer("good", 0.9, name="abe"))),
        Reviewed((answer("good", 0.9, bundle="0" * 64),)),
        Reviewed((answer("good", None),)),
    ]
    known = known_parts(reviewed, BUNDLE, {"M-1": 0.34, "M-2": 0.36})
    outcome = what_if(history([]), known, now=Limits(0.3, 0.5), then=Limits(0.35, 0.5))
    assert (outcome.good, outcome.good_stopped, outcome.good_ng) == (2, 2, 1)
    assert (outcome.bad, [a.score for a in outcome.bad_passed]) == (1, [0.3])
    assert outcome.masters_passed == ["M-1"]
    none = what_if(history([]), known, now=Limits(0.3, 0.5), then=Limits(0.3, 0.5))
    assert (none.bad_passed, none.masters_passed) == ([], [])


def test_only_scores_of_the_bundle_and_the_week_are_read(tmp_path: Path) -> None:
    folder = StationFolder(tmp_path)
    folder.create()
    week = 7 * 24 * HOUR_MS
    inspect(folder, [Made(0.1, age_ms=week + HOUR_MS), Made(0.5, age_ms=2 * HOUR_MS), Made(0.4)])
    inspect(folder, [Made(0.6, cause="calibrating"), Made(None, cause="blurred"), Made(0.2)])
    found = read_history(folder.database, BUNDLE, since_ms=now_ms() - week)
    assert found.scores.tolist() == [0.2, 0.4, 0.5]
    assert found.seqs.tolist() == [6, 3, 2]
    assert found.hours == 2
    assert not len(read_history(folder.database, "0" * 64, since_ms=0).scores)


@pytest.mark.parametrize("parts", [0, 1])
def test_hardly_any_parts_are_no_error(parts: int) -> None:
    outcome = what_if(history([0.4] * parts, hours=0), NOBODY, now=Limits(0.3, 0.5), then=Limits(0.5, 0.5))
    assert sum(outcome.parts.values()) == parts
