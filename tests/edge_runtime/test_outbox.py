"""The outbox on disk: what waits, what goes first when there is no room, and what nobody can lose unseen."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kenpin.edge_runtime import announce, database, outbox, room
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.clock import FIRST_MS
from kenpin.edge_runtime.database import open_database, reading, transaction
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.outbox import KEEP_ACKED_MS, Outbox
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.room import Gap, Room
from kenpin.edge_runtime.store import Store
from kenpin.errors import StoreError
from kenpin.events import AlarmSummary, Audit, now_ms

IDENTITY = Identity("st1")
OLD_MS = FIRST_MS  # more than seven days ago


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether the machine's clock is set."""
    made = SimpleNamespace(is_set=True)
    monkeypatch.setattr(outbox, "clock_is_synchronised", lambda: made.is_set)
    return made


class Shelf:
    """An outbox with a connection of its own."""

    def __init__(self, path: Path, limits: Room | None = None) -> None:
        self.path = path
        self.connection = open_database(path)
        self.outbox = Outbox(self.connection, limits)

    def limit(self, limits: Room) -> None:
        self.outbox = Outbox(self.connection, limits)

    def add(self, count: int, topic: str = "event/anomaly", size: int = 100) -> list[int]:
        """Events with that much text."""
        with transaction(self.connection):
            body = '{"x":"' + "y" * size + '"}'
            return [self.outbox.append(topic, body) for _ in range(count)]

    def left(self) -> list[int]:
        return [entry.seq for entry in self.outbox.replay(since=0, limit=10**6)]

    def rows(self, sql: str) -> list[Any]:
        return self.connection.execute(sql).fetchall()


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    made = Shelf(tmp_path / "station.db")
    yield made
    made.connection.close()


def summary(active: int) -> AlarmSummary:
    return AlarmSummary(
        **IDENTITY.common(1), active_count=active, unacked_count=0, shelved_count=0, highest_priority=0
    )


def test_events_wait_in_order_until_they_are_acknowledged(shelf: Shelf) -> None:
    outbox = shelf.outbox
    assert shelf.add(5) == [1, 2, 3, 4, 5]
    outbox.mark_acked([1, 3])
    assert [e.seq for e in outbox.waiting(after=0, limit=10)] == [2, 4, 5]
    assert [e.seq for e in outbox.waiting(after=0, up_to=4, limit=10)] == [2, 4]
    assert [e.seq for e in outbox.waiting(after=2, limit=1)] == [4]
    assert [e.seq for e in outbox.replay(since=2, limit=10)] == [2, 3, 4, 5]
    assert outbox.replay(since=3, limit=1)[0].payload(late=True) == {"x": "y" * 100, "seq": 3, "late": True}
    assert (outbox.depth().waiting, outbox.newest()) == (3, 5)


