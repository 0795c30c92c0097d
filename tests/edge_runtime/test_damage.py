"""Damage of the database that shows while the station runs: a fresh one, and no alert lost that can be read."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.rig import Rig
from kenpin.audit import Entry, append
from kenpin.edge_runtime import announce
from kenpin.edge_runtime.alarm import Action
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.audit_mirror import AuditMirror
from kenpin.edge_runtime.cli import events
from kenpin.edge_runtime.cloud_event import message_properties
from kenpin.edge_runtime.database import connect
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.delivery import Delivery, Manner
from kenpin.edge_runtime.equipment import Equipment
from kenpin.edge_runtime.link_signal import Acked, Up
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.retained_topics import RetainedTopics
from kenpin.edge_runtime.room import Gap
from kenpin.edge_runtime.site import NoNews, in_own_processes
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.stored_body import shorten
from kenpin.edge_runtime.vitals import Vitals, write_vitals
from kenpin.errors import StoreDamaged, StoreError
from tests.edge_runtime.publishing_line import FakeEvent, PublishingLine

_PAGE = 4096
END = '{"schema": "end"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "station.db"


def commit(store: Store, name: str = "p") -> int:
    event: Any = FakeEvent()
    (seq,) = store.commit([(Part(name, "cam", "s", 0, 0, Decision(Verdict.NG)), event)])
    return seq


def damage(path: Path, table: str, page: int = 0) -> None:
    """A bad page of a table: its root, or one of its leaves; nobody has it in memory any more."""
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        with path.open("r+b") as content:
            content.seek((root - 1) * _PAGE + 8)
            head = content.read(_PAGE)
            if page:  # the first pointers of an inner page are to its first children
                cell = int.from_bytes(head[4 + 2 * page : 6 + 2 * page], "big") - 8
                root = int.from_bytes(head[cell : cell + 4], "big")
            content.seek((root - 1) * _PAGE)
            content.write(b"\xff" * _PAGE)
        connection.execute("INSERT INTO counter VALUES ('touched', 1)")


def waiting(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        sql = "SELECT seq FROM outbox WHERE acked_ms IS NULL ORDER BY seq"
        return [seq for (seq,) in connection.execute(sql)]


def test_what_waits_goes_into_a_fresh_file_and_what_had_waited_follows_once(path: Path) -> None:
    with closing(Store(path)) as store:
        seqs = [commit(store) for _ in range(3)]
        damage(path, "part")
        with pytest.raises(StoreDamaged, match="malformed"):
            commit(store)
        with pytest.raises(StoreError, match="was damaged while the station runs"):
            store.require_file()
        store.require_file()
        (new,) = waiting(path) or [commit(store)]
        assert new > 999_999
        (aside,) = path.parent.glob("station.db.corrupt-*[0-9]")
        assert "malformed" in store.damage
        assert aside.name in store.damage
    with closing(Store(path)) as store:
        assert waiting(path) == [*seqs, new]
        assert f"3 events that waited in {aside.name}" in store.damage
        store._outbox.mark_acked(seqs)
        assert commit(store) == new + 1
    with closing(Store(path)) as store:
        assert store.damage == ""
        assert waiting(path) == [new, new + 1]


def test_a_second_damage_is_rescued_from_though_the_clock_was_not_set_then(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_ms = iter((1_790_000_000_000, 60_000))
    monkeypatch.setattr("kenpin.edge_runtime.database.now_ms", lambda: next(found_ms))
    for _ in range(2):
        with closing(Store(path)) as store:
            store._outbox.mark_acked(waiting(path))
            newest = commit(store)
        damage(path, "part")
    with closing(Store(path)):
        assert waiting(path) == [newest]


def test_of_a_bad_page_of_events_those_on_both_sides_are_rescued_and_nothing_else(path: Path) -> None:
    with closing(Store(path)) as store:
        for _ in range(200):
            commit(store)
        store._outbox.mark_acked(range(1, 11))
        store._connection.execute("UPDATE outbox SET body = 'x' WHERE seq = 12")  # a bit that flipped
    damage(path, "outbox", page=2)
    with closing(Store(path)):
        rescued = waiting(path)
    lost = sorted({*range(11, 201)} - {*rescued})
    assert rescued[0] == 11
    assert rescued[-1] == 200
    assert lost[0] == 12
    assert len(rescued) > 120
    assert lost[1:] == list(range(lost[1], lost[-1] + 1))


def test_what_was_told_of_the_audit_is_not_told_again_as_other_events(workshop: Any) -> None:
    workshop.folder.create()
    for new in ("first", "second"):
        append(workshop.folder, Entry("users", "sato", new=new))
        with closing(Store(workshop.folder.database)) as store:
            AuditMirror(workshop.folder, store._connection, Identity("st1")).come_round()
            told = [entry.payload() for entry in store._outbox.waiting(after=0, limit=99)]
            assert [event["new"] for event in told if event["subject"] == "users"] == [new]
            store._outbox.mark_acked([event["seq"] for event in told])
        damage(workshop.folder.database, "part")


def test_a_watchman_that_finds_damage_lets_the_station_begin_anew(workshop: Any, wait_for: Any) -> None:
    workshop.ready()
    database = workshop.folder.database
    with Station(workshop.config(f"folder:{workshop.pictures(10)}")) as station:
        station._watchman.start()
        wait_for(lambda: station._counters, "the first round")
        damage(database, "alarm")
        wait_for(lambda: station._store._found, "the damage")
        with pytest.raises(StoreError, match="was damaged while the station runs"):
            station.run()
    rows = [json.loads(line)["row"] for line in (workshop.folder.root / "audit.jsonl").read_text().splitlines()]
    told = [row for row in rows if row["what"] == "database"]
    assert [row["by"] for row in told] == ["station"]
    assert "station.db.corrupt-" in told[0]["why"]


def test_a_publisher_that_cannot_read_its_events_says_which_file_is_bad(
    path: Path, line: PublishingLine, mosquitto: Any, wait_for: Any
) -> None:
    line.commit(1)
    damage(path, "outbox")
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: publisher.damaged_file == line.store.file, "the damage")
    line.stop(drain_s=0)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "{}", '{"capture_to_publish_ms":1,"tt_ms":1}', None])
def test_an_event_that_cannot_be_read_keeps_no_other_from_going_out(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any, text: str | None
) -> None:
    scada = make_subscriber(mosquitto.port)
    line.commit(3)
    if text is not None:
        line.store._connection.execute("UPDATE outbox SET body = ? WHERE seq = 2", (text,))
    else:
        line.store._connection.execute("UPDATE outbox SET body = x'ff' WHERE seq = 2")
    line.publish(mosquitto.port)
    wait_for(lambda: line.waiting() == 0, "all others")
    wait_for(lambda: scada.payloads("event/audit") or text == "{}", "the gap")
    line.stop()
    assert [seq for seq in scada.first_seqs() if seq != 2] == [1, 3]
    for gap in scada.payloads("event/audit"):
        assert (gap["kind"], gap["gap_first_seq"], gap["gap_count"]) == ("gap", 2, 1)


class Wire:
    """Takes what paho takes, and notes it."""

    connection = 1

    def __init__(self) -> None:
        self.topics: list[str] = []

    def publish(self, topic: str, body: bytes, **_: object) -> int:
        message_properties(body, source="P")
        if "+" in topic or "#" in topic:
            raise ValueError("Publish topic cannot contain wildcards.")
        self.topics.append(topic)
        return len(self.topics)


def flipped(text: str) -> Iterator[bytes]:
    """The text with one bit of it flipped, which SQLite does not notice: two of each byte, one at a time."""
    whole = text.encode()
    for place, byte in enumerate(whole):
        for bit in (7, place % 7):
            yield whole[:place] + bytes([byte ^ 1 << bit]) + whole[place + 1 :]


@pytest.mark.parametrize("column", ["topic", "body"])
def test_no_flipped_bit_of_an_event_keeps_the_next_one_from_going_out(path: Path, column: str) -> None:
    bad, good = (announce.gap(Identity("st1"), Gap("event/anomaly", 1, 2, 2)) for _ in range(2))
    with closing(Store(path)) as store:
        connection, wire = store._connection, Wire()
        connection.execute("PRAGMA synchronous = OFF")
        link: Any = wire
        delivery = Delivery(Outbox(connection), link, "P", Manner(backlog_per_s=1e9))
        for text in flipped(bad.topic if column == "topic" else shorten(bad.to_json().decode())):
            connection.execute("DELETE FROM outbox")
            store.change(lambda _, outbox: outbox.put(bad) and None)
            connection.execute(f"UPDATE outbox SET {column} = CAST(? AS TEXT)", (text,))
            store.change(lambda _, outbox: outbox.put(good) and None)
            before = len(wire.topics)
            delivery.begin(Up(1, 16))
            delivery.send()
            assert wire.topics[before:][-1:] == ["P/event/audit"], text


@pytest.mark.parametrize("column", ["topic", "body"])
def test_no_flipped_bit_of_what_is_retained_keeps_the_rest_from_being_told(path: Path, column: str) -> None:
    with closing(Store(path)) as store:
        store.change(lambda _, outbox: outbox.set_state(Equipment().meta(Identity("st1"))))
        ((whole,),) = store._connection.execute(f"SELECT {column} FROM state").fetchall()
        store._connection.execute("PRAGMA synchronous = OFF")
        for text in flipped(whole[:300]):
            ending = whole[300:].encode()
            store._connection.execute("DELETE FROM state")
            rows = [(1, "meta", "{}"), (2, "alarm/a", "{}")]
            store._connection.executemany("INSERT INTO state (ver, topic, body) VALUES (?, ?, ?)", rows)
            sql = f"UPDATE state SET {column} = CAST(? AS TEXT) WHERE ver = 1"
            store._connection.execute(sql, (text + ending,))
            link: Any = (wire := Wire())
            topics = RetainedTopics(Outbox(store._connection), link, "P", refused_s=1.0)
            for _ in range(3):
                topics.send()
                topics.take(Acked(len(wire.topics), 0, ""))
            assert "P/alarm/a" in wire.topics, text
            assert topics.has_begun, text


def test_no_flipped_bit_of_an_alarm_keeps_the_alarms_from_being_watched(path: Path) -> None:
    with closing(Store(path)) as store:
        ack = lambda _connection, _outbox: board.act("camera_lost", Action("ack", "Sato"))  # noqa: E731
        board = AlarmBoard(store._connection, Identity("st1"))
        board.come_round({"camera_lost": [1.0]})
        board.come_round({"camera_lost": [1.0]})
        store.change(ack)
        ((whole,),) = store._connection.execute("SELECT json FROM alarm WHERE key = 'camera_lost'").fetchall()
        store._connection.execute("PRAGMA synchronous = OFF")
        for text in flipped(whole):
            sql = "UPDATE alarm SET json = CAST(? AS TEXT) WHERE key = 'camera_lost'"
            store._connection.execute(sql, (text,))
            AlarmBoard(store._connection, Identity("st1")).come_round({})


def test_events_that_cannot_be_read_hide_no_others(path: Path) -> None:
    with closing(Store(path)) as store:
        for _ in range(3):
            commit(store)
        store._connection.execute("UPDATE outbox SET body = '{' WHERE seq = 2")
    shown = CliRunner().invoke(events, ["--state", str(path.parent), "--json"])
    assert [event["seq"] for event in json.loads(shown.stdout)] == [1, 3]
    assert "event 2 (event/anomaly) cannot be read any more" in shown.stderr


def test_the_station_hears_of_it_and_minds_its_own_file_only(workshop: Any) -> None:
    workshop.port = 1
    workshop.ready()
    config = workshop.config(f"folder:{workshop.pictures(10)}")
    workshop.folder.run.mkdir(parents=True)
    news = in_own_processes().news(config, Identity("st1"), lambda: None)  # type: ignore[arg-type, return-value]
    assert news.damaged_file is None
    for text, expected in (("", None), ("7:9", (7, 9))):
        told = Vitals(role="publisher", pid=1, texts={"damaged_file": text})
        write_vitals(workshop.folder.run, told)
        assert news.damaged_file == expected
    assert NoNews().damaged_file is None
    workshop.port = 0
    with Station(workshop.config(f"folder:{workshop.pictures(10)}")) as station:
        for file, found in ((7, 9), False), (station._store.file, True):
            station._news = type("News", (NoNews,), {"damaged_file": file})()
            station._watchman._look_for_damage()
            assert bool(station._store._found) is found


@pytest.mark.slow
def test_a_line_goes_on_by_itself_and_every_alert_arrives(rig: Rig) -> None:
    rig.start()
    rig.broker.kill()  # so that alerts wait
    rig.line.start()
    rig.wait(lambda: len(rig.line.triggers) > 40, "some parts")
    pid = rig.pid("station")
    damage(rig.folder.database, "part")
    rig.wait(lambda: rig.pid("station") not in (0, pid) and rig.is_ready(), "a new process")
    seen = len(rig.line.triggers)
    rig.wait(lambda: len(rig.line.triggers) > seen + 20, "more parts")
    rig.broker.start()
    rig.settle()

    def alerts() -> list[str]:
        told = (line.split() for line in rig.log().splitlines())
        return sorted(words[1] for words in told if words[:1] in (["NG"], ["REVIEW"]))

    def received() -> list[str]:
        parts = {e["seq"]: e["part_id"] for e in rig.subscriber.events if e["schema"] == "kenpin.anomaly.v1"}
        return sorted(parts.values())

    rig.wait(lambda: len(received()) >= len(alerts()) > 5, "every alert")
    rig.end()  # what it had to say is said
    subprocess.run(  # comes behind all others
        ["mosquitto_pub", "-p", str(rig.broker.port), "-q", "1", "-t", "plant/line/st1/event/x", "-m", END],
        check=True,
    )
    rig.wait(lambda: rig.subscriber.events[-1:] == [json.loads(END)], "the end")
    assert received() == alerts()
    told = [e for e in rig.subscriber.events if e["schema"] == "kenpin.audit.v1" and e["subject"] == "database"]
    assert any("malformed" in e["reason"] for e in told)
    assert any("events that waited in" in e["reason"] for e in told)
