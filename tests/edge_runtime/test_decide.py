from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.edge_runtime.decide import Decision, Model, Verdict, decide
from kenpin.edge_runtime.engine import Scored
from kenpin.record import CalibrationRecord
from tests.specimens import record

BUNDLE, OTHER = "ab" * 32, "b" * 64
MODEL = Model("lamp-1.0", BUNDLE, "int8")


def scored(score: float, levels: tuple[float, float, float] = (0.0, 0.0, 0.0), hottest: float = 0.0) -> Scored:
    return Scored(score, levels, np.full((2, 2), hottest, np.float32))


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (-5.0, Verdict.OK),
        (math.nextafter(1.0, 0.0), Verdict.OK),
        (1.0, Verdict.REVIEW),
        (math.nextafter(2.0, 0.0), Verdict.REVIEW),
        (2.0, Verdict.NG),
        (1e30, Verdict.NG),
    ],
)
def test_thresholds_belong_to_the_worse_side(score: float, verdict: Verdict) -> None:
    assert decide(scored(score), MODEL, record()).verdict is verdict


def test_equal_thresholds_leave_no_room_for_review() -> None:
    assert decide(scored(1.0), MODEL, record(t2=1.0)).verdict is Verdict.NG


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_no_decision_wherever_it_stands(broken: float) -> None:
    for strange in (scored(broken), scored(0.0, (0.0, broken, 0.0)), scored(0.0, hottest=broken)):
        decision = decide(strange, MODEL, record())
        assert decision.verdict is Verdict.NO_DECISION
        assert (decision.reason, decision.cause) == ("the score is not a finite number", "score")
        assert decision.scored is strange  # what is there is kept, to look into it


def test_the_level_that_is_strangest_is_named() -> None:
    made = [scored(9.0, levels) for levels in ((3, 1, 2), (1, 3, 2), (1, 2, 3))]
    assert [Decision(Verdict.NG, scored=each).level for each in (*made, None)] == ["coarse", "mid", "fine", ""]


def test_each_missing_precondition_is_named() -> None:
    def reason(model: Model | None, judged_by: CalibrationRecord | None) -> str:
        found = scored(0.0)
        decision = decide(found, model, judged_by)
        assert (decision.verdict, decision.cause) == (Verdict.NO_DECISION, "not_ready")
        assert decision.scored is found  # thresholds can be fitted to it
        return decision.reason

    assert reason(None, record()) == "no verified bundle"
    assert reason(MODEL, None) == "not calibrated"
    other = f"calibrated for bundle {16 * 'b'}, but {8 * 'ab'} is active"
    assert reason(MODEL, record(bundle_sha256=OTHER)) == other
    assert reason(MODEL, record(precision="fp32")) == "calibrated for the fp32 model, but the int8 model runs"
    for t1, t2 in ((math.nan, 2.0), (-math.inf, 2.0), (1.0, math.inf), (2.0, 1.0)):
        unchecked = record().model_copy(update={"t1": t1, "t2": t2})
        assert "not usable" in reason(MODEL, unchecked)


number = st.floats(allow_nan=True, allow_infinity=True, width=32)
maybe_model = st.none() | st.builds(
    Model, st.just("m"), st.sampled_from([BUNDLE, OTHER]), st.sampled_from(["int8", "fp32"])
)
maybe_record = st.none() | st.builds(
    # model_copy checks nothing: the decision must not trust that somebody else has.
    lambda **changes: record().model_copy(update=changes),
    bundle_sha256=st.sampled_from([BUNDLE, OTHER]),
    precision=st.sampled_from(["int8", "fp32"]),
    t1=number,
    t2=number,
)


@given(st.tuples(number, number, number, number, number), maybe_model, maybe_record)
def test_there_is_no_way_to_ok_without_every_precondition(
    values: tuple[float, ...], model: Model | None, judged_by: CalibrationRecord | None
) -> None:
    score, coarse, mid, fine, hottest = values
    decision: Decision = decide(scored(score, (coarse, mid, fine), hottest), model, judged_by)
    if decision.verdict is Verdict.OK:
        assert all(math.isfinite(v) for v in values)
        assert model is not None
        assert judged_by is not None
        assert judged_by.bundle_sha256 == model.bundle_sha256
        assert judged_by.precision == model.precision
        assert score < judged_by.t1 <= judged_by.t2 < math.inf
    assert (decision.reason == "") == (decision.verdict is not Verdict.NO_DECISION)
