"""The What-if and the Drift page: what they show is what was counted, and nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from kenpin.calibration.bench import waiting_parts
from kenpin.calibration.in_force import record_in_force
from kenpin.calibration.review import keep_answer
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import Made, a_day, calibrate, inspect
from tests.calibration.web.page_station import Visit


@pytest.fixture
def browser(visit: Callable[..., Visit], folder: StationFolder) -> Visit:
    calibrate(folder)
    inspect(folder, [Made(s) for s in (0.1, 0.2, 0.36, 0.44, 0.9)])
    for part in waiting_parts(folder, [], limit=9):
        label = "bad" if (part.score or 0) > 0.4 else "good"
        keep_answer(folder, part, label, name="sato", is_master=False)  # type: ignore[arg-type]
    return visit()


def figures(text: str) -> list[str]:
    return re.findall(r'<b class="figure[^>]*>([^<]*)</b> /? ?([0-9]*)', text)  # type: ignore[return-value]


def test_a_move_is_told_at_once(browser: Visit) -> None:
    assert figures(browser.get("/what-if").text) == [("1", "1"), ("0", "2"), ("2.0", "")]
    moved = browser.get("/what-if/panel?t1=0.45&t2=0.5").text
    assert figures(moved) == [("0", "1"), ("1", "2"), ("0.0", "")]
    assert re.search(r"REVIEW</b> → <b[^>]*>OK</b>: 2", moved)
    assert "/review/small/3.jpg" in moved


def test_a_master_that_would_pass_is_said(browser: Visit) -> None:
    assert "none of 2 masters would pass" in browser.get("/what-if").text
    assert "Masters that would pass: 1" in browser.get("/what-if/panel?t1=0.47").text


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
    visit: Callable[..., Visit], folder: StationFolder, path: str
) -> None:
    inspect(folder, [])
    assert record_in_force(folder) is None
    assert visit().get(path).status_code == 200
    calibrate(folder)
    assert visit().get(path).status_code == 200


def test_drift_is_shown_per_hour_and_level(visit: Callable[..., Visit], folder: StationFolder) -> None:
    calibrate(folder)
    a_day(folder, shift=0.15)
    text = visit().get("/drift").text
    assert '<div class="state-of drifted">DRIFTED</div>' in text
    assert text.count('class="steady" x=') >= 15
    assert 2 <= text.count('class="drifted" x=') <= 4
    assert text.count('class="NG" x=') >= 20
    assert text.count('class="expected" x=') == text.count('class="found" x=') == 10
    assert "first 500 parts since the calibration" in text
