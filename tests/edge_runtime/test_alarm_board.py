"""The alarms in the database: a change and its event are one, whoever makes it and whenever it ends."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime import alarm_board
from kenpin.edge_runtime.alarm import Action
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE, AlarmSpec
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import connect, open_database, transaction
from kenpin.errors import StoreError
from tests.edge_runtime.conftest import Clock

LOST = AlarmSpec(key="camera_lost", priority=3, severity=700, message="no picture", operator_action="look")
SLOW = AlarmSpec(
    key="inference_slow", of_last=(2, 4), priority=2, severity=400, message="slow", operator_action="wait"
)
NEVER: dict[str, list[float | None]] = {"camera_lost": [0.0]}
THERE: dict[str, list[float | None]] = {"camera_lost": [1.0]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    open_database(tmp_path / "station.db").close()
    return tmp_path / "station.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path)) as opened:
        yield opened


def board(connection: sqlite3.Connection) -> AlarmBoard:
    return AlarmBoard(connection, Identity("st1"), (LOST, SLOW))


def events(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    found = connection.execute("SELECT topic, body FROM outbox ORDER BY seq").fetchall()
    assert {topic for topic, _ in found} <= {"event/alarm"}
    return [json.loads(body) for _, body in found]


def retained(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    return {topic: json.loads(body) for topic, body in connection.execute("SELECT topic, body FROM state")}


def names(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return [(event["alarm"], event["transition"]) for event in events(connection)]


def act(connection: sqlite3.Connection, made: AlarmBoard, key: str, action: Action) -> str:
    with transaction(connection):
        return made.act(key, action)


def test_at_the_start_every_alarm_is_told_once_and_nothing_is_an_event(connection: sqlite3.Connection) -> None:
    AlarmBoard(connection, Identity("st1")).come_round({})
    told = retained(connection)
    assert told.keys() == {f"alarm/{alarm.key}" for alarm in CATALOGUE} | {"alarm_summary"}
    assert {told[f"alarm/{alarm.key}"]["state"] for alarm in CATALOGUE} == {"NORM"}
    assert events(connection) == []


def test_a_raise_is_row_topic_event_and_summary(connection: sqlite3.Connection) -> None:
    made = board(connection)
    made.come_round(NEVER)
    made.come_round(THERE)
    (event,) = events(connection)
    assert (event["alarm"], event["transition"], event["state"], event["occurrence"]) == (
        "camera_lost",
        "raise",
        "UNACK",
        1,
    )
    assert retained(connection)["alarm/camera_lost"]["state"] == "UNACK"
    summary = retained(connection)["alarm_summary"]
    assert (summary["active_count"], summary["unacked_count"], summary["highest_priority"]) == (1, 1, 3)
    ((row,),) = connection.execute("SELECT json FROM alarm WHERE key = 'camera_lost'").fetchall()
    assert json.loads(row)["state"] == "UNACK"


def test_what_does_not_change_is_not_written(connection: sqlite3.Connection) -> None:
    made = board(connection)
    made.come_round(THERE)
    before = connection.total_changes
    for _ in range(20):
        made.come_round(THERE)
    assert connection.total_changes == before


def test_what_is_told_once_per_part_counts_each_part(connection: sqlite3.Connection) -> None:
    made = board(connection)
    made.come_round({"inference_slow": [0.5, 2.0, 0.5]})
    assert names(connection) == []
    made.come_round({})  # no part, no value
    made.come_round({"inference_slow": [2.0]})
    assert names(connection) == [("inference_slow", "raise")]


def test_between_the_values_of_one_round_no_time_passes(connection: sqlite3.Connection) -> None:
    made = AlarmBoard(connection, Identity("st1"), (replace(SLOW, off_delay_s=60.0),))
    made.come_round({"inference_slow": [1.0, 1.0]})
    made.come_round({"inference_slow": [0.0] * 9})
    assert names(connection) == [("inference_slow", "raise")]


def test_the_end_of_a_chatter_is_told_though_the_alarm_stays(
    connection: sqlite3.Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_board, "time", clock)
    made = board(connection)
    for values in (THERE, NEVER, THERE, NEVER, THERE):
        made.come_round(values)
        clock.now_s += 1
    assert retained(connection)["alarm/camera_lost"]["chattering"]
    clock.now_s += 30
    made.come_round(THERE)  # the minute's row is written
    clock.now_s += 30
    made.come_round(THERE)
    assert not retained(connection)["alarm/camera_lost"]["chattering"]


@pytest.mark.parametrize("is_cut", [False, True])
def test_what_counts_towards_a_raise_is_kept_though_it_changes_nothing_yet(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, is_cut: bool
) -> None:
    monkeypatch.setattr(alarm_board, "_KEEP_S", 0.0 if is_cut else 60.0)
    made = board(connection)
    made.come_round({})
    made.come_round({"inference_slow": [2.0]})
    if is_cut:
        made = board(connection)
    made.come_round({"inference_slow": [2.0]})
    assert names(connection) == [("inference_slow", "raise")]


def test_after_a_start_the_alarms_are_as_they_were(path: Path) -> None:
    with closing(connect(path)) as connection:
        board(connection).come_round(THERE)
    with closing(connect(path)) as connection:
        made = board(connection)
        made.come_round(THERE)
        assert names(connection) == [("camera_lost", "raise")]
        assert act(connection, made, "camera_lost", Action("ack", "Sato")) == ""
        assert retained(connection)["alarm/camera_lost"]["acked_by"] == "Sato"


def test_an_operator_in_another_process_is_heard(path: Path) -> None:
    with closing(connect(path)) as here, closing(connect(path)) as there:
        stepping, acting = board(here), board(there)
        stepping.come_round(THERE)
        assert act(there, acting, "camera_lost", Action("ack", "Sato")) == ""
        stepping.come_round(THERE)
        stepping.come_round(NEVER)
        assert names(here) == [("camera_lost", "raise"), ("camera_lost", "ack"), ("camera_lost", "return")]
        assert retained(here)["alarm/camera_lost"]["state"] == "NORM"


def test_an_operator_between_the_look_and_the_write_is_heard(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(path)) as here, closing(connect(path)) as there:
        stepping, acting = board(here), board(there)
        stepping.come_round(THERE)
        begin = alarm_board.transaction

        def late(connection: sqlite3.Connection) -> Any:
            if connection is here:
                act(there, acting, "camera_lost", Action("ack", "Sato"))
                monkeypatch.setattr(alarm_board, "transaction", begin)
            return begin(connection)

        monkeypatch.setattr(alarm_board, "transaction", late)
        stepping.come_round(NEVER)
        # Acknowledged first, so the return needs no operator.
        assert names(here) == [("camera_lost", "raise"), ("camera_lost", "ack"), ("camera_lost", "return")]
        assert retained(here)["alarm/camera_lost"]["state"] == "NORM"


@pytest.mark.parametrize("meanwhile", ["look", "write"])
def test_an_operator_meanwhile_is_not_taken_for_a_boot(
    path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Whose reading of the clock is later than that of the round, and the machine has run for days."""
    with closing(connect(path)) as here, closing(connect(path)) as there:
        stepping, acting = board(here), board(there)
        stepping.come_round(THERE)
        seam = {"look": "_read", "write": "_flooded"}[meanwhile]
        usual = getattr(stepping, seam)

        def late(*given: object) -> Any:
            monkeypatch.setattr(stepping, seam, usual)
            assert act(there, acting, "camera_lost", Action("shelve", "Sato", minutes=60)) == ""
            return usual(*given)

        monkeypatch.setattr(stepping, seam, late)
        stepping.come_round(NEVER)
        stepping.come_round(THERE)
        assert names(here) == [("camera_lost", "raise"), ("camera_lost", "shelve")]
        assert retained(here)["alarm/camera_lost"]["state"] == "SHELVED"


