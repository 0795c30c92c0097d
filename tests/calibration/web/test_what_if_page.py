"""The What-if and the Drift page: what they show is what was counted, and nothing is changed."""

from __future__ import annotations

import re

import pytest

from kenpin.calibration.review import keep_answer
from kenpin.calibration.review_bench import waiting_parts
from kenpin.record import record_in_force
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import HOUR_MS, LIMITS, Made, a_day, calibrate, inspect
from tests.calibration.web.page_station import MakeVisit, Visit


@pytest.fixture
def browser(visit: MakeVisit, folder: StationFolder) -> Visit:
    calibrate(folder)
    inspect(folder, [Made(s) for s in (0.1, 0.2, 0.36, 0.44, 0.9)])
    for part in waiting_parts(folder, [], limit=9):
        label = "bad" if (part.score or 0) > 0.4 else "good"
        keep_answer(folder, part, label, name="sato", is_master=False)  # type: ignore[arg-type]
    return visit()


def figures(text: str) -> list[str]:
    return re.findall(r'<b class="figure[^>]*>([^<]*)</b> /? ?([0-9]*)', text)  # type: ignore[return-value]


def test_a_move_is_told_at_once(browser: Visit) -> None:
    assert "<th></th>" not in browser.get("/what-if").text
    assert figures(browser.get("/what-if").text) == [("1", "1"), ("0", "2"), ("2.0", "")]
    moved = browser.get("/what-if/panel?t1=0.45&t2=0.5").text
    assert figures(moved) == [("0", "1"), ("1", "2"), ("0.0", "")]
    assert re.search(r"REVIEW</b> → <b[^>]*>OK</b>: 2", moved)
    assert "/review/small/3.jpg" in moved


def test_a_master_that_would_pass_is_said(browser: Visit) -> None:
    assert "masters that would be caught: all 2" in browser.get("/what-if").text
    assert "Masters that would be let through: 1" in browser.get("/what-if/panel?t1=0.47").text


def test_without_masters_no_escape_is_no_good_news(visit: MakeVisit, folder: StationFolder) -> None:
    calibrate(folder, masters={})
    inspect(folder, [Made(0.1), Made(0.9)])
    text = visit().get("/what-if").text
    assert "the calibration has no master" in text
    assert "figure ok" not in text


def test_t1_pushes_t2(browser: Visit) -> None:
    text = browser.get("/what-if/panel?t1=0.6").text
    assert "T1 <b>0.6000</b> (0.3500) · T2 <b>0.6000</b> (0.4500)" in text


def test_looking_changes_nothing(browser: Visit, folder: StationFolder) -> None:
    before = folder.records.read_bytes()
    browser.get("/what-if?t1=0.1&t2=0.2")
    assert folder.records.read_bytes() == before


def test_scores_are_kept_in_memory_for_a_while(browser: Visit, folder: StationFolder) -> None:
    first = browser.get("/what-if/panel").text
    inspect(folder, [Made(0.4)])
    assert browser.get("/what-if/panel").text == first


@pytest.mark.parametrize("asked", ["t1=nan", "t2=inf", "t1=x"])
def test_what_is_no_score_is_refused(browser: Visit, asked: str) -> None:
    assert browser.get(f"/what-if?{asked}").status_code == 422


@pytest.mark.parametrize("path", ["/what-if", "/what-if/panel", "/drift", "/review", "/review/near", "/shift"])
def test_without_a_calibration_or_parts_pages_say_so(
    visit: MakeVisit, folder: StationFolder, path: str
) -> None:
    inspect(folder, [])
    assert record_in_force(folder) is None
    assert visit().get(path).status_code == 200
    calibrate(folder)
    assert visit().get(path).status_code == 200


def test_drift_is_shown_per_hour_and_level(visit: MakeVisit, folder: StationFolder) -> None:
    calibrate(folder)
    a_day(folder, shift=0.15)
    text = visit().get("/drift").text
    assert '<div class="state-of drifted">▲▲ DRIFTED</div>' in text
    assert text.count('class="steady" x=') >= 15
    assert 2 <= text.count('class="drifted" x=') <= 4
    assert text.count('class="NG" x=') >= 20
    assert text.count('class="expected" x=') == text.count('class="found" x=') == 10
    assert "first 500 parts since the calibration" in text


def test_with_few_good_parts_nothing_is_compared(visit: MakeVisit, folder: StationFolder) -> None:
    calibrate(folder, good={f"g{k}": 0.2 + 0.001 * k for k in range(49)})
    inspect(folder, [Made(0.2)] * 60)
    text = visit().get("/drift").text
    assert "At least 50 good parts in the calibration are needed" in text
    assert 'class="expected" x=' not in text


@pytest.mark.parametrize("level", ["coarse", "mid", "fine"])
def test_each_level_is_drawn_against_the_record(visit: MakeVisit, folder: StationFolder, level: str) -> None:
    good = calibrate(folder).good
    levels = {name: (score, score - 1.0, score) for name, score in good.items()}
    calibrate(folder, rev=2, good_levels=levels)
    a_day(folder)
    text = visit().get(f"/drift?show={level}").text
    # The good parts of the record lay elsewhere at the level mid.
    drifted, steady = (text.count(f'class="{word}" x=') for word in ("drifted", "steady"))
    assert (drifted >= 15, steady >= 15) == (level == "mid", level != "mid")
    assert "PSI to 300 good parts" in text
    assert "first 500 parts" not in text


def test_light_and_focus_are_drawn_per_hour(visit: MakeVisit, folder: StationFolder) -> None:
    calibrate(folder, quality=LIMITS)
    ages = [hour * HOUR_MS for hour in (3, 2, 1)]
    inspect(
        folder,
        [Made(0.2, age, light=light, focus=0.006) for age, light in zip(ages, (118, 112, 70), strict=True)],
    )
    text = visit().get("/drift?show=picture").text
    light, focus = text.split('<div class="card"><div class="row"><h1>')[1:3]
    assert [light.count(f'class="{word}" x=') for word in ("steady", "drifted")] == [2, 1]
    assert [focus.count(f'class="{word}" x=') for word in ("steady", "drifted")] == [3, 0]
    assert [limit in light for limit in ("75.0 %", "133.3 %")] == [True, True]
    assert '<b class="drifted">▲▲ 58 %</b></td><td><b class="moved">▲ 93 %</b>' in text
    assert visit().get("/drift?show=nothing").status_code == 422


def test_a_record_without_limits_says_so(visit: MakeVisit, folder: StationFolder) -> None:
    calibrate(folder)
    inspect(folder, [Made(0.2)])
    assert "no limits for light and focus" in visit().get("/drift?show=picture").text
