"""Bounds against scipy and the published table; thresholds that never release a known bad part."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kenpin.calibration.threshold import (
    caught_bound,
    choose_thresholds,
    false_call_bound,
    parts_needed,
    upper_limit,
)

SCORES = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("seen", "of"),
    [(s, n) for n in (1, 5, 12, 50, 299, 3000, 100_000) for s in (0, 1, 2, 5, 40, 2000) if s <= n],
)
def test_upper_limit_is_clopper_pearson(seen: int, of: int) -> None:
    exact = 1.0 if seen == of else float(stats.beta.ppf(0.95, seen + 1, of - seen))
    assert upper_limit(seen, of, 0.95) == pytest.approx(exact, rel=1e-9)


# Good parts -> false calls per 1,000 that cannot be excluded, for 0, 1, 2 and 5 seen.
TABLE = {
    50: (58.2, 91.4, 120.6, 198.8),
    100: (29.5, 46.6, 61.6, 102.3),
    300: (10.0, 15.7, 20.8, 34.7),
    600: (5.0, 7.9, 10.5, 17.4),
    1000: (3.0, 4.7, 6.3, 10.5),
    3000: (1.0, 1.6, 2.1, 3.5),
}


@pytest.mark.parametrize("of", TABLE)
def test_false_call_table(of: int) -> None:
    for seen, per_1000 in zip((0, 1, 2, 5), TABLE[of], strict=True):
        assert false_call_bound(seen, of).bound * 1000 == pytest.approx(per_1000, abs=0.11)


@pytest.mark.parametrize(
    ("of", "all_caught", "one_missed"),
    [(5, 54, 34), (10, 74, 60), (12, 77.9, None), (20, 86, 78), (30, 90, 85), (60, 95, 92)],
)
def test_masters_table(of: int, all_caught: float, one_missed: float | None) -> None:
    assert caught_bound(of, of).bound * 100 == pytest.approx(all_caught, abs=1)
    if one_missed is not None:
        assert caught_bound(of - 1, of).bound * 100 == pytest.approx(one_missed, abs=1)


def test_the_two_sentences_of_the_manual() -> None:
    assert false_call_bound(0, 50).bound == 0.0582
    assert caught_bound(12, 12).bound == 0.779


@given(of=st.integers(1, 2000), data=st.data())
def test_bounds_are_rounded_to_the_unsafe_side(of: int, data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, of))
    exact = upper_limit(seen, of, 0.95)
    assert exact - 1e-12 <= false_call_bound(seen, of).bound < exact + 1e-4 + 1e-12
    lower = 1 - upper_limit(of - seen, of, 0.95)
    assert lower - 1e-3 - 1e-12 < caught_bound(seen, of).bound <= lower + 1e-12


@given(of=st.integers(2, 1000), data=st.data())
def test_bounds_are_monotone(of: int, data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, of - 1))
    assert upper_limit(seen, of, 0.95) < upper_limit(seen + 1, of, 0.95)
    assert upper_limit(seen, of + 1, 0.95) < upper_limit(seen, of, 0.95)
    assert upper_limit(seen, of, 0.9) < upper_limit(seen, of, 0.95)
    assert seen / of < upper_limit(seen, of, 0.95)


@pytest.mark.parametrize("numbers", [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (0, 5, 0.0), (0, 5, 1.0)])
def test_impossible_counts_are_refused(numbers: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="no limit"):
        upper_limit(*numbers)


@pytest.mark.parametrize(("rate", "stopped", "of"), [(0.01, 0, 299), (0.005, 0, 598), (0.001, 0, 2995)])
def test_parts_needed(rate: float, stopped: int, of: int) -> None:
    assert parts_needed(rate, stopped=stopped) == of


@given(stopped=st.integers(0, 20), rate=st.floats(0.002, 0.5))
@settings(max_examples=30)
def test_parts_needed_is_the_smallest_number(stopped: int, rate: float) -> None:
    of = parts_needed(rate, stopped=stopped)
    assert upper_limit(stopped, of, 0.95) <= rate + 1e-12
    if of > stopped + 1:
        assert upper_limit(stopped, of - 1, 0.95) > rate - 1e-12


def test_without_masters_no_good_part_is_stopped() -> None:
    chosen = choose_thresholds([1.0, 3.0, 2.0], [])
    assert chosen.t1 == chosen.t2 == math.nextafter(3.0, math.inf)


def test_masters_above_all_good_parts() -> None:
    chosen = choose_thresholds([1.0, 2.0], [5.0, 4.0])
    assert (chosen.t1, chosen.t2) == (math.nextafter(2.0, math.inf), 4.0)


def test_that_no_part_was_seen_between_the_thresholds_is_said_only_where_it_is_true() -> None:
    good, masters = [1.0, 2.0, 3.0], [5.0]
    assert "no part was seen there" in choose_thresholds(good, masters).method
    chosen = choose_thresholds(good, masters, rank=2)
    assert chosen.t1 < 3.0 < chosen.t2  # a good part was
    assert "seen there" not in chosen.method


def test_overlap_is_the_review_band() -> None:
    chosen = choose_thresholds([1.0, 3.0], [2.0, 4.0])
    assert (chosen.t1, chosen.t2) == (2.0, math.nextafter(3.0, math.inf))
    assert "overlap" in chosen.method


def test_a_master_that_scores_exactly_as_a_good_part_is_stopped() -> None:
    chosen = choose_thresholds([1.0, 2.0], [2.0])
    assert chosen.t1 == 2.0 < chosen.t2


@given(good=st.lists(SCORES, min_size=1), masters=st.lists(SCORES))
def test_no_known_bad_part_is_ever_released(good: list[float], masters: list[float]) -> None:
    chosen = choose_thresholds(good, masters)
    assert chosen.t1 <= chosen.t2
    assert all(score >= chosen.t1 for score in masters)
    assert not any(score >= chosen.t2 for score in good)
    if not masters or max(good) < min(masters):
        assert not any(score >= chosen.t1 for score in good)


@pytest.mark.parametrize("lowest_master", [math.inf, 2.0, 1.0])
def test_the_95_percent_hold(lowest_master: float) -> None:
    """Simulated: how often is the true rate of false calls above the bound? At most 5 % of the time."""
    rng = np.random.default_rng(0)
    runs, parts, wrong = 4000, 50, 0
    masters = [] if math.isinf(lowest_master) else [lowest_master]
    for good in rng.standard_normal((runs, parts)):
        t1 = choose_thresholds(good.tolist(), masters).t1
        true_rate = 0.5 * math.erfc(t1 / math.sqrt(2))
        wrong += true_rate > false_call_bound(int((good >= t1).sum()), parts).bound
    # 5 % of 4000 with four standard deviations to spare.
    assert wrong / runs < 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)
    if not masters:
        assert wrong / runs > 0.05 - 4 * math.sqrt(0.05 * 0.95 / runs)


def test_rank_leaves_the_highest_good_scores_above() -> None:
    chosen = choose_thresholds([4.0, 1.0, 3.0, 2.0], [], rank=3)
    assert chosen.t1 == chosen.t2 == math.nextafter(2.0, math.inf)
    assert "number 3 from the highest" in chosen.method


@pytest.mark.parametrize("rank", [1, 3])
def test_the_95_percent_hold_at_every_look_at_fresh_parts(rank: int) -> None:
    """Simulated: fifty parts set T1, then fresh ones are counted with them until 20 per 1,000 are proved."""
    rng = np.random.default_rng(3)
    runs, parts, rate = 4000, 50, 0.02
    true_rate = rng.beta(rank, parts - rank + 1, runs)
    # Fresh parts up to and including the first, second, third stopped one.
    stopped_at = parts + np.cumsum(rng.geometric(true_rate[:, None], (runs, 20)), axis=1)
    confirmed = np.zeros(runs, bool)
    for more in range(20):
        confirmed |= stopped_at[:, more] > parts_needed(rate, stopped=rank - 1 + more)
    wrong = confirmed & (true_rate > rate)
    assert 0 < confirmed.sum() < runs
    assert wrong.mean() < 0.05
    assert wrong.sum() / confirmed.sum() < 0.05 + 4 * math.sqrt(0.05 * 0.95 / confirmed.sum())
