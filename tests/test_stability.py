"""The stability index: against its formula, and how often it cries wolf."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kenpin.stability import _chi_squared_999, bin_edges, population_stability, shares


def test_the_index_is_its_formula() -> None:
    random = np.random.default_rng(5)
    reference, sample = random.normal(size=400), random.normal(0.5, size=300)
    cuts = [-math.inf, *bin_edges(reference), math.inf]
    psi = 0.0
    for low, high in itertools.pairwise(cuts):
        e = (sum(low <= v < high for v in reference) + 0.5) / (400 + 5)
        a = (sum(low <= v < high for v in sample) + 0.5) / (300 + 5)
        psi += (a - e) * math.log(a / e)
    found = population_stability(reference, sample)
    assert found.psi == pytest.approx(psi)
    assert found.word == "drifted"
    assert len(cuts) == 11


@pytest.mark.parametrize("freedom", [1, 4, 9])
def test_the_quantile_is_that_of_chi_squared(freedom: int) -> None:
    assert _chi_squared_999(freedom) == pytest.approx(stats.chi2.ppf(0.999, freedom), rel=0.04)


@pytest.mark.parametrize(("reference", "sample"), [(50, 60), (300, 100), (300, 5000)])
def test_it_seldom_cries_wolf_and_sees_a_shift(reference: int, sample: int) -> None:
    random = np.random.default_rng(7)
    runs = 1000
    words = [
        population_stability(random.gamma(16, 1, reference), random.gamma(16, 1, sample)).word
        for _ in range(runs)
    ]
    assert words.count("steady") >= 0.99 * runs
    moved = population_stability(random.gamma(16, 1, reference), random.gamma(16, 1, sample) + 8)
    assert moved.word == "drifted"


def test_too_few_parts_say_nothing() -> None:
    few, enough = np.zeros(49), np.arange(50.0)
    assert population_stability(few, enough).word == "unknown"
    assert population_stability(enough, few).word == "unknown"


def test_equal_scores_are_no_error() -> None:
    same = np.ones(60)
    assert population_stability(same, same).word == "steady"
    assert shares(same, bin_edges(same)).sum() == pytest.approx(1)


def test_with_few_good_parts_chance_passes_the_customary_limit_and_is_no_drift() -> None:
    random = np.random.default_rng(3)
    found = [population_stability(random.gamma(16, 1, 50), random.gamma(16, 1, 500)) for _ in range(1000)]
    assert sum(psi.psi > 0.25 for psi in found) >= 5
    assert sum(psi.beyond_chance > 0.25 for psi in found) <= 3
    far = population_stability(random.gamma(16, 1, 50), random.gamma(16, 1, 500) + 8)
    assert far.beyond_chance == far.psi > 0.25
