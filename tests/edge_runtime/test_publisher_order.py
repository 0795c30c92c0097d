"""In which order and how fast events are sent, without a broker."""

from __future__ import annotations

import contextlib
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from kenpin.edge_runtime import connection as connection_module
from kenpin.edge_runtime import delivery as delivery_module
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.clone_watch import CloneWatch
from kenpin.edge_runtime.connection import Connection
from kenpin.edge_runtime.database import open_database, transaction
from kenpin.edge_runtime.delivery import WINDOW, Delivery, Manner
from kenpin.edge_runtime.link_signal import Acked, Down, Incoming, Up
from kenpin.edge_runtime.outbox import Entry, Outbox
from kenpin.edge_runtime.pace import Pace
from kenpin.edge_runtime.protocol_choice import ProtocolChoice
from kenpin.edge_runtime.publisher_task import LookBack
from kenpin.edge_runtime.timing import Timing
from kenpin.errors import StoreError
from tests.edge_runtime.conftest import Clock

NO_LIMIT = 1e9


class FakeLink:
    """Notes what it is given; the connection changes after `lives` messages."""

    def __init__(self, lives: int = 10**9) -> None:
        self.connection = 1
        self.sent: list[tuple[int, bool]] = []
        self._lives = lives

    def publish(self, _topic: str, body: bytes, *, qos: int, expiry_s: int = 0) -> int:
        event = json.loads(body)
        self.sent.append((event["seq"], event["late"]))
        if len(self.sent) == self._lives:
            self.connection = 3
        return len(self.sent)

    @property
    def seqs(self) -> list[int]:
        return [seq for seq, _ in self.sent]


class Bench:
    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock = clock
        self.connection = open_database(path)
        self.outbox = Outbox(self.connection)
        self.link = FakeLink()
        self.use()

    def use(self, link: FakeLink | None = None, backlog_per_s: float = NO_LIMIT) -> None:
        self.link = link or FakeLink()
        manner = Manner(refused_s=1, backlog_per_s=backlog_per_s)
        self.delivery = Delivery(self.outbox, self.link, "t", manner)  # type: ignore[arg-type]
        # Made anew, as the clock of the tests is not its default.
        self.delivery._pace = Pace(backlog_per_s, WINDOW, clock_s=self.clock.monotonic)

    def add(self, count: int, topic: str = "event/anomaly") -> None:
        with transaction(self.connection):
            for _ in range(count):
                self.outbox.append(topic, "{}")

    def answer_all(self, *, refuse: str) -> None:
        """What a broker says whose rules forgot a topic."""
        for message, sent in list(self.delivery._on_way.items()):
            self.ack(message, code=0x87 if sent.topic == refuse else 0)

    def ack(self, *messages: int, code: int = 0) -> None:
        for message in messages:
            self.delivery.take(Acked(message, code, "reason"))
        self.delivery.note_arrived(at_once=True)

    def ack_all(self) -> None:
        self.ack(*list(self.delivery._on_way))


def raise_store_error(*_: object) -> int:
    raise StoreError("the disk is full")