def test_what_cannot_be_written_is_told_with_the_next_round(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    made = board(connection)
    made.come_round(NEVER)
    connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON main.outbox BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    for _ in range(3):
        with pytest.raises(StoreError):
            made.come_round(THERE)
    assert retained(connection)["alarm/camera_lost"]["state"] == "NORM"
    assert caplog.text == ""  # a full disk is not helped by a line each second of what does not stand yet
    connection.execute("DROP TRIGGER full")
    made.come_round(THERE)
    assert caplog.text.count("Alarm camera_lost") == 1
    assert names(connection) == [("camera_lost", "raise")]
    assert retained(connection)["alarm/camera_lost"]["state"] == "UNACK"


def test_what_is_rejected_changes_nothing(connection: sqlite3.Connection) -> None:
    made = board(connection)
    made.come_round(NEVER)
    before = connection.total_changes
    assert act(connection, made, "camera_lost", Action("ack", "Sato"))
    assert "no alarm 'horn'" in act(connection, made, "horn", Action("ack", "Sato"))
    assert connection.total_changes == before


def test_a_shelved_alarm_still_tells_whether_its_condition_holds(path: Path) -> None:
    with closing(connect(path)) as here, closing(connect(path)) as there:
        stepping, acting = board(here), board(there)
        stepping.come_round(NEVER)
        assert act(there, acting, "camera_lost", Action("shelve", "Sato", minutes=30)) == ""
        for values, active in ((THERE, True), (NEVER, False), (THERE, True)):
            stepping.come_round(values)
            told = retained(here)["alarm/camera_lost"]
            assert (told["state"], told["active"]) == ("SHELVED", active)
        assert act(there, acting, "camera_lost", Action("unshelve", "Sato")) == ""
        assert names(here)[-1] == ("camera_lost", "raise")  # at once, whichever process is asked


def test_a_shelf_that_another_process_has_set_ends_in_time(path: Path) -> None:
    with closing(connect(path)) as here, closing(connect(path)) as there:
        stepping, acting = board(here), board(there)
        stepping.come_round(THERE)
        assert act(there, acting, "camera_lost", Action("shelve", "Sato", minutes=0.0001)) == ""
        time.sleep(0.01)
        stepping.come_round(THERE)
        assert names(here)[-1] == ("camera_lost", "raise")


def test_a_damaged_row_starts_that_alarm_anew(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    board(connection).come_round(THERE)
    connection.execute("UPDATE alarm SET json = '{' WHERE key = 'camera_lost'")
    board(connection).come_round(THERE)
    assert names(connection) == [("camera_lost", "raise")] * 2
    assert "camera_lost starts anew" in caplog.text


@pytest.mark.parametrize("body", ["{", "[]", "{}"])
def test_a_damaged_summary_keeps_no_operator_from_acting(connection: sqlite3.Connection, body: str) -> None:
    made = board(connection)
    made.come_round(THERE)
    connection.execute("UPDATE state SET body = ? WHERE topic = 'alarm_summary'", (body,))
    assert act(connection, made, "camera_lost", Action("ack", "Sato")) == ""
    assert retained(connection)["alarm_summary"]["unacked_count"] == 0


def test_a_flood_is_said_once(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [replace(LOST, key=f"lost_{k}") for k in range(12)]
    made = AlarmBoard(connection, Identity("st1"), many)
    made.come_round({alarm.key: [1.0] for alarm in many[:10]})
    assert "A flood" not in caplog.text
    for _ in range(3):
        made.come_round({alarm.key: [1.0] for alarm in many})
    assert caplog.text.count("A flood of alarms") == 1
    assert len(events(connection)) == 12  # nothing is held back
    assert retained(connection)["alarm_summary"]["flood"]
    monkeypatch.setattr("kenpin.edge_runtime.alarm_flood.FLOOD_S", -1.0)
    made.come_round({alarm.key: [1.0] for alarm in many})
    assert not retained(connection)["alarm_summary"]["flood"]
