"""Retained topics at a broker that refuses one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime import retained_topics
from kenpin.edge_runtime.database import open_database, transaction
from kenpin.edge_runtime.link_signal import Acked
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.retained_topics import RetainedTopics
from tests.edge_runtime.conftest import Clock

REFUSED_S = 0.2


class PickyBroker:
    """Notes what is published at it, and refuses some topics."""

    def __init__(self) -> None:
        self.refuses = {"P/b"}
        self.came: list[tuple[str, str]] = []

    def publish(self, topic: str, body: bytes, *, qos: int, retain: bool) -> int:
        assert (qos, retain) == (1, True)
        self.came.append((topic.removeprefix("P/"), body.decode()))
        return len(self.came)

    def answer(self) -> Acked:
        return Acked(len(self.came), 0x80 if f"P/{self.came[-1][0]}" in self.refuses else 0, "Not allowed")


class Teller:
    """Retained topics, and who changes them."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.connection = open_database(path)
        self.outbox = Outbox(self.connection)
        self.broker = PickyBroker()
        link: Any = self.broker
        self.clock = clock
        self.topics = RetainedTopics(self.outbox, link, "P", refused_s=REFUSED_S)

    def set(self, topic: str, body: str) -> None:
        with transaction(self.connection):
            self.connection.execute(
                "INSERT INTO state SELECT ?, ?, coalesce(max(ver), 0) + 1 FROM state WHERE true "
                "ON CONFLICT (topic) DO UPDATE SET body = excluded.body, ver = excluded.ver",
                (topic, body),
            )

    def come_round(self, times: int = 9) -> list[tuple[str, str]]:
        """What came to the broker in so many rounds."""
        before = len(self.broker.came)
        for _ in range(times):
            self.topics.send()
            self.topics.take(Acked(-1, 0x80, "of an event"))
            if self.topics.is_waiting:
                self.topics.take(self.broker.answer())
        return self.broker.came[before:]


@pytest.fixture
def teller(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Teller]:
    monkeypatch.setattr(retained_topics, "time", clock)
    made = Teller(tmp_path / "station.db", clock)
    with closing(made.connection):
        yield made


def test_a_refused_topic_pauses_and_the_changes_of_others_do_not(teller: Teller) -> None:
    for topic in "abc":
        teller.set(topic, "1")
    assert teller.come_round() == [("a", "1"), ("b", "1"), ("c", "1")]
    assert teller.topics.is_refused
    assert teller.topics.is_told  # for now
    teller.set("a", "2")
    assert teller.come_round() == [("a", "2")]
    teller.clock.sleep(REFUSED_S)
    assert not teller.topics.is_told
    assert teller.come_round() == [("b", "1")]


def test_of_a_refused_topic_the_newest_value_is_tried(teller: Teller) -> None:
    teller.set("b", "1")
    teller.come_round()
    for body in "23":
        teller.set("b", body)
        assert teller.come_round() == []  # it has its pause
    teller.broker.refuses.clear()
    teller.clock.sleep(REFUSED_S)
    assert teller.come_round() == [("b", "3")]
    assert not teller.topics.is_refused
    assert teller.topics.is_told


def test_values_that_change_faster_than_they_are_told_do_not_hold_events_back_for_ever(teller: Teller) -> None:
    teller.broker.refuses.clear()
    for topic in "abc":
        teller.set(topic, "1")
    assert not teller.topics.has_begun
    for _ in range(3):
        for topic in "abc":
            teller.set(topic, "2")
        assert len(teller.come_round(1)) == 1
    assert not teller.topics.is_told
    assert teller.topics.has_begun


def test_all_that_stood_when_the_connection_came_is_told_before_events(teller: Teller) -> None:
    for topic in "acd":
        teller.set(topic, "1")
    teller.come_round(1)
    teller.topics.send()
    assert not teller.topics.has_begun  # the third has not been sent
    teller.topics.take(teller.broker.answer())
    teller.topics.send()
    assert teller.topics.has_begun  # it is on the way


def test_the_last_part_of_a_camera_that_is_gone_is_forgotten_by_the_broker_and_here(teller: Teller) -> None:
    teller.broker.refuses.clear()
    for topic in ("camera/old/last", "camera/new/last", "alarm/old"):
        teller.set(topic, "1")
    teller.come_round()
    for _ in range(2):
        with transaction(teller.connection):
            teller.outbox.keep_cameras(["new"])
    assert teller.come_round() == [("camera/old/last", "")]
    teller.set("alarm/old", "2")
    assert teller.come_round() == [("alarm/old", "2")]  # its version is a new one, though the newest has gone
    teller.topics.begin()
    teller.come_round()
    teller.topics.begin()
    assert teller.come_round() == [("camera/new/last", "1"), ("alarm/old", "2")]


def test_a_camera_that_is_back_meanwhile_is_not_forgotten(teller: Teller) -> None:
    teller.broker.refuses.clear()
    teller.set("camera/old/last", "1")
    with transaction(teller.connection):
        teller.outbox.keep_cameras([])
    teller.topics.send()
    teller.set("camera/old/last", "2")
    teller.set("alarm/new", "1")
    teller.topics.take(teller.broker.answer())
    assert teller.come_round() == [("camera/old/last", "2"), ("alarm/new", "1")]


def test_a_refused_topic_goes_behind_the_others(teller: Teller) -> None:
    teller.broker.refuses = {"P/a", "P/b"}
    for topic in "abc":
        teller.set(topic, "1")
    teller.come_round()
    teller.clock.sleep(REFUSED_S)
    teller.set("d", "1")
    assert teller.come_round() == [("a", "1"), ("b", "1"), ("d", "1")]


def test_meta_comes_first_on_every_connection(teller: Teller) -> None:
    for topic in ("a", "meta"):
        teller.set(topic, "1")
    for _ in range(2):
        assert teller.come_round() == [("meta", "1"), ("a", "1")]
        teller.topics.begin()


def test_a_new_connection_starts_over_with_what_was_on_the_way_and_what_was_refused(teller: Teller) -> None:
    for topic in "ab":
        teller.set(topic, "1")
    teller.come_round()
    teller.set("a", "2")
    teller.topics.send()
    teller.topics.begin()
    assert not teller.topics.has_begun
    assert teller.come_round() == [("b", "1"), ("a", "2")]
