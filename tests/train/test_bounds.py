"""Intervals of few parts: what nobody can know is not claimed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from kenpin.train.bounds import auroc_interval, clopper_pearson, newcombe, parts_of, rate_interval
from kenpin.train.metrics import Bools, Floats, bootstrap, escapes_at, false_calls_at

Case = tuple[Floats, Bools, list[str]]


def apart(good: int, bad: int, *, pictures: int = 1) -> Case:
    """Parts whose bad ones all score above the good ones, each in some pictures."""
    scores = np.repeat(np.arange(good + bad, dtype=float), pictures)
    return scores, scores >= good, [str(int(score)) for score in scores]


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (0, 20), (1, 1), (2, 8), (20, 20)])
def test_clopper_pearson_is_that_of_scipy(hits: int, count: int) -> None:
    assert clopper_pearson(hits / count, count) == pytest.approx(binomtest(hits, count).proportion_ci())


def test_newcombe_has_a_width_without_overlap_and_is_symmetric() -> None:
    low, high = newcombe(1.0, 5, 50)
    assert 0.7 < low < 0.85
    assert high == 1
    assert newcombe(0.0, 5, 50) == pytest.approx((0, 1 - low), abs=1e-6)
    assert newcombe(1.0, 500, 500)[0] > 0.99


def test_newcombe_ends_where_the_area_found_is_196_deviations_away() -> None:
    low, high = newcombe(0.8, 40, 60)
    for end in (low, high):
        spread = (1 - end) / (2 - end) + end / (1 + end)
        deviation = (end * (1 - end) * (1 + 49 * spread) / 2400) ** 0.5
        assert abs(end - 0.8) / deviation == pytest.approx(norm.ppf(0.975), abs=1e-3)


def test_one_bad_part_that_is_caught_proves_nothing() -> None:
    scores, bad, groups = apart(10, 1)
    escapes = rate_interval(escapes_at, scores, bad, groups=groups, counted=bad)
    assert (escapes.value, escapes.low, escapes.high) == pytest.approx((0, 0, 975))
    for found in (
        auroc_interval(scores, bad, groups=groups),
        rate_interval(false_calls_at, scores, bad, groups=groups, counted=~bad),
    ):
        assert np.isfinite(found.value)
        assert np.isnan([found.low, found.high]).all()


def test_pictures_of_one_part_are_one_part() -> None:
    scores, bad, groups = apart(10, 4, pictures=9)
    assert parts_of(groups, bad) == 4
    assert np.isnan(auroc_interval(scores, bad, groups=groups).low)
    escapes = rate_interval(escapes_at, scores, bad, groups=groups, counted=bad)
    assert escapes.high == pytest.approx(1000 * binomtest(0, 4).proportion_ci().high)


def test_five_parts_that_are_apart_leave_room_below() -> None:
    scores, bad, groups = apart(50, 5)
    assert auroc_interval(scores, bad, groups=groups).low < 0.85


def test_an_interval_is_never_narrower_than_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    bad = np.arange(60) >= 40
    scores, groups = rng.normal(0, 1, 60) + bad, [str(i // 2) for i in range(60)]
    found = rate_interval(escapes_at, scores, bad, groups=groups, counted=bad)
    plain = bootstrap(escapes_at, scores, bad, groups=groups)
    assert found.low <= plain.low <= plain.high <= found.high
