"""The subscriber's library with a real broker and the real publisher."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.command import Accepted, Context, check
from kenpin.edge_runtime.command_action import Replay
from kenpin.edge_runtime.command_key import CommandKey
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.heard import Hole
from kenpin.edge_runtime.heard_file import load_heard
from kenpin.edge_runtime.mailbox import Letter, Mailbox
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.subscribe import Asking, Event, Subscription
from kenpin.errors import BrokerError, StoreError
from kenpin.events import Audit, Reply, now_ms
from tests.edge_runtime.conftest import let_thread_die
from tests.edge_runtime.publishing_line import PublishingLine

TOPIC = "plant/line/st1"
KEY = CommandKey("ops1", b"0123456789abcdef0123456789abcdef")


@dataclass
class Replayer:
    """Carries out signed requests for stored events, as a station does."""

    path: Path
    identity: Identity
    publisher: Publisher | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        context = Context(
            keys={KEY.kid: KEY},
            station="st1",
            now_ms=now_ms(),
            clock_ok=True,
            seen=lambda _: False,
            allowance=Allowance(5),
        )
        accepted = check(body, retained=retained, context=context)
        assert isinstance(accepted, Accepted), accepted
        assert isinstance(accepted.command, Replay)
        assert self.publisher is not None
        since, count = accepted.command.since_seq, accepted.command.count
        self.asked.append((since, count))
        common = self.identity.common(now_ms())
        with closing(connect(self.path)) as connection, transaction(connection):
            outbox = Outbox(connection)
            outbox.send_again(since=since, count=count)
            outbox.put(Reply(**common, action="replay", cmd_id=accepted.command.cmd_id, ok=True))
        self.publisher.look_back()


class StationOfEvents(PublishingLine):
    """Writes down that things were changed, and publishes it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.identity = Identity("st1")
        self.replayer = Replayer(path, self.identity)

    def publish(self, port: int, **more: Any) -> Publisher:
        self.replayer.publisher = super().publish(port, listener=self.replayer, **more)
        return self.replayer.publisher

    def happen(self, count: int = 1) -> None:
        for _ in range(count):
            audit = Audit(**self.identity.common(now_ms()), kind="user", actor="sato", subject="door")
            self.store.change(lambda _, outbox, audit=audit: outbox.put(audit))  # type: ignore[misc]
        if self.publisher is not None:
            self.publisher.wake()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[StationOfEvents]:
    made = StationOfEvents(tmp_path / "station.db")
    yield made
    made.stop()
    made.store.close()


@pytest.fixture
def subscribe(mosquitto: Any) -> Callable[..., Subscription]:
    def make(topic: str = TOPIC, *, client_id: str = "consumer", **more: Any) -> Subscription:
        return Subscription(BrokerAddress("127.0.0.1", mosquitto.port, client_id), topic, **more)

    return make


def read(subscription: Subscription, count: int) -> list[Event]:
    found = []
    for _ in range(count):
        event = subscription.receive(timeout_s=180)
        assert event is not None, f"only {len(found)} of {count} events came"
        found.append(event)
    return found


def seqs(events: list[Event]) -> list[int]:
    return [event.payload["seq"] for event in events]


def send(port: int, seq: int, *, station: str = TOPIC, session: str = "s1") -> None:
    body = {"id": f"{session}-{seq}", "seq": seq, "session_id": session}
    publish.single(f"{station}/event/audit", json.dumps(body), qos=1, hostname="127.0.0.1", port=port)


def test_events_come_once(mosquitto: Any, station: StationOfEvents, subscribe: Any, wait_for: Any) -> None:
    with subscribe() as subscription:
        station.publish(mosquitto.port)
        station.happen(30)
        events = read(subscription, 30)
        assert sorted(seqs(events)) == list(
            range(1, 31)
        )  # those of before the connection come beside later ones
        assert {(e.station, e.name, e.payload["subject"]) for e in events} == {(TOPIC, "event/audit", "door")}
        wait_for(lambda: station.waiting() == 0, "the acknowledgements")
        station.send_again(since=1, count=20)
        station.happen()
        assert seqs(read(subscription, 1)) == [31]
        wait_for(lambda: subscription.receive(timeout_s=0) or subscription.doubles == 20, "the doubles")
        assert subscription.doubles == 20
        assert (subscription.missing, subscription.lost, subscription.foreign) == ({}, 0, 0)