def test_the_depth_tells_what_waits_and_since_when(shelf: Shelf) -> None:
    assert shelf.outbox.depth() == announce.Depth(0, 0, 0.0, 0, 0)
    shelf.add(4)
    shelf.connection.execute("UPDATE outbox SET created_ms = created_ms - 5000 * (5 - seq)")
    size = shelf.outbox.depth().bytes
    assert shelf.outbox.depth().waiting_bytes == size > 0
    shelf.outbox.mark_acked([1])
    shelf.outbox.mark_acked([1])
    depth = shelf.outbox.depth()
    assert (depth.waiting, depth.bytes, depth.waiting_bytes) == (3, size, size * 3 // 4)
    assert 15 <= depth.oldest_s < 60
    shelf.connection.execute("DELETE FROM outbox WHERE seq IN (1, 2)")
    depth = shelf.outbox.depth()
    assert (depth.bytes, depth.waiting_bytes) == (size // 2, size // 2)


def test_a_full_outbox_lets_go_of_acknowledged_events_first_then_of_the_oldest(shelf: Shelf) -> None:
    shelf.add(10)
    size = shelf.outbox.depth().bytes
    shelf.limit(Room(size))
    shelf.outbox.mark_acked([4, 5])
    shelf.add(2)
    assert shelf.left() == [1, 2, 3, 6, 7, 8, 9, 10, 11, 12]
    assert shelf.outbox.depth().dropped == 0
    assert shelf.rows("SELECT * FROM gap") == []
    shelf.add(3)
    assert shelf.left() == [6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    assert shelf.outbox.depth().dropped == 3
    assert shelf.outbox.depth().bytes <= size


def test_results_go_before_anomalies_and_alarms_and_audit_last(shelf: Shelf) -> None:
    """With equally long topics, so that the room is for eight events, whatever they are about."""
    topics = ("event/audit", "event/resul", "event/anoma", "event/alarm")
    priorities = room_for = {"event/resul": 0, "event/anoma": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kenpin.edge_runtime.outbox._PRIORITY", priorities)
        for topic in topics:
            shelf.add(2, topic)
        shelf.limit(Room(shelf.outbox.depth().bytes))
        kept = []
        for _ in range(6):
            shelf.add(1, "event/audit")
            kept.append([t for (t,) in shelf.rows("SELECT topic FROM outbox ORDER BY seq")].count)
    assert room_for == priorities
    assert [count("event/resul") for count in kept] == [1, 0, 0, 0, 0, 0]
    assert [count("event/anoma") for count in kept] == [2, 2, 1, 0, 0, 0]
    # Then the oldest of those that are equally important.
    assert [count("event/alarm") for count in kept] == [2, 2, 2, 2, 2, 2]
    assert shelf.left() == [7, 8, 9, 10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("topic", "priority"),
    [("event/result", 0), ("event/anomaly", 1), ("event/alarm", 2), ("event/audit", 2), ("reply/ack", 2)],
)
def test_what_can_be_spared_stands_with_each_event(shelf: Shelf, topic: str, priority: int) -> None:
    shelf.add(1, topic)
    assert shelf.rows("SELECT prio FROM outbox") == [(priority,)]


def test_what_was_thrown_away_is_told_once_as_a_gap(shelf: Shelf) -> None:
    shelf.add(4, "event/result")
    shelf.add(3, "event/anomaly")
    shelf.limit(Room(shelf.outbox.depth().bytes))
    shelf.add(5, "event/anomaly")
    assert shelf.rows("SELECT * FROM gap ORDER BY topic") == [
        ("event/anomaly", 5, 6, 2),
        ("event/result", 1, 4, 4),
    ]
    told: list[Gap] = []

    def make(gap: Gap) -> Audit:
        told.append(gap)
        return announce.gap(IDENTITY, gap)

    shelf.limit(Room())
    shelf.outbox.report_gaps(make)
    shelf.outbox.report_gaps(make)
    assert told == [Gap("event/anomaly", 5, 6, 2), Gap("event/result", 1, 4, 4)]
    audits = [json.loads(e.body) for e in shelf.outbox.replay(since=0, limit=99) if e.topic == "event/audit"]
    assert [
        (a["kind"], a["subject"], a["gap_first_seq"], a["gap_last_seq"], a["gap_count"]) for a in audits
    ] == [("gap", "event/anomaly", 5, 6, 2), ("gap", "event/result", 1, 4, 4)]


def test_a_gap_that_cannot_be_told_is_not_forgotten(shelf: Shelf) -> None:
    shelf.connection.execute("INSERT INTO gap VALUES ('event/result', 1, 2, 2)")

    def fails(_gap: Gap) -> Audit:
        raise OSError("no")

    with pytest.raises(StoreError):
        shelf.outbox.report_gaps(fails)
    assert shelf.rows("SELECT * FROM gap") == [("event/result", 1, 2, 2)]


def test_on_a_disk_that_is_nearly_full_the_file_does_not_grow(shelf: Shelf) -> None:
    free = 10**12
    shelf.limit(Room(min_free_bytes=10**9, small_bytes=0, free_bytes=lambda: free))
    shelf.add(400, size=700)
    free = 10**9 - 1
    (pages,) = shelf.rows("PRAGMA page_count")[0]
    for _ in range(40):
        shelf.add(20, size=700)
    assert shelf.rows("PRAGMA page_count")[0][0] <= pages + room._SPARE_PAGES
    assert 200 < len(shelf.left()) <= 400
    assert shelf.left()[-1] == 1200
    assert shelf.outbox.depth().dropped == 1200 - len(shelf.left())


def test_a_full_disk_costs_no_event_while_there_are_few(shelf: Shelf) -> None:
    shelf.limit(Room(free_bytes=lambda: 0))
    shelf.add(100)
    assert len(shelf.left()) == 100


def test_the_pressure_is_that_of_the_room_that_there_is() -> None:
    for free, waiting, pressure in ((10**9, 128 << 20, 0.5), (0, 2 << 20, 0.5), (0, 128 << 20, 1.0)):
        assert Room(free_bytes=lambda free=free: free).pressure(waiting) == pressure  # type: ignore[misc]


def test_the_room_is_that_of_the_disk_with_the_database(tmp_path: Path) -> None:
    assert 0 < Room.on_disk_of(tmp_path / "station.db").free_bytes() < 1 << 62
    assert (Room().max_bytes, Room().min_free_bytes) == (256 << 20, 512 << 20)


def test_the_size_limit_holds_for_the_file(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "station.db", Room(300_000))
    shelf.add(1000, size=700)
    shelf.connection.execute("VACUUM")
    shelf.connection.close()
    assert 250_000 < shelf.path.stat().st_size < 400_000


def test_acknowledged_events_are_kept_for_seven_days(shelf: Shelf) -> None:
    shelf.add(3)
    shelf.outbox.mark_acked([1, 2])
    shelf.connection.execute("UPDATE outbox SET acked_ms = ? WHERE seq = 1", (now_ms() - KEEP_ACKED_MS - 1,))
    assert not shelf.outbox.prune()
    assert shelf.left() == [2, 3]
    shelf.outbox.mark_acked([3])
    shelf.connection.execute("UPDATE outbox SET acked_ms = ?", (OLD_MS,))
    shelf.outbox.prune()
    assert shelf.add(1) == [4]  # numbers of removed events are not given again


@pytest.mark.parametrize(
    "dated_ms", [1, OLD_MS]
)  # as without a battery; as the clock stood when it was switched off
def test_what_was_acknowledged_before_the_clock_was_set_has_its_seven_days_too(
    shelf: Shelf, clock: Any, monkeypatch: pytest.MonkeyPatch, dated_ms: int
) -> None:
    shelf.add(4)
    shelf.outbox.mark_acked([1])
    shelf.connection.execute("UPDATE outbox SET acked_ms = ? WHERE seq = 1", (OLD_MS,))
    clock.is_set = False
    with monkeypatch.context() as before:
        before.setattr(outbox, "now_ms", lambda: dated_ms)
        shelf.outbox.mark_acked([2])
        shelf.outbox.mark_acked([3])
    shelf.outbox.prune()
    assert shelf.left() == [1, 2, 3, 4]
    clock.is_set = True
    if dated_ms < FIRST_MS:
        shelf.limit(Room())  # a start in between: the date tells by itself
    shelf.outbox.prune()
    assert shelf.left() == [2, 3, 4]
    later_ms = now_ms() + KEEP_ACKED_MS + 1000
    monkeypatch.setattr(outbox, "now_ms", lambda: later_ms)
    shelf.limit(Room())  # the next start
    shelf.outbox.prune()
    assert shelf.left() == [4]


def test_a_clock_that_is_years_ahead_and_that_nobody_sets_removes_no_event(
    shelf: Shelf, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add(1)
    shelf.outbox.mark_acked([1])
    clock.is_set = False
    monkeypatch.setattr(outbox, "now_ms", lambda: now_ms() + 4000 * 24 * 3_600_000)
    shelf.outbox.prune()
    assert shelf.left() == [1]


def test_old_events_go_bite_by_bite_and_their_room_goes_back_to_the_disk(shelf: Shelf) -> None:
    seqs = shelf.add(1200, size=4000)
    shelf.outbox.mark_acked(seqs)
    shelf.connection.execute("UPDATE outbox SET acked_ms = ?", (OLD_MS,))
    (before,) = shelf.rows("PRAGMA page_count")[0]
    assert [shelf.outbox.prune() for _ in range(3)] == [True, True, False]
    assert shelf.left() == []
    assert shelf.rows("PRAGMA page_count")[0][0] < before - 2 * 256


def test_acknowledged_events_can_be_sent_again(shelf: Shelf) -> None:
    shelf.add(6)
    shelf.outbox.mark_acked([1, 2, 3, 4, 5])
    assert shelf.outbox.send_again(since=2, count=3) == 3
    assert [e.seq for e in shelf.outbox.waiting(after=0, limit=9)] == [2, 3, 4, 6]
    assert shelf.outbox.send_again(since=6, count=3) == 0


def test_a_retained_topic_keeps_its_latest_value_only(shelf: Shelf) -> None:
    with transaction(shelf.connection):
        for active in range(5):
            shelf.outbox.set_state(summary(active))
    (found,) = shelf.outbox.retained(after=0)
    assert (found.topic, json.loads(found.body)["active_count"], found.version) == ("alarm_summary", 4, 5)
    assert shelf.outbox.retained(after=5) == []


def test_state_and_event_are_one_transaction(shelf: Shelf) -> None:
    def both_and_fail() -> None:
        with transaction(shelf.connection):
            shelf.outbox.set_state(summary(1))
            shelf.outbox.put(announce.gap(IDENTITY, Gap("event/result", 1, 2, 2)))
            raise OSError("cut here")

    with pytest.raises(StoreError):
        both_and_fail()
    assert (shelf.outbox.retained(after=0), shelf.left()) == ([], [])


def test_others_write_in_one_transaction_with_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "station.db")

    def step(connection: sqlite3.Connection, outbox: Outbox) -> None:
        connection.execute("INSERT INTO alarm VALUES ('disk_low', '{}')")
        outbox.put(announce.gap(IDENTITY, Gap("event/result", 1, 2, 2)))
        outbox.set_state(summary(1))

    store.change(step)
    assert [e.topic for e in store._outbox.replay(since=0, limit=9)] == ["event/audit"]
    with pytest.raises(StoreError):
        store.change(step)  # the alarm's row is there already
    assert store._outbox.newest() == 1
    store.close()


def open_older(path: Path, *, version: int) -> sqlite3.Connection:
    """A database as an older kenpin makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", database.MIGRATIONS[:version])
        return open_database(path)


def test_a_database_of_the_version_before_keeps_its_events_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    old = open_older(path, version=2)
    old.execute(
        "INSERT INTO part (part_id, camera, session_id, ts_ms, captured_mono_ns, decided_mono_ns, decided_ns, "
        "verdict, reason, latency_ms) VALUES ('p', 'c', 's', 0, 0, 0, 0, 'NG', '', 0)"
    )
    row = "INSERT INTO outbox (part_seq, created_ms, topic, body, bytes, acked_ms) VALUES (1, 5, 't', ?, 50, ?)"
    old.executemany(row, [("a", None), ("b", 7), ("c", None)])
    old.execute("DELETE FROM outbox WHERE body = 'c'")
    old.close()
    shelf = Shelf(path)
    assert shelf.rows("SELECT seq, part_seq, created_ms, prio, topic, body, bytes, acked_ms FROM outbox") == [
        (1, 1, 5, 1, "t", "a", 50, None),
        (2, 1, 5, 1, "t", "b", 50, 7),
    ]
    depth = shelf.outbox.depth()
    assert (depth.bytes, depth.waiting_bytes) == (100, 50)
    assert shelf.add(1) == [4]  # 3 was given, though its event is gone
    assert shelf.rows("SELECT count(*) FROM sqlite_sequence WHERE name = 'outbox'") == [(1,)]
    assert shelf.rows("PRAGMA integrity_check") == [("ok",)]
    shelf.connection.close()


def test_versions_that_outgrew_an_integer_count_anew_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    old = open_older(path, version=5)
    old.executemany(
        "INSERT INTO state VALUES (?, ?, ?)", [("b", "2", 2.0**70), ("a", "3", 2.0**71), ("c", "1", 7)]
    )
    assert old.execute("SELECT typeof(ver) FROM state WHERE topic = 'a'").fetchone() == ("real",)
    old.close()
    shelf = Shelf(path)
    found = [(value.topic, value.body, value.version) for value in shelf.outbox.retained(after=0)]
    assert found == [("c", "1", 1), ("b", "2", 2), ("a", "3", 3)]
    shelf.connection.close()


def test_versions_that_are_integers_stay(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    old = open_older(path, version=5)
    old.execute("INSERT INTO state VALUES ('a', '1', 700)")
    old.close()
    shelf = Shelf(path)
    assert [value.version for value in shelf.outbox.retained(after=0)] == [700]
    shelf.connection.close()


def test_reading_beside_the_station_cannot_write(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add(1)
    with reading(shelf.path) as reader:
        assert len(Outbox(reader).replay(since=0, limit=9)) == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM outbox")
    with pytest.raises(StoreError, match="no station database"), reading(tmp_path / "none.db"):
        pass


def test_every_part_that_may_have_an_event_has_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path / "station.db")
    part = Part("p", "cam", "s", 0, 0, Decision(Verdict.NG))
    assert store.commit([(replace(part, part_id=name), None) for name in "ab"]) == [1, 2]
    store.close()
