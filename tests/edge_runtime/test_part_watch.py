"""What the parts say to the alarms."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.part_watch import PartWatch
from kenpin.stability import population_stability


@pytest.fixture
def watch() -> PartWatch:
    return PartWatch(timeout_ms=100)


def part(
    workshop: Any, verdict: Verdict = Verdict.OK, *, score: float = 20.0, cause: str = "", good: int = 60
) -> Part:
    scored = Scored(score, (score,) * 3, np.zeros((2, 2), np.float32))
    scores = {f"{k}.png": 10.0 + k / 3 for k in range(good)}
    return Part(
        part_id="p",
        camera="c",
        session_id="s",
        ts_ms=0,
        captured_ns=time.monotonic_ns(),
        decision=Decision(verdict, cause, None if cause else scored, cause),
        record=workshop.calibrated.model_copy(update={"good": scores}),
    )


def held(cause: str) -> Part:
    return Part("p", "c", "s", 0, 0, Decision(Verdict.NO_DECISION, f"because of {cause}", cause=cause))


@pytest.fixture
def workshop(workshop: Any) -> Any:
    workshop.calibrated = workshop.record(workshop.bundle())
    return workshop


def test_a_rate_of_few_parts_cannot_be_told(workshop: Any, watch: PartWatch) -> None:
    for _ in range(49):
        watch.saw(part(workshop, Verdict.NG))
    assert watch.values()["ng_rate"] == [None]
    watch.saw(part(workshop))
    assert watch.values()["ng_rate"] == [49 / 50]


def test_the_rate_looks_back_on_a_hundred_decided_parts(workshop: Any, watch: PartWatch) -> None:
    for _ in range(100):
        watch.saw(part(workshop, Verdict.NG))
    for _ in range(90):
        watch.saw(part(workshop))
    for _ in range(20):
        watch.saw(part(workshop, Verdict.NO_DECISION, cause="black"))
    assert watch.values()["ng_rate"] == [0.1]


def test_a_run_of_ng_ends_with_a_part_that_is_not(workshop: Any, watch: PartWatch) -> None:
    for _ in range(3):
        watch.saw(part(workshop, Verdict.NG))
    watch.saw(part(workshop, Verdict.MISSED, cause="source"))  # says nothing of the parts
    assert watch.values()["ng_consecutive"] == [3.0]
    watch.saw(part(workshop, Verdict.REVIEW))
    assert watch.values()["ng_consecutive"] == [0.0]


def test_a_run_of_ng_that_ended_between_two_looks_is_told_once(workshop: Any, watch: PartWatch) -> None:
    """A line of ten parts a second has a run of five and a good part behind it within one look."""
    for verdict in (*[Verdict.NG] * 5, Verdict.OK, Verdict.NG):
        watch.saw(part(workshop, verdict))
    assert [watch.values()["ng_consecutive"] for _ in range(2)] == [[5.0], [1.0]]


def test_five_parts_in_a_row_without_a_decision_say_why_none_is_judged(workshop: Any, watch: PartWatch) -> None:
    """Until one is, or the station itself holds them."""
    for judged in (part(workshop), part(workshop).withheld("late", "deadline"), held("masters_due")):
        for cause in ("score", *["engine"] * 3):
            watch.saw(held(cause))
        assert watch.unjudged == ("", "")
        watch.saw(held("source"))
        assert watch.unjudged == ("score", "because of score")
        watch.saw(judged)
        assert watch.unjudged == ("", "")


@pytest.mark.parametrize("cause", ["store", "deadline", "output"])
def test_good_parts_that_are_not_released_do_not_leave_bad_ones_alone(
    workshop: Any, watch: PartWatch, cause: str
) -> None:
    for _ in range(50):
        watch.saw(part(workshop, Verdict.NG))
        watch.saw(part(workshop).withheld("the disk is full", cause))
    values = watch.values()
    assert (values["ng_rate"], values["ng_consecutive"]) == ([0.5], [1.0])


def test_pictures_and_times_are_told_once_per_part(workshop: Any, watch: PartWatch) -> None:
    for cause in ("blurred", "", "source"):
        watch.saw(part(workshop, Verdict.NO_DECISION if cause else Verdict.OK, cause=cause))
    values = watch.values()
    assert values["image_quality"] == [1.0, 0.0, 0.0]
    assert len(values["inference_slow"]) == 1
    values = watch.values()
    assert (values["image_quality"], values["inference_slow"]) == ([], [])


def test_drift_is_told_against_the_calibration(workshop: Any, watch: PartWatch) -> None:
    chance = np.random.default_rng(1)
    for _ in range(499):
        watch.saw(part(workshop, score=float(chance.uniform(10, 30))))
    shown = part(workshop, score=99.0)
    held = Decision(Verdict.NO_DECISION, "masters are due", shown.decision.scored, "masters_due")
    watch.saw(replace(shown, decision=held))  # a master, perhaps
    assert watch.values()["score_drift"] == [None]
    watch.saw(part(workshop, score=20.0))
    (same,) = watch.values()["score_drift"]
    assert same is not None
    assert same < 0.05
    for _ in range(500):
        watch.saw(part(workshop, score=float(chance.uniform(20, 40))))
    (shifted,) = watch.values()["score_drift"]
    assert shifted is not None
    assert shifted > 0.25


def test_a_new_calibration_begins_anew(workshop: Any, watch: PartWatch) -> None:
    for _ in range(500):
        watch.saw(part(workshop))
    watch.saw(part(workshop, good=61))
    assert watch.values()["score_drift"] == [None]


def test_few_good_parts_are_no_measure(workshop: Any, watch: PartWatch) -> None:
    for _ in range(500):
        watch.saw(part(workshop, good=49))
    assert watch.values()["score_drift"] == [None]


def test_pictures_of_few_parts_are_no_measure(workshop: Any, watch: PartWatch) -> None:
    workshop.calibrated = workshop.calibrated.model_copy(update={"good_parts": 49})
    for _ in range(500):
        watch.saw(part(workshop, good=98))
    assert watch.values()["score_drift"] == [None]


def test_the_alarm_measures_as_the_drift_page_does(workshop: Any, watch: PartWatch) -> None:
    scores = np.random.default_rng(2).uniform(18, 40, 500)
    for score in scores:
        watch.saw(part(workshop, score=float(score), good=300))
    good = 10.0 + np.arange(300) / 3
    assert watch.values()["score_drift"] == [population_stability(good, scores).psi]


def test_what_chance_can_do_with_few_good_parts_is_no_drift(workshop: Any, watch: PartWatch) -> None:
    """Of 50 good parts none says much about its fifth of the parts: PSI 0.25 is near, and means nothing."""
    shares = (0.42, 0.28, 0.12, 0.1, 0.08)
    scores = np.repeat(10.0 + np.array([1.0, 4.5, 8.0, 11.0, 15.0]), [round(500 * share) for share in shares])
    found = population_stability(10.0 + np.arange(50) / 3, scores)
    assert 0.25 < found.psi < found.chance
    for score in scores:
        watch.saw(part(workshop, score=float(score), good=50))
    assert watch.values()["score_drift"] == [0.0]
