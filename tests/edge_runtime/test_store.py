from __future__ import annotations

import resource
import signal
import socket
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kenpin.edge_runtime import database, notify
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.damage import find_damage
from kenpin.edge_runtime.database import SEQ_JUMP, lease_numbers
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.part_news import PartNews
from kenpin.edge_runtime.store import Store
from kenpin.errors import StoreError
from tests.edge_runtime.publishing_line import FakeEvent


def part(part_id: str = "p", verdict: Verdict = Verdict.NO_DECISION) -> Part:
    return Part(part_id, "cam", "session", 0, 0, Decision(verdict, "test"))


def rows(path: Path, sql: str = "SELECT * FROM part ORDER BY seq") -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "station.db"


def test_the_file_is_what_the_design_says(path: Path) -> None:
    store = Store(path)
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")
    found = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert found == ["wal", 2, 1, 0x6B656E70, 7]
    store.close()


def test_the_database_itself_refuses_an_ok_without_a_score(path: Path) -> None:
    store = Store(path)
    with pytest.raises(StoreError, match="without a frame"):
        store.commit([(part(verdict=Verdict.OK), None)])
    with pytest.raises(StoreError, match="CHECK constraint"):
        store.commit([(replace(part(verdict=Verdict.OK), frame_id=1), None)])
    assert rows(path) == []
    store.close()


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    for expected in (1, 2, 3):
        store = Store(path)
        assert store.commit([(part(), None)])[0] == expected
        store.close()


def test_numbers_are_not_used_again_when_the_file_is_lost(path: Path) -> None:
    store = Store(path)
    last = [store.commit([(part(), None)])[0] for _ in range(3)][-1]
    store.close()
    path.unlink()
    store = Store(path)
    assert last < store.commit([(part(), None)])[0] <= last + SEQ_JUMP
    store.close()


def test_a_file_that_cannot_be_replaced_is_named(path: Path) -> None:
    path.with_suffix(".seq").mkdir()
    with pytest.raises(StoreError) as error:
        lease_numbers(path, 7)
    assert error.value.what == "the store does not work: Is a directory"
    assert error.value.where == str(path.with_suffix(".seq"))


@pytest.mark.parametrize("said", ["1,000,000", "-5", "0", "", "1" * 30])
def test_a_number_that_somebody_has_written_wrongly_is_not_passed_over(path: Path, said: str) -> None:
    path.with_suffix(".seq").write_text(f"{said}\n")
    for _ in range(2):
        with pytest.raises(StoreError, match="which numbers were used") as error:
            Store(path)
        assert error.value.where.endswith("station.seq")
    path.with_suffix(".seq").write_text("5000000\r\n")
    with closing(Store(path)) as store:
        assert store.commit([(part("a"), None)]) == [5_000_001]


