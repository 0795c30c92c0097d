"""The Review bench page: answers, near misses, and the second opinion that makes a master."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import pytest
from fastapi import FastAPI

from kenpin.calibration.review import reviewed_parts
from kenpin.masters import read_masters
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import Made, calibrate, inspect
from tests.calibration.web.page_station import PIN, MakeVisit, Visit


@pytest.fixture
def bench(visit: MakeVisit, folder: StationFolder) -> Callable[[str], Visit]:
    """The browser of a person, at a station that stopped two parts."""
    calibrate(folder)
    inspect(folder, [Made(0.2), Made(0.4), Made(0.9)])

    def log_in(name: str) -> Visit:
        browser = visit()
        browser.log_in(name)
        return browser

    return log_in


def test_each_answer_brings_the_next_part(bench: Callable[[str], Visit], folder: StationFolder) -> None:
    browser = bench("sato")
    assert "A-00003" in browser.get("/review").text
    answer = browser.submit("/review/answer", seq="3", label="bad")
    assert answer.headers["location"] == "/review?done=3"
    text = browser.get("/review?done=3").text
    assert "A-00002" in text
    assert "/review?part=3" in text
    browser.submit("/review/answer", seq="2", label="good")
    assert "Nothing is waiting." in browser.get("/review").text
    assert [r.label for r in reviewed_parts(folder)] == ["good", "bad"]
    browser.submit("/review/answer", seq="3", label="good")
    assert [r.label for r in reviewed_parts(folder)] == ["good", "good"]


def test_an_answer_that_finds_no_room_is_told(
    bench: Callable[[str], Visit], folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = bench("sato")
    state = cast("FastAPI", browser.app).state
    monkeypatch.setattr(state, "site", replace(state.site, review_mb=0))
    assert "gave way" not in browser.get("/review").text
    browser.submit("/review/answer", seq="3", label="bad", is_master="1")
    assert len(reviewed_parts(folder)) == 1
    for path in ("/review", "/review/near", "/review/second"):
        assert "gave way to newer ones: 1" in browser.get(path).text
    (folder.images / "day/3.png").unlink()
    other = bench("abe")
    assert "gave way to newer ones: 1" in other.get("/review/second").text
    other.submit("/review/answer", seq="3", label="bad")
    assert "Two agree" not in other.get("/review/second").text  # a master has a picture
    fields = {"seq": "3", "master": "M-09", "kind": "dent", "pin": PIN, "why": "new"}
    assert other.submit("/review/master", **fields).status_code == 409


def test_a_viewer_looks_and_does_not_answer(bench: Callable[[str], Visit], folder: StationFolder) -> None:
    browser = bench("vera")
    assert "/review/answer" not in browser.get("/review").text
    assert browser.submit("/review/answer", seq="3", label="bad").status_code == 403
    assert not reviewed_parts(folder)


def test_what_is_no_answer_is_refused(bench: Callable[[str], Visit], folder: StationFolder) -> None:
    browser = bench("sato")
    assert browser.submit("/review/answer", seq="3", label="perhaps").status_code == 422
    assert browser.submit("/review/answer", seq="99", label="bad").status_code == 404
    assert browser.submit("/review/answer", seq="3", label="bad", back="//elsewhere").status_code == 422
    assert browser.get("/review?part=99").status_code == 404
    (folder.images / "day/3.png").write_bytes(b"another")
    assert browser.submit("/review/answer", seq="3", label="bad").status_code == 404


def test_a_part_whose_picture_is_gone_is_answered_with_the_part_in_the_hand(
    bench: Callable[[str], Visit], folder: StationFolder
) -> None:
    browser = bench("sato")
    (folder.images / "day/3.png").unlink()
    text = browser.get("/review?part=3").text
    assert "Answer only with the part itself in your hand." in text
    assert "A-00003" in text
    assert "is_master" not in text
    assert "/review/large/3.jpg" not in text
    assert browser.submit("/review/answer", seq="3", label="bad", is_master="1").status_code == 404
    assert browser.submit("/review/answer", seq="3", label="bad").status_code == 303
    browser.submit("/review/answer", seq="2", label="bad")
    other = bench("abe")
    other.submit("/review/answer", seq="3", label="good")
    disputed = browser.get("/review/second").text
    assert "Answer only with the part itself in your hand." in disputed
    assert "is_master" not in disputed


def test_near_misses_can_be_answered_too(bench: Callable[[str], Visit], folder: StationFolder) -> None:
    browser = bench("sato")
    inspect(folder, [Made(0.349)])
    text = browser.get("/review/near").text
    assert "0.3490 OK" in text
    assert "/review?part=4&amp;back=/review/near" in text
    assert 'value="/review/near"' in browser.get("/review?part=4&back=/review/near").text
    answer = browser.submit("/review/answer", seq="4", label="bad", back="/review/near")
    assert answer.headers["location"] == "/review/near?done=4"


def test_a_second_person_judges_without_the_first_answer(
    bench: Callable[[str], Visit], folder: StationFolder
) -> None:
    first, second = bench("sato"), bench("abe")
    first.submit("/review/answer", seq="3", label="bad", is_master="1")
    assert "No second opinion" in first.get("/review/second").text
    blind = second.get("/review/second").text
    assert "What do you say?" in blind
    assert "0.9000" not in blind
    assert "sato" not in blind
    second.submit("/review/answer", seq="3", label="bad", back="/review/second")
    sign = {"seq": "3", "master": "M-07", "kind": "scratch 0.3 mm", "pin": PIN, "why": "limit sample"}
    assert "Two agree" in first.get("/review/second").text
    assert first.submit("/review/master", **{**sign, "master": "M 07"}).status_code == 422
    assert first.submit("/review/master", **sign).status_code == 303
    (master,) = read_masters(folder).registered.values()
    assert (master.id, master.type, master.expected) == ("M-07", "scratch 0.3 mm", "NG")
    assert (folder.root / master.picture).read_bytes() == (folder.images / "day/3.png").read_bytes()
    assert first.submit("/review/master", **sign).status_code == 409
    for browser in (first, second):  # of one that the station would look at again it cannot be asked to be NG
        browser.submit("/review/answer", seq="2", label="bad", is_master="1")
    assert first.submit("/review/master", **{**sign, "seq": "2", "master": "M-08"}).status_code == 303
    assert read_masters(folder).registered["M-08"].expected == "REVIEW"


def test_a_dispute_that_one_had_a_say_in_does_not_stand_before_others(bench: Callable[[str], Visit]) -> None:
    first, second = bench("sato"), bench("abe")
    first.submit("/review/answer", seq="2", label="good")
    second.submit("/review/answer", seq="2", label="bad")
    first.submit("/review/answer", seq="3", label="bad", is_master="1")
    assert 'name="seq" value="2"' in first.get("/review/second").text
    assert 'name="seq" value="3"' in second.get("/review/second").text


def test_one_opinion_makes_no_master(bench: Callable[[str], Visit], folder: StationFolder) -> None:
    first, second = bench("sato"), bench("abe")
    sign = {"seq": "3", "master": "M-07", "kind": "scratch", "pin": PIN, "why": "x"}
    first.submit("/review/answer", seq="3", label="bad", is_master="1")
    assert first.submit("/review/master", **sign).status_code == 409
    second.submit("/review/answer", seq="3", label="good")
    assert first.submit("/review/master", **sign).status_code == 409
    assert not read_masters(folder).registered


def test_pictures_are_scaled_marked_and_stay(bench: Callable[[str], Visit], folder: StationFolder) -> None:
    browser = bench("sato")
    large = browser.get("/review/large/3.jpg")
    image = cv2.imdecode(np.frombuffer(large.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    blue, green, red = image[30, 45].tolist()
    assert red > max(blue, green) + 60
    browser.submit("/review/answer", seq="3", label="bad")
    (folder.images / "day/3.png").unlink()
    assert browser.get("/review/small/3.jpg").status_code == 200
    assert browser.get("/review/small/99.jpg").status_code == 404
