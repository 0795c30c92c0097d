"""The Line page, without a browser: what it tells, and that it never shows an old OK as a new one."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from kenpin.calibrating import begin_calibrating
from kenpin.calibration.review import keep_answer
from kenpin.calibration.review_bench import part_of
from kenpin.calibration.web.line_alarms import shown_alarms
from kenpin.calibration.web.line_parts import count_parts, last_parts
from kenpin.calibration.web.score_strip import draw_strip
from kenpin.calibration.web.shift_run import ShiftRun, ShiftRuns
from kenpin.edge_runtime.database import open_database
from kenpin.errors import StoreError
from kenpin.hold import hold
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import Made, add_masters, calibrate, inspect
from tests.calibration.web.page_station import MakeVisit, Visit, add_parts, raise_alarms, show_live


@pytest.fixture
def browser(visit: MakeVisit) -> Visit:
    return visit()


def test_a_station_that_nobody_started_is_shown_as_stopped(browser: Visit) -> None:
    text = browser.get("/line").text
    assert '<div class="state STOPPED">STOPPED</div>' in text
    assert '<div class="verdict none" id="verdict">' in text
    assert text.count("<h1") == 1  # by which a screen reader finds its way
    assert "<h1" not in browser.get("/line/panel").text


def test_the_last_verdict_of_a_running_station(browser: Visit, folder: StationFolder) -> None:
    add_parts(folder, ["OK", "OK", "NG"])
    show_live(folder)
    text = browser.get("/line/panel").text
    assert '<div class="state RUNNING">RUNNING</div>' in text
    assert '<div class="verdict NG" id="verdict">' in text
    assert "101 %" in text
    assert "A-00002" in text


@pytest.mark.parametrize("state", ["DEGRADED", "FAULT", "STARTING"])
def test_why_a_station_does_not_run_is_told(browser: Visit, folder: StationFolder, state: str) -> None:
    show_live(folder, state=state, reason="the <lamp> is out")
    text = browser.get("/line/panel").text
    assert f'<div class="state {state}">' in text
    assert "the &lt;lamp&gt; is out" in text


@pytest.mark.parametrize("ago_s", [6, -3600])  # silent, or from before the last boot
def test_an_old_ok_is_not_shown_as_a_new_one(browser: Visit, folder: StationFolder, ago_s: int) -> None:
    add_parts(folder, ["OK"])
    show_live(folder, written_ns=time.monotonic_ns() - ago_s * 1_000_000_000)
    text = browser.get("/line/panel").text
    assert '<div class="state STOPPED">' in text
    assert '<div class="verdict none" id="verdict">' in text


def test_a_part_without_a_verdict_says_why_in_the_language(visit: MakeVisit, folder: StationFolder) -> None:
    add_parts(folder, ["NO_DECISION"])
    show_live(folder)
    assert "das Bild ist unscharf" in visit(language="de").get("/line/panel").text
    assert "画像がぼけています" in visit(language="ja").get("/line/panel").text


def test_asking_for_the_picture_lets_the_station_write_it(browser: Visit, folder: StationFolder) -> None:
    assert browser.get("/live.jpg").status_code == 404
    assert (folder.run / "watched").exists()
    show_live(folder)
    answer = browser.get("/live.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == (folder.run / "live.jpg").read_bytes()


def test_damaged_files_of_the_station_do_no_harm(browser: Visit, folder: StationFolder) -> None:
    (folder.run / "live.json").write_text("{")
    (folder.run / "station.json").write_text("[]")
    folder.database.write_text("no database, but long enough to look like one" * 99)
    raised = browser.get("/line")
    assert raised.status_code == 200
    assert "STOPPED" in raised.text


def test_parts_of_the_last_hours_are_counted(folder: StationFolder) -> None:
    # 12 hours at one part a minute; eight of them count.
    add_parts(folder, ["NG"] * 240 + ["OK", "OK", "NG"] * 160, step_ms=60_000)
    counted = count_parts(folder.database)
    assert counted.verdicts == {"OK": 320, "NG": 160}
    assert counted.total == 480
    assert (counted.p50_ms, counted.p99_ms) == (61.0, 61.0)


def test_counting_nothing(folder: StationFolder) -> None:
    with pytest.raises(StoreError):
        count_parts(folder.database)
    open_database(folder.database).close()
    assert count_parts(folder.database).total == 0
    assert last_parts(folder.database) == []


def test_the_last_parts_come_newest_first(folder: StationFolder) -> None:
    add_parts(folder, ["OK"] * 70 + ["REVIEW"])
    parts = last_parts(folder.database)
    assert len(parts) == 60
    assert (parts[0].part_id, parts[0].verdict) == ("A-00070", "REVIEW")


def test_the_page_cannot_write_the_stations_database(browser: Visit, folder: StationFolder) -> None:
    add_parts(folder, ["OK"])
    show_live(folder)
    before = folder.database.read_bytes()
    for path in ("/line", "/line/panel", "/log", "/live.jpg"):
        assert browser.get(path).status_code == 200
    assert folder.database.read_bytes() == before


def test_the_most_urgent_alarm_comes_first_and_settled_ones_are_not_shown(folder: StationFolder) -> None:
    states = {
        "disk_low": "UNACK",
        "engine_integrity": "LATCH_ACKED",
        "camera_lost": "ACKED",
        "ng_rate": "RTN_UNACK",
        "gpu_thermal": "NORM",
        "score_drift": "SHELVED",
    }
    raise_alarms(folder, states)
    keys = [alarm.spec.key for alarm in shown_alarms(folder.database)]
    assert keys == ["engine_integrity", "camera_lost", "ng_rate", "disk_low", "score_drift"]


def test_alarms_are_told_with_what_to_do(visit: MakeVisit, folder: StationFolder) -> None:
    raise_alarms(folder, {"camera_lost": "UNACK", "disk_low": "UNACK", "gpu_thermal": "ACKED"})
    show_live(folder)
    text = visit().get("/line/panel").text
    assert "A camera delivers no pictures" in text
    assert "Check the camera&#39;s cable and power" in text
    assert "All alarms: 3" in text
    assert "カメラのケーブルと電源を確認" in visit(language="ja").get("/line/panel").text


@pytest.mark.parametrize(
    ("live", "said", "path"),
    [
        ({"state": "FAULT", "numbers": {"ready": 0}}, "No part is released: the station is not ready", ""),
        ({"state": "DEGRADED", "numbers": {"ready": 0}}, "No part is released: the station is not ready", ""),
        ({"state": "PAUSED", "numbers": {"ready": 0}}, "Paused by abe: no part is released", ""),
        ({"state": "CALIBRATING", "numbers": {"ready": 0}}, "abe calibrates this station", "/calibrate"),
        ({"state": "RUNNING", "numbers": {"ready": 1}}, "", ""),
    ],
)
def test_why_nothing_is_released_stands_there_in_words(
    browser: Visit, folder: StationFolder, live: dict[str, Any], said: str, path: str
) -> None:
    calibrate(folder)
    add_parts(folder, ["OK"])
    begin_calibrating(folder, "abe")
    hold(folder.paused, "abe")
    show_live(folder, **live)
    text = browser.get("/line/panel").text
    assert ('id="held"' in text) == bool(said)
    assert said in text
    assert f'id="held" href="{path}"' in text if path else 'id="held" href' not in text
    # An OK from before is not shown beside it.
    assert ('class="verdict OK"' in text) == (not said)


@pytest.mark.parametrize(("ready", "released", "listed"), [(0, 0, False), (0, 1, True), (1, 0, True)])
def test_an_ok_that_may_not_have_been_released_is_not_listed_while_nothing_is(
    browser: Visit, folder: StationFolder, ready: int, released: int, listed: bool
) -> None:
    """With a PLC away the record says OK until the next one is written, and then that it was not released."""
    add_parts(folder, ["NG", "OK"])
    with closing(open_database(folder.database)) as connection:
        connection.execute("UPDATE part SET released = ? WHERE verdict = 'OK'", (released,))
    show_live(folder, state="DEGRADED", numbers={"ready": ready}, reason="no PLC is connected by Modbus")
    text = browser.get("/line/panel").text
    assert '<td class="id">A-00000</td>' in text
    assert ('<td class="id">A-00001</td>' in text) == listed


def test_a_due_shift_check_and_missing_thresholds_are_said_in_the_language(
    visit: MakeVisit, folder: StationFolder
) -> None:
    reason = "not calibrated; calibrate with: kenpin calibrate fit"
    show_live(folder, state="FAULT", numbers={"ready": 0}, reason=reason)
    text = visit(language="de").get("/line").text
    assert "hat noch keine Schwellen" in text
    assert "kenpin calibrate" not in text  # who stands there has no command line
    calibrate(folder)
    add_masters(folder)
    reason = "masters were never shown: M-01, M-02; show them: kenpin masters check"
    show_live(folder, state="FAULT", numbers={"ready": 0}, reason=reason)
    text = visit(language="de").get("/line").text
    assert "Schichtprüfung fällig: kein Teil wird freigegeben, bis die Master gezeigt wurden" in text
    assert 'id="held" href="/shift"' in text
    assert '<span class="cut" title="Noch nicht gezeigt: M-01, M-02">' in text
    assert "kenpin masters" not in text
    assert "Noch nicht gezeigt: M-01, M-02" in visit(language="de").get("/shift").text
    begin_calibrating(folder, "sato")
    ShiftRuns(folder.root / "page.db").begin(ShiftRun("sato", 0, ""))
    reason = "sato calibrates this station"
    show_live(folder, state="CALIBRATING", numbers={"ready": 0}, reason=reason)
    text = visit(language="de").get("/line").text
    assert "Schichtprüfung durch sato" in text
    assert reason not in text  # it is a check, and said already


def test_what_waits_on_the_review_bench_is_told_with_a_link(visit: MakeVisit, folder: StationFolder) -> None:
    assert 'id="waiting"' not in visit().get("/line").text
    seqs = inspect(folder, [Made(0.4), Made(0.9), Made(0.2), Made(0.5)])
    assert 'id="waiting" href="/review">Review bench: 3 waiting</a>' in visit().get("/line").text
    part = part_of(folder, seqs[0])
    assert part is not None
    keep_answer(folder, part, "good", name="sato", is_master=False)
    assert "Review bench: 2 waiting" in visit().get("/line").text
    inspect(folder, [Made(0.4)] * 60)
    assert "Review bench: 50+ waiting" in visit().get("/line").text


def test_a_damaged_alarm_hides_no_other(folder: StationFolder) -> None:
    raise_alarms(folder, {"camera_lost": "UNACK"})
    with closing(open_database(folder.database)) as connection:
        connection.execute("INSERT INTO alarm VALUES ('disk_low', '{'), ('unknown', '{}')")
    assert [alarm.spec.key for alarm in shown_alarms(folder.database)] == ["camera_lost"]


def test_a_database_without_alarms_has_none(folder: StationFolder) -> None:
    with closing(open_database(folder.database)) as connection:
        connection.execute("DROP TABLE alarm")
    assert shown_alarms(folder.database) == []


def test_scores_are_drawn_between_the_edges_and_in_order(folder: StationFolder) -> None:
    add_parts(folder, ["OK", "REVIEW", "NG", "NO_DECISION"])
    strip = draw_strip(last_parts(folder.database))
    ok, review, bad, none = strip.dots
    assert ok.x < review.x < bad.x < none.x
    assert strip.t1_y is not None
    assert strip.t2_y is not None
    # Up is high: OK below T1, REVIEW between the two, NG above T2, no score at the bottom.
    assert ok.y > strip.t1_y > review.y > strip.t2_y > bad.y
    assert none.y == ok.y == max(dot.y for dot in strip.dots)
    assert all(0 < dot.x < 800 and 0 < dot.y < 110 for dot in strip.dots)


def test_nothing_is_drawn_without_parts() -> None:
    strip = draw_strip([])
    assert (list(strip.dots), strip.t1_y, strip.t2_y) == ([], None, None)


def test_no_page_is_larger_than_60_kb(browser: Visit, folder: StationFolder) -> None:
    add_parts(folder, ["OK"] * 100)
    raise_alarms(folder, {"camera_lost": "UNACK", "disk_low": "UNACK"})
    show_live(folder)
    files = sum(len(browser.get(f"/static/{name}").content) for name in ("page.css", "page.js", "icon.svg"))
    for path in ("/line", "/log", "/login"):
        assert len(browser.get(path).content) + files < 60_000