@pytest.mark.parametrize("how", ["with parts", "of alarms"])
def test_numbers_of_events_are_not_used_again_either(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Events may be far more than parts."""
    monkeypatch.setattr(database, "SEQ_JUMP", 20)
    store = Store(path, news=PartNews(Identity("st"), "all"))
    for _ in range(30):
        if how == "with parts":
            event: Any = FakeEvent()
            store.commit([(part(), event)])
        else:
            store.change(lambda _, outbox: outbox.append("event/alarm", "{}") and None)
    used = store._outbox.newest()
    store.close()
    path.unlink()
    store = Store(path, news=PartNews(Identity("st"), "all"))
    store.commit([(part(), None)])
    assert store._outbox.newest() > used
    store.close()


@pytest.mark.parametrize("damage", ["start", "middle", "everything"])
def test_a_damaged_file_is_moved_aside_and_its_numbers_are_not_used_again(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        store = Store(path)
        last = [store.commit([(part("x" * 500), None)])[0] for _ in range(100)][-1]
        store.close()
        content = bytearray(path.read_bytes())
        where = {"start": slice(0, 64), "middle": slice(4096, 16384), "everything": slice(0, None)}[damage]
        content[where] = b"\xa5" * len(content[where])
        path.write_bytes(content)
        store = Store(path)
        assert store.commit([(part(), None)])[0] > last
        assert len(rows(path)) == 1
        store.close()
    assert len(list(path.parent.glob("station.db.corrupt-*[0-9]"))) == 2
    assert sum("was damaged" in r.message for r in caplog.records) == 2


class TooLarge(sqlite3.Connection):
    """A connection to a file of which not all can be checked within the limit."""

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if sql == "PRAGMA quick_check(1)":
            raise sqlite3.OperationalError("interrupted")
        return super().execute(sql, values)


@pytest.mark.parametrize("table", ["", "outbox", "part"])
def test_of_a_file_too_large_to_check_what_is_needed_next_is_checked(path: Path, table: str) -> None:
    store = Store(path)
    store.commit([(part("x" * 500), FakeEvent()) for _ in range(100)])
    store.close()
    with closing(sqlite3.connect(path)) as plain:
        (page,) = plain.execute("PRAGMA page_size").fetchone()
        (root,) = plain.execute("SELECT sum(rootpage) FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    if table:
        with path.open("r+b") as file:
            file.seek((root - 1) * page)
            file.write(b"\xa5" * page)
    with closing(sqlite3.connect(path, factory=TooLarge)) as connection:
        assert bool(find_damage(connection)) == bool(table)


def test_the_check_of_a_large_file_ends_in_time(path: Path) -> None:
    store = Store(path)
    store.commit([(part("x" * 500), None) for _ in range(2000)])
    store.close()
    interrupted = []

    class Slow(sqlite3.Connection):
        def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
            if sql == "PRAGMA quick_check(1)":  # as long as the timer lets it
                sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
                interrupted.append(sql)
            return super().execute(sql, values)

    with closing(sqlite3.connect(path, factory=Slow)) as connection:
        assert find_damage(connection, limit_s=0.2) == ""
    assert interrupted


@pytest.mark.parametrize("also_journal", [False, True])
def test_a_file_that_was_removed_under_the_station_is_put_back_whole(path: Path, also_journal: bool) -> None:
    store = Store(path)
    store.require_file()
    store.commit([(part("before"), None)])
    for gone in path.parent.glob("station.db*" if also_journal else "station.db"):
        gone.unlink()
    (seq,) = store.commit([(replace(part("after"), image_ref="after.png"), FakeEvent())])
    with pytest.raises(StoreError, match="was removed or replaced while the station runs"):
        store.require_file()
    assert not path.exists()
    store.note_image("after.png", "ab")
    store.close()
    assert rows(path, "SELECT part_id, image_sha256 FROM part") == [("before", ""), ("after", "ab")]
    assert rows(path, "SELECT part_seq FROM outbox") == [(seq,)]
    again = Store(path)
    again.require_file()
    assert again.commit([(part("next"), None)]) == [seq + 1]
    again.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["station.db", "station.seq"]


def test_a_file_that_was_replaced_under_the_station_is_not_mixed_with_its_own(
    path: Path, tmp_path: Path
) -> None:
    other = Store(tmp_path / "copy.db")
    other.commit([(part("of the copy"), None)])
    other.close()
    store = Store(path)
    store.commit([(part("ours"), None)])
    (tmp_path / "copy.db").replace(path)
    with pytest.raises(StoreError, match="was removed or replaced while the station runs"):
        store.require_file()
    assert rows(path, "SELECT part_id FROM part") == [("of the copy",)]
    store.close()
    (saved,) = path.parent.glob("station.db.was-*")
    assert rows(saved, "SELECT part_id FROM part") == [("ours",)]
    assert rows(path, "SELECT part_id FROM part") == [("of the copy",)]


def test_the_database_of_an_older_kenpin_is_kept_and_takes_light_and_focus(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(database, "MIGRATIONS", database.MIGRATIONS[:3])
        connection = database.open_database(path)
    columns = (
        "part_id, camera, session_id, verdict, reason, image_ref, ts_ms, captured_mono_ns, decided_mono_ns"
    )
    said = ("old", "cam", "s", "NG", "", "day/1.png", 1, 2, 3, 4, 5.0)
    marks = ", ".join("?" * len(said))
    connection.execute(f"INSERT INTO part ({columns}, decided_ns, latency_ms) VALUES ({marks})", said)
    connection.close()
    store = Store(path)
    store.commit([(replace(part("new"), light=118.5, focus=0.25), None)])
    store.note_image("day/1.png", "a" * 64)
    store.close()
    found = rows(path, "SELECT part_id, light, focus, image_sha256 FROM part ORDER BY seq")
    assert found == [("old", None, None, "a" * 64), ("new", 118.5, 0.25, "")]


def test_whoever_watches_the_start_waits_while_a_large_database_is_brought_to_a_new_version(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A year of parts takes longer than a start may: killed in the middle, it would begin again for ever."""
    takes_a_while = """
    CREATE TABLE many AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000)
        SELECT i FROM n;
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setattr(notify, "_ASK_S", 0.01)
        database.open_database(path).close()
        assert not caplog.records
        monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, takes_a_while))
        database.open_database(path).close()
        assert len(caplog.records) == 1
        assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=120000000"


def test_noting_a_picture_does_not_read_all_parts(path: Path) -> None:
    store = Store(path)
    store.note_image("day/1.png", "a" * 64)
    ((sql, values),) = store._notes
    plan = store._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    assert [row[3] for row in plan] == ["SEARCH part USING INDEX part_image (image_ref=?)"]
    store.close()


def test_a_note_is_written_once(path: Path) -> None:
    store = Store(path)
    store.commit([(replace(part(), image_ref="day/1.png"), None)])
    store.note_image("day/1.png", "a" * 64)
    store.commit([])
    store._connection.execute("UPDATE part SET image_sha256 = 'changed since'")
    for _ in range(2):
        store.commit([(part(), None)])
    store.close()
    assert rows(path, "SELECT image_sha256 FROM part WHERE seq = 1") == [("changed since",)]


def test_a_newer_database_is_left_alone(path: Path) -> None:
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer kenpin"):
        Store(path)


def test_a_path_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "station.db").mkdir()
    with pytest.raises(StoreError, match="does not work"):
        Store(tmp_path / "station.db")


def test_a_write_that_fails_leaves_nothing_behind_and_the_next_one_works(path: Path) -> None:
    store = Store(path)
    store.commit([(part("before"), None)])
    size = path.with_name("station.db-wal").stat().st_size
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))  # the kernel refuses to let files grow
    try:
        with pytest.raises(StoreError, match="does not work"):
            store.commit([(part("lost"), None)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.commit([(part("after"), None)])[0] == 2
    assert [row[1] for row in rows(path)] == ["before", "after"]
    store.close()


def test_what_became_of_an_ok_is_written_with_the_next_commit(path: Path) -> None:
    store = Store(path)
    released, withheld = (store.commit([(part(name), None)])[0] for name in "ab")
    store._connection.execute(
        "UPDATE part SET verdict = 'OK', score = 1, t1 = 2, threshold_rev = 1, bundle_sha256 = 'x'"
    )
    store.note_released(released)
    store.note_withheld(withheld, "output failed", "output")
    store.commit([(part("c"), None)])
    found = rows(path, "SELECT verdict, released, reason, cause FROM part ORDER BY seq")
    assert found[:2] == [("OK", 1, "test", ""), ("NO_DECISION", 0, "output failed", "output")]
    store.close()


@pytest.mark.parametrize("kind", [sqlite3.IntegrityError, sqlite3.OperationalError, sqlite3.DataError])
def test_what_is_no_damage_moves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[sqlite3.Error]
) -> None:
    Store(path).close()

    def fail(*_arguments: object) -> bool:
        raise kind("not the file's fault")

    with monkeypatch.context() as failing:
        failing.setattr(database, "_migrate", fail)
        with pytest.raises(StoreError, match="not the file's fault"):
            Store(path)
    assert list(path.parent.glob("*.corrupt-*")) == []
    Store(path).close()


class Overtaken:
    """A connection of a process that another one overtakes, which prepares the file meanwhile.

    It comes before a lock is taken, or after the first thing that is read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = database.connect(path)
        self._is_overtaken = False

    def execute(self, sql: str, values: Sequence[object] = ()) -> Any:
        if sql.startswith("BEGIN"):
            self._overtake()
        rows = self._connection.execute(sql, values).fetchall()
        if not self._connection.in_transaction:
            self._overtake()
        return SimpleNamespace(fetchone=lambda: rows[0], fetchall=lambda: rows)

    def _overtake(self) -> None:
        if not self._is_overtaken:
            self._is_overtaken = True
            database.open_database(self._path).close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize("step", [database._migrate, database._check_owner])
def test_two_processes_may_prepare_the_same_new_file(path: Path, step: Callable[..., Any]) -> None:
    overtaken = Overtaken(path)
    with closing(overtaken):
        assert not step(overtaken, path)  # nothing is left to be done, nothing is wrong
        assert overtaken.execute("PRAGMA user_version").fetchone() == (7,)
    Store(path).close()
    assert list(path.parent.glob("*.corrupt-*")) == []
