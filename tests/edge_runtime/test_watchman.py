"""Alarms and audit of a station that runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kenpin.audit import Entry, append, audit_file
from kenpin.edge_runtime import audit_mirror, room, watchman
from kenpin.edge_runtime import station as station_module
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.audit_mirror import AuditMirror
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.database import connect, open_database, transaction
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.equipment import Equipment
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.part_watch import PartWatch
from kenpin.edge_runtime.readiness import CAMERA_SET, MASTERS_DUE, PAUSED
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.watchman import Post, Watchman, host_values
from kenpin.errors import StoreError
from kenpin.events import now_ms
from kenpin.ledger import head
from kenpin.station_folder import StationFolder
from tests.edge_runtime.conftest import brightness_model


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchman, "_EVERY_S", 0.02)


@pytest.fixture
def folder(workshop: Any) -> StationFolder:
    workshop.folder.create()
    open_database(workshop.folder.database).close()
    return workshop.folder  # type: ignore[no-any-return]


@pytest.fixture
def post(folder: StationFolder) -> Iterator[SimpleNamespace]:
    """A watchman whose conditions the test sets, and what it woke."""
    made = SimpleNamespace(conditions={}, woken=[], equipment=Equipment())
    wake: Callable[[], None] = lambda: made.woken.append(1)  # noqa: E731
    parts = PartWatch(100)
    made.watchman = Watchman(
        Post(
            folder,
            Identity("st1"),
            parts,
            lambda: made.conditions,
            Counters(),
            lambda: made.equipment,
            10,
            wake,
            lambda: None,
            lambda _damage: None,
            lambda: False,
        )
    )
    made.watchman.start()
    yield made
    made.watchman.close()


def events(folder: StationFolder, topic: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder.database)) as connection:
        rows = connection.execute("SELECT body FROM outbox WHERE topic = ? ORDER BY seq", (topic,))
        return [json.loads(body) for (body,) in rows]


def raised(folder: StationFolder) -> list[str]:
    return [e["alarm"] for e in events(folder, "event/alarm") if e["transition"] == "raise"]


def test_a_condition_becomes_an_alarm_and_the_publisher_is_woken(
    folder: StationFolder, post: SimpleNamespace, wait_for: Any
) -> None:
    wait_for(lambda: post.woken, "the first round")
    post.watchman.stop()
    post.woken.clear()
    post.watchman.start()
    post.conditions = {"engine_integrity": 1.0}
    wait_for(lambda: "engine_integrity" in raised(folder), "the alarm")
    wait_for(lambda: post.woken, "the publisher")


def test_what_the_last_parts_raised_is_seen_at_the_end(
    folder: StationFolder, post: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.watchman.stop()
    monkeypatch.setattr(watchman, "_EVERY_S", 3600.0)
    post.watchman.start()
    post.conditions = {"engine_integrity": 1.0}
    post.watchman.stop()
    assert raised(folder) == ["engine_integrity"]


def test_what_the_machine_says_reaches_the_alarms(
    post: SimpleNamespace, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(AlarmBoard, "come_round", lambda _board, values: told.append(values))
    machine = {"clock_unsynced": 1.0, "disk_low": 0.97, "gpu_thermal": 88.0}
    monkeypatch.setattr(watchman, "host_values", lambda _root: machine)
    monkeypatch.setattr(watchman, "read_power_w", lambda: 12.5)
    post.watchman._host_due_s = 0.0
    wait_for(lambda: told and told[-1].get("gpu_thermal") == [88.0], "the temperature")
    assert {key: told[-1][key] for key in machine} == {key: [value] for key, value in machine.items()}
    counters = post.watchman._post.counters
    wait_for(lambda: counters.snapshot().temperature_c == 88.0, "the temperature among the counters")
    assert counters.snapshot().power_w == 12.5


def test_what_the_station_is_made_of_is_told_though_the_disk_refused_it_first(
    folder: StationFolder, post: SimpleNamespace, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for(lambda: _states(folder), "the first round")
    post.watchman.stop()
    with closing(sqlite3.connect(folder.database)) as other:
        other.execute("DELETE FROM state")
        cameras = [("camera/old/last", "{}", 1), ("camera/cam_2/last", "{}", 2)]
        other.executemany("INSERT INTO state VALUES (?, ?, ?)", cameras)
        other.execute("CREATE TRIGGER full BEFORE INSERT ON state BEGIN SELECT RAISE(ABORT, 'full'); END")
        other.commit()
        post.equipment = Equipment(cameras=["cam 2"])
        post.watchman.start()
        wait_for(lambda: "is made of cannot be told" in caplog.text, "the warning")
        other.execute("DROP TRIGGER full")
        other.commit()
        sql = "SELECT topic, body <> '' FROM state WHERE topic = 'meta' OR topic LIKE 'camera%' ORDER BY topic"
        expected = [("camera/cam_2/last", 1), ("camera/old/last", 0), ("meta", 1)]
        wait_for(lambda: other.execute(sql).fetchall() == expected, "meta, and that a camera has gone")


def test_records_that_are_old_enough_go(folder: StationFolder, post: SimpleNamespace, wait_for: Any) -> None:
    post.watchman.stop()
    with closing(Store(folder.database)) as store, closing(sqlite3.connect(folder.database)) as other:
        for days in (11, 9):
            then_ms = now_ms() - days * 24 * 3600 * 1000
            store.commit([(Part(str(days), "cam", "s", then_ms, 0, Decision(Verdict.MISSED)), None)])
        post.watchman._retention._due_s = 0.0
        post.watchman.start()
        sql = "SELECT part_id FROM part"
        wait_for(lambda: other.execute(sql).fetchall() == [("9",)], "the end of the old record")


def test_on_a_disk_that_is_short_events_press_sooner(
    folder: StationFolder, post: SimpleNamespace, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(AlarmBoard, "come_round", lambda _board, values: told.append(values["outbox_pressure"]))
    with closing(sqlite3.connect(folder.database)) as other:
        other.execute(f"INSERT INTO outbox VALUES (1, NULL, 0, 1, 'event/anomaly', '{{}}', {4 << 20}, NULL)")
        other.commit()
        wait_for(lambda: told[-1:] == [[4 / 256]], "the pressure")
        monkeypatch.setattr(room.shutil, "disk_usage", lambda _path: SimpleNamespace(used=1, free=0))
        wait_for(lambda: told[-1:] == [[1.0]], "the pressure of the short disk")


def test_a_store_that_does_not_work_is_said_once_and_tried_again(
    folder: StationFolder, post: SimpleNamespace, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for(lambda: _states(folder), "the first round")
    with closing(sqlite3.connect(folder.database)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END")
        other.commit()
        post.conditions = {"engine_integrity": 1.0}
        wait_for(lambda: "cannot be kept" in caplog.text, "the warning")
        time.sleep(0.2)
        assert caplog.text.count("cannot be kept") == 1
        other.execute("DROP TRIGGER full")
        other.commit()
    wait_for(lambda: raised(folder) == ["engine_integrity"], "the alarm")


def _states(folder: StationFolder) -> int:
    with closing(sqlite3.connect(folder.database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM state").fetchone()
        return int(count)


def test_what_stumbles_is_logged_and_the_next_round_comes(
    folder: StationFolder, post: SimpleNamespace, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    post.conditions = None
    wait_for(lambda: "cannot be kept" in caplog.text, "the log")
    assert "Traceback" in caplog.text  # nobody foresaw it
    post.conditions = {"engine_integrity": 1.0}
    wait_for(lambda: raised(folder) == ["engine_integrity"], "the alarm")


def test_a_duty_that_fails_is_said_once_and_stops_no_other(
    folder: StationFolder, post: SimpleNamespace, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    post.conditions = None
    wait_for(lambda: "cannot be kept" in caplog.text, "the log")
    append(folder, Entry("bundle", "Abe", new="2.0"))
    wait_for(lambda: events(folder, "event/audit"), "the audit")
    wait_for(lambda: _states(folder), "meta")
    time.sleep(0.2)
    assert caplog.text.count("cannot be kept") == 1


@pytest.mark.parametrize("table", ["alarm", "state"])
def test_what_parts_said_while_the_alarms_could_not_be_kept_is_not_lost(
    folder: StationFolder, post: SimpleNamespace, wait_for: Any, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    wait_for(lambda: _states(folder), "the first round")
    black = Part("p", "c", "s", 0, time.monotonic_ns(), Decision(Verdict.NO_DECISION, "black", cause="black"))
    refused = f"CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
    with closing(sqlite3.connect(folder.database)) as other:
        other.execute(refused)
        other.commit()
        for _ in range(3):
            post.watchman._post.parts.saw(black)
        wait_for(lambda: "alarms cannot be kept" in caplog.text, "the warning")
        other.execute("DROP TRIGGER full")
        other.commit()
    wait_for(lambda: raised(folder) == ["image_quality"], "the alarm")


@pytest.mark.parametrize("is_set", [True, False])
def test_the_machine_says_clock_and_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_set: bool
) -> None:
    monkeypatch.setattr(watchman.shutil, "disk_usage", lambda _path: SimpleNamespace(used=90, free=10))
    monkeypatch.setattr(watchman, "clock_is_synchronised", lambda: is_set)
    found = host_values(tmp_path)
    assert (found["disk_low"], found["clock_unsynced"]) == (0.9, float(not is_set))


def test_each_row_of_the_audit_is_told_once(folder: StationFolder) -> None:
    with closing(connect(folder.database)) as connection:
        mirror = AuditMirror(folder, connection, Identity("st1"))
        mirror.come_round()  # there is no audit yet
        append(folder, Entry("thresholds", "Sato", "T1 1", "T1 2", "light changed"))
        append(folder, Entry("bundle", "Abe", "1.0", "2.0"))
        mirror.come_round()
        mirror.come_round()
        # Another start of the station, after more was written.
        append(folder, Entry("masters", "Sato", new="M-07"))
        for what in ("login", "users", "alarm"):
            append(folder, Entry(what, "Sato", new="x"))
        AuditMirror(folder, connection, Identity("st1")).come_round()
    told = events(folder, "event/audit")
    assert [(t["entry"], t["kind"], t["actor"], t["new"]) for t in told] == [
        (1, "threshold", "Sato", "T1 2"),
        (2, "model", "Abe", "2.0"),
        (3, "config", "Sato", "M-07"),
        (4, "security", "Sato", "x"),
        (5, "user", "Sato", "x"),
        (6, "command", "Sato", "x"),
    ]
    newest = head(audit_file(folder))
    assert (told[-1]["head_sha256"], told[0]["reason"]) == (newest.sha256, "light changed")


def test_a_row_that_came_within_one_tick_of_the_disks_clock_is_told(folder: StationFolder) -> None:
    with closing(connect(folder.database)) as connection:
        mirror = AuditMirror(folder, connection, Identity("st1"))
        for new in ("first", "second"):
            append(folder, Entry("users", "Sato", new=new))
            os.utime(audit_file(folder), (1, 1))
            mirror.come_round()
    assert [told["new"] for told in events(folder, "event/audit")] == ["first", "second"]


@pytest.mark.parametrize("character", ["a", "検", "\U0001f600", '"', "\\"])
def test_a_row_of_any_length_is_told_and_hides_nothing(folder: StationFolder, character: str) -> None:
    long = character * 9000
    append(folder, Entry(long, long, long, long, long))
    append(folder, Entry("users", "boss", new="mallory is admin"))
    with closing(connect(folder.database)) as connection:
        AuditMirror(folder, connection, Identity("s" * 64)).come_round()
    first, second = events(folder, "event/audit")
    assert first["new"].endswith(character + "...")
    assert len(json.dumps(first["new"])) > 1700
    assert second["new"] == "mallory is admin"


@pytest.mark.parametrize("ts_ms", [10**30, -(10**30), "soon"])
def test_a_row_with_a_time_that_is_none_hides_nothing(folder: StationFolder, ts_ms: Any) -> None:
    append(folder, Entry("bundle", "Abe", new="2.0"))
    path = audit_file(folder)
    path.write_text(re.sub(r'"ts_ms":\d+', f'"ts_ms":{json.dumps(ts_ms)}', path.read_text()))
    with closing(connect(folder.database)) as connection:
        mirror = AuditMirror(folder, connection, Identity("st1"))
        lines = mirror.untold()
        with transaction(connection):
            mirror.tell(lines)
    assert [told["entry"] for told in events(folder, "event/audit")] == [1]


def test_an_audit_that_was_moved_away_is_followed_by_the_new_one(folder: StationFolder) -> None:
    with closing(connect(folder.database)) as connection:
        mirror, other = (AuditMirror(folder, connection, Identity("st1")) for _ in range(2))
        for new in ("2.0", "3.0", "4.0"):
            append(folder, Entry("bundle", "Abe", new=new))
        mirror.come_round()
        other.come_round()
        audit_file(folder).rename(folder.root / "evidence")
        time.sleep(0.002)  # the new file begins later
        append(folder, Entry("bundle", "Sato", new="5.0"))
        mirror.come_round()
        other.come_round()
        append(folder, Entry("bundle", "Sato", new="6.0"))
        other.come_round()
        mirror.come_round()
    told = [(t["entry"], t["new"]) for t in events(folder, "event/audit")]
    assert told == [(1, "2.0"), (2, "3.0"), (3, "4.0"), (1, "5.0"), (2, "6.0")]


def test_a_long_audit_is_told_bite_by_bite_as_the_line_waits_for_each(
    folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_mirror, "_BITE_ROWS", 2)
    for number in range(1, 6):
        append(folder, Entry("bundle", "Abe", new=f"{number}.0"))
    with closing(connect(folder.database)) as connection:
        full = "CREATE TRIGGER full BEFORE INSERT ON outbox WHEN new.body LIKE '%\"4.0\"%'"
        connection.execute(f"{full} BEGIN SELECT RAISE(ABORT, 'full'); END")
        mirror = AuditMirror(folder, connection, Identity("st1"))
        with pytest.raises(StoreError):
            mirror.come_round()
        assert [told["entry"] for told in events(folder, "event/audit")] == [1, 2]
        connection.execute("DROP TRIGGER full")
        mirror.come_round()
    assert [told["entry"] for told in events(folder, "event/audit")] == [1, 2, 3, 4, 5]


def test_the_station_vouches_for_the_audit_each_hour(
    folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(folder, Entry("bundle", "Abe", "1.0", "2.0"))
    with closing(connect(folder.database)) as connection:
        mirror = AuditMirror(folder, connection, Identity("st1"))
        mirror.come_round()
        monkeypatch.setattr("kenpin.audit.CHECKPOINT_MS", 0)
        mirror.come_round()
    assert [t["subject"] for t in events(folder, "event/audit")] == ["bundle", "checkpoint"]


@pytest.mark.parametrize("newest", ["damaged", "whole, and the key is gone"])
def test_an_audit_that_cannot_go_on_is_told_all_the_same(
    folder: StationFolder, newest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for new in ("2.0", "3.0"):
        append(folder, Entry("bundle", "Abe", new=new))
    if newest == "damaged":
        path = audit_file(folder)
        path.write_bytes(path.read_bytes().replace(b'"3.0"', b'"3.0'))
    else:
        monkeypatch.setattr("kenpin.audit.CHECKPOINT_MS", 0)
        folder.key.unlink()
    with closing(connect(folder.database)) as connection:
        mirror = AuditMirror(folder, connection, Identity("st1"))
        for _ in range(2):
            with pytest.raises(StoreError):
                mirror.come_round()
    told = [(t.get("new", ""), t.get("reason", "")) for t in events(folder, "event/audit")]
    assert told == [("2.0", ""), ("", "is damaged") if newest == "damaged" else ("3.0", "")]


def test_a_station_whose_alarms_nobody_looks_at_any_more_feeds_no_watchdog(
    workshop: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station_module, "ALARMS_S", 1.0)
    workshop.ready()
    append(workshop.folder, Entry("bundle", "Abe", "1.0", "2.0"))
    monkeypatch.setattr("kenpin.audit.CHECKPOINT_MS", 0)
    with Station(workshop.config(f"folder:{workshop.pictures(10)}?loop=1&rate=20")) as station:
        lock = audit_file(workshop.folder).with_suffix(".lock").open("a")
        watch = station._pulse.watch
        with ThreadPoolExecutor() as pool:
            running = pool.submit(station.run)
            wait_for(lambda: "alarms" not in watch.late(), "a round")
            fcntl.flock(lock, fcntl.LOCK_EX)  # as a process that hangs while it writes
            wait_for(lambda: watch.late() == ["alarms"], "the silence")
            lock.close()
            wait_for(lambda: watch.late() == [], "the next round")
            station.stop()
            running.result()


def test_a_row_that_was_altered_is_told_as_such(folder: StationFolder) -> None:
    append(folder, Entry("bundle", "Abe", "1.0", "2.0"))
    append(folder, Entry("bundle", "Abe", "2.0", "3.0"))
    path = audit_file(folder)
    path.write_text(path.read_text().replace('"1.0"', '"0.0"'))
    with closing(connect(folder.database)) as connection:
        AuditMirror(folder, connection, Identity("st1")).come_round()
    assert "does not follow" in events(folder, "event/audit")[1]["reason"]


def test_a_station_without_thresholds_says_so_to_the_operator(workshop: Any) -> None:
    workshop.install()
    with Station(workshop.config(f"folder:{workshop.pictures(10, 20)}")) as station:
        station.run()
    assert raised(workshop.folder) == ["model_unapproved"]


@pytest.mark.parametrize(
    ("cause", "alarm"), [(CAMERA_SET, "calibration_expired"), (MASTERS_DUE, "masters_due"), (PAUSED, "")]
)
def test_each_reason_to_release_nothing_has_an_alarm_of_its_own(workshop: Any, cause: str, alarm: str) -> None:
    workshop.ready()
    with Station(workshop.config(f"folder:{workshop.pictures(10)}")) as station:
        judge = station._changeover.judge
        judge.ready = replace(judge.ready, fault="for a reason", cause=cause)
        assert [key for key, value in station._conditions().items() if value] == [alarm] * bool(alarm)


def test_a_line_that_cannot_be_told_is_an_alarm(workshop: Any) -> None:
    class NoPlc:
        def beat(self, *, ready: bool) -> None:
            raise ConnectionError("no PLC is connected")

        def busy(self, *, busy: bool) -> None:
            pass

        def result(self, _result: object) -> None:
            raise ConnectionError("no PLC is connected")

        def close(self) -> None:
            pass

    workshop.ready()
    with Station(workshop.config(f"folder:{workshop.pictures(10)}"), output=NoPlc()) as station:
        assert not station._conditions()["line_lost"]
        station.run()
        assert station._conditions()["line_lost"]


def test_an_engine_that_gives_no_number_of_any_part_is_an_alarm(workshop: Any) -> None:
    workshop.calibrate(workshop.install(workshop.bundle(model=brightness_model(breaks_at=60.0))))
    states = []
    config = workshop.config(f"folder:{workshop.pictures(*[90] * 6, 50)}")
    with Station(config, on_part=lambda _part: states.append(station._state())) as station:
        station.run(max_parts=6)
        assert raised(workshop.folder) == ["engine_integrity"]
        why = ("DEGRADED", "no part is judged: the model gave a number that is not finite")
        assert states == [("RUNNING", "")] * 4 + [why] * 2
        station.run()
        assert states[-1] == ("RUNNING", "")


def test_a_camera_that_misses_every_part_is_an_alarm_though_it_answers(workshop: Any) -> None:
    pictures = workshop.ready().pictures(*[10] * 6)
    for path in sorted(pictures.iterdir())[:5]:
        path.write_bytes(b"none")
    with Station(workshop.config(f"folder:{pictures}")) as station:
        for _ in range(5):
            assert not station._conditions()["camera_lost"]
            station.run(max_parts=1)
        assert station._conditions()["camera_lost"]


def test_a_station_without_a_bundle_is_not_called_damaged_and_one_that_lost_it_is(workshop: Any) -> None:
    with Station(workshop.config(f"folder:{workshop.pictures(10)}")) as station:
        station.run()
    assert raised(workshop.folder) == ["model_unapproved"]
    bundle = workshop.install()
    (workshop.folder.bundles / bundle.sha256).rename(workshop.root / "gone")
    with Station(workshop.config(f"folder:{workshop.pictures(10)}")) as station:
        station.run()
    assert raised(workshop.folder) == ["model_unapproved", "engine_integrity"]


def test_parts_that_are_bad_in_a_row_are_an_alarm(workshop: Any) -> None:
    workshop.ready()
    with Station(workshop.config(f"folder:{workshop.pictures(*[250] * 6)}")) as station:
        station.run()
    assert raised(workshop.folder) == ["ng_consecutive"]
    assert len(events(workshop.folder, "event/anomaly")) == 6
