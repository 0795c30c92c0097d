"""Drift: the index against its formula, how often it cries wolf, and what is read from the database."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kenpin.calibration.drift import _chi_squared_999, bin_edges, population_stability, read_drift, shares
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import HOUR_MS, Made, a_day, calibrate, inspect


@pytest.fixture
def folder(tmp_path: Path) -> StationFolder:
    made = StationFolder(tmp_path / "state")
    made.create()
    return made


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


def test_hours_and_levels_are_read(folder: StationFolder) -> None:
    record = calibrate(folder)
    a_day(folder, shift=0.1)
    drift = read_drift(folder, record, now_ms=now_ms())
    assert sum(hour.parts for hour in drift.hours) == 21 * 60
    assert sum(hour.ng for hour in drift.hours) >= 21
    assert [level.name for level in drift.levels] == ["score", "coarse", "mid", "fine"]
    assert [level.reference for level in drift.levels] == [300, 500, 500, 500]
    assert {level.hour.word for level in drift.levels} == {"drifted"}
    assert drift.hours[2].psi.word == "steady"
    assert sum(drift.levels[0].expected) == pytest.approx(1)
    assert sum(drift.levels[0].found) == pytest.approx(1)


def test_parts_without_a_verdict_count_and_those_that_were_shown_do_not(folder: StationFolder) -> None:
    record = calibrate(folder)
    inspect(folder, [Made(None, cause="blurred"), Made(0.4), Made(0.2), Made(9.0, cause="calibrating")])
    inspect(folder, [Made(0.2, age_ms=25 * HOUR_MS)])
    (hour,) = read_drift(folder, record, now_ms=now_ms() + 60_000).hours[-1:]
    assert (hour.review, hour.ng, hour.no_verdict) == (1, 0, 1)
    assert hour.psi.word == "unknown"
