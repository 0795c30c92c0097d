"""Old records go, and with them nothing that is still needed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime import retention
from kenpin.edge_runtime.database import connect, open_database
from kenpin.edge_runtime.retention import Retention
from kenpin.edge_runtime.station import Station
from kenpin.events import now_ms

DAY_MS = 24 * 3600 * 1000


@pytest.fixture(autouse=True)
def synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "clock_is_synchronised", lambda: True)


@pytest.fixture
def connection(workshop: Any) -> Iterator[sqlite3.Connection]:
    """A station that judged nine parts: OK and NG in turn."""
    workshop.ready()
    with Station(workshop.config(f"folder:{workshop.pictures(*[10, 250] * 4, 10)}")) as station:
        station.run()
    with closing(connect(workshop.folder.database)) as opened:
        yield opened


def seqs(connection: sqlite3.Connection) -> list[int]:
    return [seq for (seq,) in connection.execute("SELECT seq FROM part ORDER BY seq")]


def age(connection: sqlite3.Connection, *, up_to: int, days: float) -> None:
    connection.execute("UPDATE part SET ts_ms = ? WHERE seq <= ?", (now_ms() - round(days * DAY_MS), up_to))


def test_what_is_young_stays(connection: sqlite3.Connection) -> None:
    age(connection, up_to=9, days=9.9)
    Retention(connection, keep_days=10).come_round()
    assert len(seqs(connection)) == 9


def test_what_is_old_goes_unless_its_event_is_still_there(connection: sqlite3.Connection) -> None:
    age(connection, up_to=6, days=10.1)
    Retention(connection, keep_days=10).come_round()
    told = [seq for (seq,) in connection.execute("SELECT part_seq FROM outbox WHERE part_seq IS NOT NULL")]
    assert seqs(connection) == sorted({7, 8, 9} | {seq for seq in told if seq <= 6})
    connection.execute("DELETE FROM outbox")
    Retention(connection, keep_days=10).come_round()
    assert seqs(connection) == [7, 8, 9]


def test_parts_that_were_judged_before_the_clock_was_set_stay_with_those_around_them(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BITE_ROWS", 2)
    connection.execute("DELETE FROM outbox")
    age(connection, up_to=4, days=11)
    connection.execute("UPDATE part SET ts_ms = seq WHERE seq IN (3, 4, 7, 8)")  # 1970, as without a battery
    keeper = Retention(connection, keep_days=10)
    for _ in range(5):
        keeper.come_round()
    assert seqs(connection) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("days", [9, 11])
def test_the_first_parts_of_a_station_without_a_battery_are_as_old_as_the_first_date(
    connection: sqlite3.Connection, days: int
) -> None:
    connection.execute("DELETE FROM outbox")
    age(connection, up_to=5, days=days)
    connection.execute("UPDATE part SET ts_ms = seq WHERE seq <= 3")  # 1970
    Retention(connection, keep_days=10).come_round()
    assert seqs(connection) == ([1, 2, 3, 4, 5] if days == 9 else []) + [6, 7, 8, 9]


def test_without_any_date_nothing_goes(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM outbox")
    connection.execute("UPDATE part SET ts_ms = seq")
    Retention(connection, keep_days=10).come_round()
    assert len(seqs(connection)) == 9


def test_a_clock_that_is_years_ahead_takes_nothing_away(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("DELETE FROM outbox")
    ahead_ms = now_ms() + 4000 * DAY_MS
    monkeypatch.setattr(retention, "now_ms", lambda: ahead_ms)
    monkeypatch.setattr(retention, "clock_is_synchronised", lambda: False)
    age(connection, up_to=2, days=11)
    Retention(connection, keep_days=10).come_round()
    assert seqs(connection) == [3, 4, 5, 6, 7, 8, 9]  # against the last part before the start
    monkeypatch.setattr(retention, "clock_is_synchronised", lambda: True)
    Retention(connection, keep_days=10).come_round()
    assert seqs(connection) == []


def test_it_goes_bite_by_bite(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BITE_ROWS", 2)
    connection.execute("DELETE FROM outbox")
    age(connection, up_to=5, days=11)
    keeper = Retention(connection, keep_days=10)
    left = []
    for _ in range(5):
        keeper.come_round()
        left.append(len(seqs(connection)))
    assert left == [7, 5, 4, 4, 4]


@pytest.mark.parametrize("stuck", ["its event waits", "a date to come"])
def test_what_must_stay_does_not_keep_what_is_behind_it(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    monkeypatch.setattr(retention, "_BITE_ROWS", 2)
    connection.execute("DELETE FROM outbox")
    age(connection, up_to=8, days=11)
    if stuck == "its event waits":
        event = (
            "INSERT INTO outbox (part_seq, created_ms, prio, topic, body, bytes) VALUES (?, 1, 1, 't', '{}', 9)"
        )
        connection.executemany(event, [(seq,) for seq in range(1, 6)])
    else:
        age(connection, up_to=5, days=-1000)
    keeper = Retention(connection, keep_days=10)
    for _ in range(5):
        keeper.come_round()
    assert seqs(connection) == [1, 2, 3, 4, 5, 9]


def test_an_hour_later_it_begins_again(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [1000.0]
    monkeypatch.setattr(retention.time, "monotonic", lambda: clock_s[0])
    monkeypatch.setattr(retention, "_BITE_ROWS", 4)
    connection.execute("DELETE FROM outbox")
    keeper = Retention(connection, keep_days=10)
    for _ in range(3):  # to the newest part
        keeper.come_round()
    age(connection, up_to=2, days=11)
    keeper.come_round()
    assert len(seqs(connection)) == 9
    clock_s[0] += retention._EVERY_S
    keeper.come_round()
    assert seqs(connection) == [3, 4, 5, 6, 7, 8, 9]


def test_numbers_are_never_used_again(connection: sqlite3.Connection, workshop: Any, tmp_path: Path) -> None:
    connection.execute("DELETE FROM outbox")
    age(connection, up_to=9, days=11)
    Retention(connection, keep_days=10).come_round()
    assert seqs(connection) == []
    with Station(workshop.config(f"folder:{workshop.pictures(10)}")) as station:
        station.run(max_parts=1)
    assert seqs(connection) == [10]


def test_an_event_is_found_by_its_part(workshop: Any) -> None:
    """Without an index every part that goes would cost a look at every event."""
    workshop.folder.create()
    with closing(open_database(workshop.folder.database)) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT 1 FROM outbox WHERE part_seq = 1").fetchall()
    assert "USING" in str(plan)
    assert "INDEX" in str(plan)
