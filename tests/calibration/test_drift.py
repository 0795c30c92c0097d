"""Drift: what is read from the database, and what it is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kenpin.calibration.drift import read_drift
from kenpin.calibration.spread import Spread
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import HOUR_MS, LIMITS, Made, a_day, calibrate, inspect


@pytest.fixture
def folder(tmp_path: Path) -> StationFolder:
    made = StationFolder(tmp_path / "state")
    made.create()
    return made


def test_hours_and_levels_are_read(folder: StationFolder) -> None:
    record = calibrate(folder)
    a_day(folder, shift=0.1)
    drift = read_drift(folder, record, now_ms=now_ms())
    assert sum(hour.parts for hour in drift.hours) == 21 * 60
    assert sum(hour.ng for hour in drift.hours) >= 21
    assert [level.name for level in drift.levels] == ["score", "coarse", "mid", "fine"]
    assert [level.reference for level in drift.levels] == [300, 500, 500, 500]
    assert {level.hour.word for level in drift.levels} == {"drifted"}
    assert drift.hours[2].psi["score"].word == "steady"
    assert sum(drift.levels[0].expected) == pytest.approx(1)
    assert sum(drift.levels[0].found) == pytest.approx(1)


def test_parts_without_a_verdict_count_and_those_that_were_shown_do_not(folder: StationFolder) -> None:
    record = calibrate(folder)
    inspect(folder, [Made(None, cause="blurred"), Made(0.4), Made(0.2), Made(9.0, cause="calibrating")])
    inspect(folder, [Made(0.2, age_ms=25 * HOUR_MS)])
    (hour,) = read_drift(folder, record, now_ms=now_ms() + 60_000).hours[-1:]
    assert (hour.review, hour.ng, hour.no_verdict) == (1, 0, 1)
    assert hour.psi["score"].word == "unknown"


def test_levels_are_compared_with_those_that_the_record_keeps(folder: StationFolder) -> None:
    good = calibrate(folder).good
    levels = {name: (score, score + 1.0, score) for name, score in good.items()}
    record = calibrate(folder, rev=2, good_levels=levels)
    a_day(folder, shift=0.1)
    drift = read_drift(folder, record, now_ms=now_ms())
    assert [level.reference for level in drift.levels] == [300, 300, 300, 300]
    # Every part has scored lower at the level mid than the good parts of the record, from the first hour on.
    assert [drift.hours[2].psi[name].word for name in ("coarse", "mid", "fine")] == [
        "steady",
        "drifted",
        "steady",
    ]
    assert drift.levels[1].expected == drift.levels[0].expected


def test_light_and_focus_are_told_per_hour_against_the_sign_off(folder: StationFolder) -> None:
    record = calibrate(folder, quality=LIMITS)
    ages = [HOUR_MS * hour for hour in (3, 2, 1)]
    dimmed = [Made(None, age, cause="light_drift", light=60.0) for age in ages[2:]]
    dimming = [
        Made(0.2, age, light=light, focus=0.003) for age in ages[1:2] for light in (85.0, 85.0, *[100.0] * 8)
    ]
    inspect(folder, [*(Made(0.2, ages[0]) for _ in range(9)), *dimming, *dimmed])
    drift = read_drift(folder, record, now_ms=now_ms())
    assert [hour.spreads["light"].word for hour in drift.hours] == ["steady", "moved", "drifted"]
    assert [hour.spreads["focus"].word for hour in drift.hours] == ["steady", "drifted", "steady"]
    light, focus = drift.measures
    assert light.hour.middle == pytest.approx(60 / 120)
    assert (light.allowed.low, light.allowed.high) == pytest.approx((90 / 120, 160 / 120))
    assert drift.hours[0].spreads["focus"].middle == pytest.approx(1.5)
    assert focus.allowed.low == 1.0
    assert (light.day.word, focus.day.word) == ("moved", "moved")
    assert drift.word == "drifted"  # by its light, though too few parts have a score


def test_parts_of_an_older_kenpin_have_no_light_and_old_records_no_limits(folder: StationFolder) -> None:
    record = calibrate(folder, quality=LIMITS)
    inspect(folder, [Made(0.2, light=None, focus=None)])
    (hour,) = read_drift(folder, record, now_ms=now_ms()).hours
    assert hour.spreads == {"light": Spread(), "focus": Spread()}
    assert read_drift(folder, record, now_ms=now_ms()).word == "unknown"
    without = read_drift(folder, calibrate(folder, rev=2), now_ms=now_ms())
    assert (without.measures, without.hours[0].spreads) == ([], {})


def test_the_last_hour_is_the_newest_one_with_enough_scores(folder: StationFolder) -> None:
    record = calibrate(folder)
    scores = list(record.good.values())[:60]
    dark = [Made(None, cause="light_drift")] * 60
    inspect(folder, [*(Made(score, 2 * HOUR_MS, has_picture=False) for score in scores), *dark])
    drift = read_drift(folder, record, now_ms=now_ms())
    assert [level.hour.parts for level in drift.levels] == [60, 60, 60, 60]
    assert drift.word == "steady"


def test_pictures_of_one_part_are_not_several_parts(folder: StationFolder) -> None:
    """What 250 pictures would call drift is chance by the 50 parts that they show."""
    random = np.random.default_rng(7)
    good = np.repeat(random.gamma(16, 0.0125, 50), 5)
    inspect(folder, [Made(float(score), has_picture=False) for score in random.gamma(16, 0.0125, 500)])
    words = []
    for rev, parts in enumerate((0, 50), start=1):
        scores = {f"g{k}": float(score) for k, score in enumerate(good)}
        record = calibrate(folder, rev=rev, good=scores, good_parts=parts)
        level = read_drift(folder, record, now_ms=now_ms()).levels[0]
        words.append((level.reference, level.day.word))
    assert words == [(250, "drifted"), (50, "steady")]


def test_parts_from_before_the_clock_was_set_back_are_not_the_last_hour(folder: StationFolder) -> None:
    """For as long as the clock stood ahead, they would be the newest."""
    record = calibrate(folder)
    scores = list(record.good.values())[:60]
    inspect(folder, [Made(score + 0.2, -5 * HOUR_MS, has_picture=False) for score in scores])
    inspect(folder, [Made(score, 0, has_picture=False) for score in scores])
    drift = read_drift(folder, record, now_ms=now_ms())
    assert (drift.word, len(drift.hours)) == ("steady", 1)