def test_what_happened_while_the_consumer_was_away_is_kept_by_the_broker(
    mosquitto: Any, station: StationOfEvents, subscribe: Any, wait_for: Any, tmp_path: Path
) -> None:
    station.publish(mosquitto.port)
    with subscribe(state=tmp_path / "heard.json") as subscription:
        station.happen(3)
        assert sorted(seqs(read(subscription, 3))) == [1, 2, 3]
    station.happen(40)
    wait_for(lambda: station.waiting() == 0, "the acknowledgements")
    with subscribe(state=tmp_path / "heard.json") as subscription:
        assert seqs(read(subscription, 40)) == list(range(4, 44))
        assert subscription.doubles == 0
        station.send_again(since=1, count=3)  # the first life of the consumer had these
        wait_for(lambda: subscription.receive(timeout_s=0.1) or subscription.doubles == 3, "the doubles")
        assert subscription.doubles == 3


def test_what_was_dealt_with_is_written_down_soon_and_some_together(
    mosquitto: Any, subscribe: Any, wait_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a consumer that is killed has all of it once more."""
    path = tmp_path / "heard.json"

    def written() -> list[int]:
        return [n for n in range(1, 21) if path.exists() and n in load_heard(path)[TOPIC].had["s1"]]

    with subscribe(state=path) as subscription:
        for seq in range(1, 16):
            send(mosquitto.port, seq)
        wait_for(lambda: subscription._mailbox._letters.qsize() == 15, "the events")
        acknowledged: list[int] = []
        monkeypatch.setattr(
            subscription._mailbox, "acknowledge", lambda letter: acknowledged.append(letter.mid)
        )
        read(subscription, 10)
        assert written() == []
        read(subscription, 1)
        assert written() == list(range(1, 11))
        read(subscription, 4)
        assert subscription.receive(timeout_s=0) is None
        assert written() == list(range(1, 16))
        assert len(acknowledged) == len(set(acknowledged)) == 15


def test_an_event_that_killed_its_consumer_comes_again(
    mosquitto: Any, station: StationOfEvents, subscribe: Any, tmp_path: Path
) -> None:
    station.publish(mosquitto.port)

    def consume() -> None:
        with subscribe(state=tmp_path / "heard.json") as subscription:
            station.happen()
            assert seqs(read(subscription, 1)) == [1]
            raise RuntimeError("died of it")

    with pytest.raises(RuntimeError):
        consume()
    with subscribe(state=tmp_path / "heard.json") as subscription:
        assert seqs(read(subscription, 1)) == [1]


def test_the_connection_ends_though_what_was_heard_cannot_be_written(
    mosquitto: Any, subscribe: Any, tmp_path: Path
) -> None:
    """Or the next subscription and this one would throw each other off, for ever."""
    subscription = subscribe(state=tmp_path / "gone" / "heard.json").__enter__()
    send(mosquitto.port, 1)
    read(subscription, 1)
    with pytest.raises(StoreError, match="cannot be written"):
        subscription.__exit__(None)
    assert not subscription._mailbox._client.is_connected()


def test_what_the_broker_lost_is_asked_for(
    mosquitto: Any, station: StationOfEvents, subscribe: Any, wait_for: Any, tmp_path: Path
) -> None:
    """Without a subscription the broker drops events: they are acknowledged, and nobody has them."""
    station.publish(mosquitto.port)
    asking = Asking(KEY, patience_s=0.3)
    with subscribe() as subscription:
        station.happen(2)
        read(subscription, 2)
        state = subscription._heard
    station.happen(25)
    wait_for(lambda: station.waiting() == 0, "the acknowledgements")
    with subscribe(asking=asking) as subscription:
        subscription._heard = state
        station.happen()
        events = read(subscription, 1)
        while not set(range(3, 29)) <= set(seqs(events)):
            events += read(subscription, 1)
        assert len(set(seqs(events))) == len(events)
        assert {e.payload["late"] for e in events if 3 <= e.payload["seq"] <= 27} == {True}
        assert {e.name for e in events} <= {"event/audit", "reply/replay"}
        assert station.replayer.asked[0][0] == 3


def test_what_the_station_has_no_more_is_given_up(
    mosquitto: Any, station: StationOfEvents, subscribe: Any, wait_for: Any
) -> None:
    with subscribe(asking=Asking(KEY, patience_s=0.3)) as subscription:
        station.publish(mosquitto.port)
        station.happen(2)
        read(subscription, 2)
        with closing(connect(station.path)) as connection, transaction(connection):
            connection.execute("UPDATE sqlite_sequence SET seq = 1000000 WHERE name = 'outbox'")
        station.happen()
        assert seqs(read(subscription, 2)) == [1_000_001, 1_000_002]
        wait_for(lambda: [subscription.receive(timeout_s=0)] and subscription.lost, "the end of patience")
        assert (subscription.missing, subscription.lost) == ({}, 999_998)


def test_what_a_station_refuses_to_send_again_is_asked_for_once_more(
    mosquitto: Any, subscribe: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with subscribe(asking=Asking(KEY, patience_s=0.1)) as subscription:
        send(mosquitto.port, 1)
        send(mosquitto.port, 3)
        read(subscription, 2)
        requests = subscription._requests
        wait_for(lambda: subscription.receive(timeout_s=0) or requests, "the request")
        first, subscription._look_s = requests[TOPIC], 1e12  # not once more before the answer
        reply = {"seq": 4, "session_id": "s1", "ok": False, "cmd_id": first, "message": "not now"}
        publish.single(
            f"{TOPIC}/reply/replay", json.dumps(reply), qos=1, hostname="127.0.0.1", port=mosquitto.port
        )
        assert seqs(read(subscription, 1)) == [4]
        subscription._look_s = 0.0
        wait_for(
            lambda: subscription.receive(timeout_s=0) or requests[TOPIC] != first or subscription.lost, "more"
        )
        assert (subscription.missing, subscription.lost) == ({TOPIC: (Hole(2, 2),)}, 0)
    assert 'st1 refuses to send events again: "not now"' in caplog.text


def test_without_a_key_holes_are_only_seen(mosquitto: Any, subscribe: Any) -> None:
    with subscribe() as subscription:
        send(mosquitto.port, 4)
        send(mosquitto.port, 9)
        read(subscription, 2)
        holes = subscription.missing
        assert [(hole.first, hole.last, hole.size) for hole in holes[TOPIC]] == [(5, 8, 4)]


def test_many_stations_are_counted_apart(mosquitto: Any, subscribe: Any) -> None:
    with subscribe("plant/+/+") as subscription:
        for seq, station in ((4, "plant/a/st1"), (4, "plant/b/st2"), (5, "plant/a/st1"), (6, "plant/b/st2")):
            send(mosquitto.port, seq, station=station)
        assert len(read(subscription, 4)) == 4
        assert set(subscription.missing) == {"plant/b/st2"}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff", b"[]", b"{}", b"[" * 9999),
        *(b'{"seq":0,"session_id":"s"}', b'{"seq":true,"session_id":"s"}', b'{"seq":1.0,"session_id":"s"}'),
        *(b'{"seq":1,"session_id":""}', b'{"seq":1,"session_id":[]}'),
    ],
)
def test_what_is_no_event_is_counted_and_passed_over(mosquitto: Any, subscribe: Any, body: bytes) -> None:
    with subscribe() as subscription:
        publish.single(f"{TOPIC}/event/x", body, qos=1, hostname="127.0.0.1", port=mosquitto.port)
        send(mosquitto.port, 1)
        assert seqs(read(subscription, 1)) == [1]
        assert subscription.foreign == 1


@pytest.mark.parametrize("cmd_id", ["", None])
def test_an_answer_to_nobody_s_request_is_an_event_like_others(
    mosquitto: Any, subscribe: Any, cmd_id: str | None
) -> None:
    """Else it would end each consumer, and come again to the next one."""
    body = json.dumps({"seq": 1, "session_id": "s1", "ok": True, "cmd_id": cmd_id})
    with subscribe() as subscription:
        publish.single(f"{TOPIC}/reply/replay", body, qos=1, hostname="127.0.0.1", port=mosquitto.port)
        assert [event.name for event in read(subscription, 1)] == ["reply/replay"]


def test_of_a_flood_that_no_station_sends_only_so_much_waits(
    mosquitto: Any, subscribe: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.edge_runtime.mailbox._MAX_WAITING", 5)
    with subscribe() as subscription:
        flood: Any = [(f"{TOPIC}/event/x", b"{}", 0, False)] * 20
        publish.multiple(flood, hostname="127.0.0.1", port=mosquitto.port)
        wait_for(lambda: subscription.dropped == 15, "the rest of the flood")
        send(mosquitto.port, 1)
        assert seqs(read(subscription, 1)) == [1]
        assert subscription.foreign == 5


def test_a_new_connection_goes_on(mosquitto: Any, subscribe: Any, wait_for: Any, tmp_path: Path) -> None:
    with subscribe(state=tmp_path / "heard.json") as subscription:
        send(mosquitto.port, 1)
        read(subscription, 1)
        mosquitto.kill()
        mosquitto.start()
        wait_for(lambda: subscription._mailbox._connection == 2, "the new connection")
        count = 45  # twice of what the broker sends without an acknowledgement
        for seq in range(2, count + 2):
            send(mosquitto.port, seq)
        assert seqs(read(subscription, count)) == list(range(2, count + 2))


def test_the_broker_is_not_there(free_port: int, subscribe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kenpin.edge_runtime.mailbox._SUBSCRIBED_S", 0.2)
    subscription = Subscription(BrokerAddress("127.0.0.1", free_port, "c"), TOPIC)
    with pytest.raises(BrokerError, match="does not answer"):
        subscription.__enter__()


def test_the_broker_does_not_let_it_in(make_mosquitto: Any) -> None:
    broker = make_mosquitto("allow_anonymous false")
    broker.start()
    with pytest.raises(BrokerError, match=r"(?i)not authori[sz]ed"):
        Subscription(BrokerAddress("127.0.0.1", broker.port, "c"), TOPIC).__enter__()


def test_a_number_of_a_former_connection_is_not_acknowledged_on_a_new_one() -> None:
    """There it may be that of a message that nobody has dealt with."""
    mailbox, acknowledged = Mailbox(BrokerAddress("127.0.0.1", 1, "c"), ("a",), is_kept=True), []
    mailbox._client.ack = lambda mid, _qos: acknowledged.append(mid)  # type: ignore[assignment,method-assign]
    mailbox._connection = 2
    for connection in (1, 2):
        mailbox.acknowledge(Letter(connection, 10 * connection, 1, "a", b""))
    assert acknowledged == [20]


class SilentBroker:
    """Takes a connection and a subscription, and acknowledges nothing else.

    Args:
        codes: Its answer to the subscription of each connection, which it then ends but for the last one; as a
            negative number its answer to the connection itself.
    """

    def __init__(self, *codes: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, args=(codes,), daemon=True).start()

    def _serve(self, codes: tuple[int, ...]) -> None:
        with self._server:
            for left, code in zip(reversed(range(len(codes))), codes, strict=True):
                connection, _ = self._server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(bytes([0x20, 2, 0, max(0, -code)]))
                    if code < 0:
                        continue
                    subscribe = connection.recv(4096)
                    connection.sendall(bytes([0x90, 4, *subscribe[2:4], code, code]))
                    while not left and connection.recv(4096):
                        pass


def test_who_is_not_let_listen_any_more_after_a_new_connection_is_told() -> None:
    address = BrokerAddress("127.0.0.1", SilentBroker(1, 0x80).port, "c")
    refused = pytest.raises(BrokerError, match="does not take the subscription: Unspecified error")
    with Subscription(address, TOPIC) as subscription, refused:
        subscription.receive(timeout_s=180)


def test_who_is_not_let_in_any_more_at_a_new_connection_is_told() -> None:
    address = BrokerAddress("127.0.0.1", SilentBroker(1, -5, 1).port, "c")
    refused = pytest.raises(BrokerError, match=r"does not take the subscription: Not authori[sz]ed")
    with Subscription(address, TOPIC) as subscription, refused:
        subscription.receive(timeout_s=180)


def test_a_broker_that_cannot_take_a_client_yet_is_tried_again(wait_for: Any) -> None:
    broker = SilentBroker(1, -3, 1)
    with Subscription(BrokerAddress("127.0.0.1", broker.port, "c"), TOPIC) as subscription:
        while subscription._mailbox._connection < 3:
            assert subscription.receive(timeout_s=0.1) is None
        wait_for(lambda: subscription.is_connected, "the connection")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_network_thread_is_started_again(
    mosquitto: Any, subscribe: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with subscribe() as subscription:
        client = subscription._mailbox._client
        thread, pair = client._thread, let_thread_die(client)
        send(mosquitto.port, 1)
        wait_for(lambda: not thread.is_alive(), "the end of it")
        send(mosquitto.port, 2)
        wait_for(lambda: seqs(read(subscription, 1)) == [2], "the next event")
        assert "had died" in caplog.text
    for forgotten in (*pair, client._sockpairR, client._sockpairW):  # the dead thread's last words hold them
        forgotten.close()


def test_a_consumer_can_see_that_it_hears_nothing(mosquitto: Any, subscribe: Any, wait_for: Any) -> None:
    with subscribe() as subscription:
        assert subscription.is_connected
        mosquitto.kill()
        wait_for(lambda: not subscription.is_connected, "the connection lost")
        assert subscription.receive(timeout_s=0.3) is None
        mosquitto.start()
        wait_for(lambda: subscription.is_connected, "a new connection")


def test_the_end_does_not_wait_for_a_request_that_nobody_acknowledged() -> None:
    mailbox = Mailbox(BrokerAddress("127.0.0.1", SilentBroker(1).port, "c"), ("a", "b"), is_kept=False)
    mailbox.open()
    mailbox.post("x/cmd/replay", "{}")
    end = threading.Thread(target=mailbox.close, daemon=True)
    end.start()
    end.join(15)
    assert not end.is_alive()