@pytest.fixture
def clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(delivery_module.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def bench(tmp_path: Path, clock: Clock) -> Iterator[Bench]:
    made = Bench(tmp_path / "station.db", clock)
    yield made
    made.connection.close()


def test_no_event_overtakes_those_that_were_on_the_way_when_the_connection_was_lost(bench: Bench) -> None:
    bench.add(5)
    bench.use(FakeLink(lives=2))
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    assert bench.link.seqs == [1, 2]
    bench.delivery.begin(Up(3, 16))
    bench.delivery.send()
    assert bench.link.seqs == [1, 2, 1, 2, 3, 4, 5]


def test_live_events_go_before_those_that_waited_and_only_those_are_late(bench: Bench, clock: Clock) -> None:
    bench.add(40)
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    assert bench.link.sent == [(seq, True) for seq in range(1, 17)]
    bench.add(2)
    bench.ack(1, 2, 3, 4)
    clock.now_s += 1
    bench.delivery.send()
    assert bench.link.sent[16:] == [(41, False), (42, False), (17, True), (18, True)]


def test_the_backlog_has_its_pace_and_live_events_have_none(bench: Bench, clock: Clock) -> None:
    bench.add(100)
    bench.use(backlog_per_s=200)
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    assert len(bench.link.sent) == WINDOW
    assert bench.delivery.wait_s == pytest.approx(0.005)
    bench.ack_all()
    bench.delivery.send()
    assert len(bench.link.sent) == WINDOW  # all acknowledged, and yet none may follow
    bench.add(3)
    bench.delivery.send()
    assert bench.link.seqs[WINDOW:] == [101, 102, 103]
    clock.now_s += 0.0251
    bench.delivery.send()
    assert bench.link.seqs[WINDOW + 3 :] == [17, 18, 19, 20, 21]
    for _ in range(100):
        bench.ack_all()
        clock.now_s += 0.01
        bench.delivery.send()
    assert bench.delivery.is_done() == (len(bench.delivery._on_way) == 0)
    bench.ack_all()
    assert bench.delivery.is_done()
    assert bench.delivery.wait_s == 0


def test_a_pace_is_a_number_per_second(clock: Clock) -> None:
    pace = Pace(200, 16, clock_s=clock.monotonic)
    passed = 0
    for _ in range(1000):
        passed += pace.left
        pace.take(pace.left)
        clock.now_s += 0.01
    assert passed == pytest.approx(10 * 200 + 16, abs=3)


def test_a_refused_event_waits_and_none_that_is_on_the_way_is_sent_twice(bench: Bench, clock: Clock) -> None:
    bench.add(6)
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    bench.ack(2, code=0x87)
    bench.delivery.take(Acked(3, 0, ""))  # acknowledged, and not noted yet
    bench.delivery.send()
    assert bench.link.seqs == [1, 2, 3, 4, 5, 6]  # it pauses
    clock.now_s += 1.1
    bench.delivery.send()
    assert bench.link.seqs == [1, 2, 3, 4, 5, 6, 2]
    bench.ack(1, 4, 5, 6, 7)
    bench.add(1)
    bench.delivery.send()
    assert bench.link.seqs == [1, 2, 3, 4, 5, 6, 2, 7]
    assert bench.delivery.traffic.rejected == 1


def test_a_broker_that_goes_on_refusing_is_asked_less_and_less_often(bench: Bench, clock: Clock) -> None:
    bench.add(1)
    bench.delivery.begin(Up(1, 16))
    pauses = []
    for _ in range(9):
        asked = len(bench.link.sent)
        start_s = clock.now_s
        while len(bench.link.sent) == asked:
            clock.now_s += 0.5
            bench.delivery.send()
        pauses.append(round(clock.now_s - start_s))
        bench.ack(len(bench.link.sent), code=0x97)
    assert pauses[1:] == [1, 2, 4, 8, 16, 32, 64, 64]
    clock.now_s += 64
    bench.delivery.send()
    bench.ack(len(bench.link.sent))
    bench.add(1)
    bench.delivery.send()
    bench.ack(len(bench.link.sent), code=0x97)
    clock.now_s += 1.1
    bench.delivery.send()
    assert bench.link.seqs[-2:] == [2, 2]  # after one that was taken, soon again


def test_a_refused_topic_keeps_no_other_back_and_follows_whole_and_in_order(bench: Bench, clock: Clock) -> None:
    bench.add(40, "event/audit")
    bench.add(20)
    bench.delivery.begin(Up(1, 16))
    bench.add(20, "event/audit")
    bench.add(5)
    for _ in range(20):
        clock.now_s += 0.01
        bench.delivery.send()
        bench.answer_all(refuse="event/audit")
    anomalies = [*range(41, 61), *range(81, 86)]
    assert sorted(seq for seq in bench.link.seqs if seq in anomalies) == anomalies
    assert bench.delivery.traffic.rejected <= WINDOW  # the topic is left alone meanwhile
    bench.add(3, "event/audit")
    bench.delivery.send()  # nor are they read again and again
    assert [stretch.sent_to for stretch in bench.delivery._stretches] == [88, 60]
    bench.add(1)
    bench.delivery.send()
    assert bench.link.seqs[-1] == 89
    before = len(bench.link.sent)
    for _ in range(40):
        bench.answer_all(refuse="")
        clock.now_s += 1.1
        bench.delivery.send()
    assert bench.delivery.is_done()
    audits = bench.link.sent[before:]
    assert [seq for seq, late in audits if not late] == [*range(61, 81), 86, 87, 88]
    assert [seq for seq, late in audits if late] == list(range(1, 41))


def test_what_is_asked_for_once_more_is_found_where_its_topic_was_refused(bench: Bench, clock: Clock) -> None:
    bench.add(3, "event/audit")
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    bench.ack(1, 2)
    bench.ack(3, code=0x87)
    bench.outbox.send_again(since=1, count=2)
    bench.delivery.look_back()
    bench.delivery.send()
    assert bench.link.seqs == [1, 2, 3]
    clock.now_s += 1.1
    bench.delivery.send()
    assert bench.link.seqs == [1, 2, 3, 1, 2, 3]


def test_a_new_connection_is_offered_at_once_what_the_one_before_refused(bench: Bench) -> None:
    bench.add(1)
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    bench.ack(1, code=0x80)  # the lowest code that is a refusal: taken for a yes, the event would be lost
    assert not bench.delivery.is_done()
    assert bench.delivery.traffic.refused == {"event/anomaly"}
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    assert bench.link.seqs == [1, 1]
    bench.ack(1)  # the late answer of the connection that is gone
    assert not bench.delivery.is_done()
    bench.ack(2)
    assert bench.delivery.is_done()


def test_behind_a_refused_topic_a_full_window_is_not_taken_for_the_last(bench: Bench, clock: Clock) -> None:
    bench.add(1, "event/audit")
    bench.add(40)
    bench.delivery.begin(Up(1, 16))
    for _ in range(4):
        clock.now_s += 0.01
        bench.delivery.send()
        bench.answer_all(refuse="event/audit")
    assert bench.link.seqs == list(range(1, 42))


def test_what_comes_up_while_events_are_read_is_not_passed_over_with_a_refused_topic(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(1, "event/audit")
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    bench.ack(1, code=0x87)
    usual = bench.outbox.waiting

    def waiting(**asked: Any) -> list[Entry]:
        found = usual(**asked)
        if bench.outbox.newest() == 1:
            bench.add(1)
        return found

    monkeypatch.setattr(bench.outbox, "waiting", waiting)
    bench.delivery.send()
    bench.delivery.send()
    assert bench.link.seqs == [1, 2]


def test_a_refused_event_goes_out_at_once_though_those_before_it_have_no_answer_yet(
    bench: Bench, clock: Clock
) -> None:
    bench.add(WINDOW)
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    bench.ack(WINDOW, code=0x87)
    clock.now_s += 1.1
    bench.delivery.send()
    assert bench.link.seqs[WINDOW:] == [WINDOW]


def test_the_oldest_event_without_an_answer_tells_that_the_broker_hangs(bench: Bench, clock: Clock) -> None:
    bench.delivery.begin(Up(1, 16))
    for _ in range(2):
        bench.add(1)
        bench.delivery.send()
        clock.now_s += 6
    assert not bench.delivery.is_overdue(12)
    assert bench.delivery.is_overdue(11)


def test_what_the_link_does_not_take_is_not_on_the_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add(2)
    bench.delivery.begin(Up(1, 16))
    with monkeypatch.context() as full:
        full.setattr(bench.link, "publish", lambda *_, **__: None)
        bench.delivery.send()
    bench.delivery.send()
    assert bench.link.seqs == [1, 2]


def test_a_database_that_fails_when_the_connection_comes_delays_what_was_on_the_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(2)
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    with monkeypatch.context() as broken:
        broken.setattr(bench.outbox, "newest", raise_store_error)
        with pytest.raises(StoreError):
            bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    assert bench.link.seqs == [1, 2, 1, 2]


def test_while_no_note_can_be_written_no_more_is_sent_than_may_come_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "_UNNOTED", 5)
    bench.add(20)
    bench.delivery.begin(Up(1, 5))
    with monkeypatch.context() as broken:
        broken.setattr(bench.outbox, "mark_acked", raise_store_error)
        for _ in range(3):
            bench.delivery.send()
            with pytest.raises(StoreError):
                bench.ack_all()
        assert bench.link.seqs == [1, 2, 3, 4, 5]
    bench.delivery.note_arrived(at_once=True)
    bench.delivery.send()
    assert bench.link.seqs == list(range(1, 11))


def test_a_burst_of_refusals_is_one(bench: Bench, clock: Clock) -> None:
    bench.add(16)
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    bench.ack(*range(1, 17), code=0x87)
    clock.now_s += 1.1
    bench.delivery.send()
    assert len(bench.link.sent) == 32


def test_events_asked_for_once_more_are_late(bench: Bench) -> None:
    bench.delivery.begin(Up(1, 16))
    bench.delivery.send()
    bench.add(3)
    bench.delivery.send()
    bench.ack(1, 2)
    assert bench.outbox.send_again(since=1, count=2) == 2
    bench.delivery.look_back()
    bench.delivery.send()
    assert bench.link.sent == [(1, False), (2, False), (3, False), (1, True), (2, True)]


def test_each_topic_that_is_refused_is_named_once_until_one_passes(
    bench: Bench, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    bench.delivery.begin(Up(1, 16))
    shut_s = 0.1  # the audit has its pause then, and nothing of it passes before the other topic is refused
    for passed_s, refuse in (
        (100, "event/audit"),
        (100, "event/audit"),
        (shut_s, "event/anomaly"),
        (100, ""),
        (100, "event/audit"),
    ):
        bench.add(1, "event/audit")
        bench.add(1, "event/anomaly")
        clock.now_s += passed_s
        bench.delivery.send()
        bench.answer_all(refuse=refuse)
    named = [record.message.split()[5] for record in caplog.records]
    assert named == ["event/audit", "event/anomaly", "event/audit"]


def test_acknowledgements_are_noted_together_or_soon(bench: Bench, clock: Clock) -> None:
    bench.add(40)
    bench.delivery.begin(Up(1, 16))
    acked = []
    for _ in range(3):
        clock.now_s += 0.01
        bench.delivery.send()
        for message in list(bench.delivery._on_way)[:10]:
            bench.delivery.take(Acked(message, 0, ""))
        bench.delivery.note_arrived()
        acked.append(bench.delivery.traffic.acked)
    assert acked == [0, 20, 20]
    assert not bench.delivery.is_done()
    clock.now_s += 0.06
    bench.delivery.note_arrived()
    assert bench.delivery.traffic.acked == 30
    for message in list(bench.delivery._on_way)[:2]:  # soon after the first one, whatever follows it
        bench.delivery.take(Acked(message, 0, ""))
        clock.now_s += 0.03
    bench.delivery.note_arrived()
    assert bench.delivery.traffic.acked == 32
    assert sorted(bench.link.seqs) == list(range(1, len(bench.link.sent) + 1))  # none twice


def test_only_so_many_are_sent_while_the_disk_takes_no_note(bench: Bench, clock: Clock) -> None:
    bench.add(1100)
    bench.delivery.begin(Up(1, 16))
    bench.connection.execute("PRAGMA query_only = ON")
    for _ in range(100):
        clock.now_s += 1
        bench.delivery.send()
        for message in list(bench.delivery._on_way):
            bench.delivery.take(Acked(message, 0, ""))
        with contextlib.suppress(StoreError):
            bench.delivery.note_arrived()
    assert 1000 <= len(bench.link.sent) < 1016
    assert bench.outbox.depth().waiting == 1100


def test_other_messages_on_the_way_count_as_well(bench: Bench) -> None:
    bench.add(9)
    bench.delivery.begin(Up(1, 5))
    assert bench.delivery.room(others=2) == 3
    bench.delivery.send(others=2)
    assert len(bench.link.sent) == 3
    assert bench.delivery.room(others=7) == 0


def test_only_three_short_lives_in_a_row_raise_suspicion() -> None:
    watch = CloneWatch()
    now_s = 0.0

    def live(seconds: float) -> None:
        nonlocal now_s
        watch.up(now_s)
        now_s += seconds
        watch.down(now_s)

    for seconds in (1, 1, 11, 1, 1):
        live(seconds)
        assert not watch.suspects(now_s)
    live(1)
    assert watch.suspects(now_s)
    watch.up(now_s)
    assert watch.suspects(now_s + 9)
    assert not watch.suspects(now_s + 10)
    live(11)
    assert not watch.suspects(now_s)


@pytest.mark.parametrize("why", ["other credentials", "another version"])
def test_what_others_asked_for_outlives_a_connection_that_is_made_anew(why: str) -> None:
    signals: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting = [Up(1, 9), Incoming("st1/cmd/ack", b"{}", False), Acked(1, 0, ""), LookBack(), Down("lost")]
    broker, done = BrokerAddress("127.0.0.1", 1, "st1"), []
    link: Any = SimpleNamespace(close=lambda: signals.put(Down("closed")), renew=done.append)
    link.open = lambda _version: done.append("opened")
    connection = Connection(broker, link, signals, ProtocolChoice())
    for signal in waiting:
        signals.put(signal)
    if why == "another version":
        connection.down(REFUSED, expected=True)
    else:
        connection.renew(broker)
    assert done[-1] == "opened"
    assert [signals.get_nowait() for _ in range(signals.qsize())] == [waiting[1], waiting[3]]


V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
REFUSED, DOUBTFUL = Down("r", version_refused=True), Down("r", version_doubtful=True)


def test_the_version_is_changed_only_for_a_reason() -> None:
    choice = ProtocolChoice()
    assert not choice.failed(Down("no route"), 0)
    assert choice.version == V5
    assert choice.failed(DOUBTFUL, 0)
    assert choice.version == V311
    choice.worked()
    assert [choice.failed(DOUBTFUL, 0) for _ in range(2)] == [False, False]  # it may be restarting
    choice.worked()
    assert [choice.failed(DOUBTFUL, 0) for _ in range(3)] == [False, False, True]
    assert choice.version == V5
    choice.worked()
    assert choice.failed(REFUSED, 0)
    assert choice.version == V311


def test_a_port_that_takes_neither_version_is_tried_ever_less_often(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "random", SimpleNamespace(uniform=lambda _low, _high: 1.0))
    signals: queue.SimpleQueue[Any] = queue.SimpleQueue()
    link: Any = SimpleNamespace(close=lambda: None, revive=lambda: False, is_unanswered=lambda _limit_s: False)
    connection = Connection(BrokerAddress("127.0.0.1", 1, "st1"), link, signals, ProtocolChoice())
    first_s, opened = clock.now_s, []

    def hang_up(version: MQTTProtocolVersion) -> None:
        if version == V5:
            opened.append(clock.now_s - first_s)
        if not opened[8:]:
            connection.down(DOUBTFUL, expected=False)

    link.open = hang_up
    connection.open()
    while not opened[8:]:
        connection.watch(connack_s=10)
        connection.down(Down("closed"), expected=False)  # paho's second report
        clock.now_s += 0.5
    assert opened == [0, 1, 3, 7, 15, 31, 61, 91, 121]
    connection.up()
    link.open = opened.append
    connection.down(DOUBTFUL, expected=False)
    connection.down(DOUBTFUL, expected=False)
    connection.down(DOUBTFUL, expected=False)  # it had worked, so it takes three
    connection.down(DOUBTFUL, expected=False)
    clock.now_s += 1
    connection.watch(connack_s=10)
    assert opened[9:] == [V311, V5]


def test_mqtt_5_is_tried_again_once_a_day_and_given_up_at_the_first_doubt() -> None:
    choice = ProtocolChoice()
    assert not choice.is_probe_due(10**9)
    choice.failed(REFUSED, 100)
    choice.worked()
    assert not choice.is_probe_due(100 + 86399)
    assert choice.is_probe_due(100 + 86400)
    assert choice.version == V5
    assert choice.failed(DOUBTFUL, 100 + 86401)
    assert choice.version == V311
    assert not choice.is_probe_due(100 + 86401 + 1199)


def test_a_broker_may_take_seconds_to_answer_when_a_thousand_stations_come_back() -> None:
    """One that is given up sooner is asked in the other version, at once, and so on."""
    assert Timing().connack_s == 10


def test_where_the_broker_only_hung_up_mqtt_5_is_tried_again_soon_and_then_ever_later() -> None:
    choice = ProtocolChoice()
    for _ in range(7):  # it flips while nothing answers, and that alone makes no pause longer
        choice.failed(DOUBTFUL, 0)
    assert choice.version == V311
    pauses = []
    now_s = 0
    for _ in range(10):
        choice.worked()
        pauses.append(next(s for s in range(100, 10**6, 100) if choice.is_probe_due(now_s + s)))
        now_s += pauses[-1]
        assert choice.failed(DOUBTFUL, now_s)
    assert pauses == [600, 1200, 2400, 4800, 9600, 19200, 38400, 76800, 86400, 86400]
    now_s += 86400
    assert choice.is_probe_due(now_s)
    choice.worked()  # with 5
    assert [choice.failed(DOUBTFUL, now_s) for _ in range(3)] == [False, False, True]
    assert choice.is_probe_due(now_s + 600)
