from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.delivery import Delivery
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.link import Up
from kenpin.edge_runtime.publisher import Publisher, Timing
from kenpin.edge_runtime.store import Part, Store

FAST = Timing(reconnect_s=(0.1, 0.4), watch_s=0.1, refused_s=0.3, kpi_s=0.5)


class FakeEvent:
    """An event as small as the store takes it."""

    topic = "event/anomaly"

    def to_json(self) -> bytes:
        return json.dumps({"ts_ms": time.time_ns() // 1_000_000, "late": False}).encode()


class Line:
    """A store and a publisher, without an engine in between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(path)
        self.publisher: Publisher | None = None

    def publish(self, port: int, timing: Timing = FAST) -> Publisher:
        address = BrokerAddress("127.0.0.1", port, "st1")
        identity = Identity("st1")
        desk = Desk(address, "plant/line/st1", identity, self.path, Counters().snapshot)
        self.publisher = Publisher(desk, timing)
        self.publisher.start()
        self.publisher.set_state("RUNNING")
        return self.publisher

    def commit(self, count: int) -> None:
        for _ in range(count):
            part = Part("p", "cam", "s", 0, 0, Decision(Verdict.NG))
            self.store.commit([(part, FakeEvent())])  # type: ignore[list-item]
            if self.publisher is not None:
                self.publisher.wake()

    def waiting(self) -> int:
        return self.store.depth().waiting

    def stop(self) -> None:
        if self.publisher is not None:
            self.publisher.stop(reason="shutdown", drain_s=5)
            self.publisher = None


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "station.db")
    yield made
    made.stop()
    made.store.close()


def test_events_arrive_in_order_and_are_noted(
    line: Line, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port)
    line.commit(50)
    wait_for(lambda: line.waiting() == 0, "all acknowledgements")
    wait_for(lambda: len(scada.events()) == 50, "all events")
    assert [e["seq"] for e in scada.events()] == list(range(1, 51))
    assert all(0 <= e["capture_to_publish_ms"] < 5000 for e in scada.events())
    assert len(line.store._outbox.replay(since=0, limit=99)) == 50  # acknowledged, not removed


def test_status_is_retained_and_says_goodbye(
    line: Line, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("status"), "the first status")
    publisher.set_state("FAULT", "not calibrated")
    wait_for(lambda: scada.payloads("status")[-1]["state"] == "FAULT", "the fault")
    assert scada.payloads("status")[-1]["reason"] == "not calibrated"
    wait_for(lambda: scada.payloads("kpi"), "a kpi")
    line.stop()
    wait_for(lambda: scada.payloads("status")[-1]["state"] == "STOPPED", "the goodbye")
    last = scada.payloads("status")[-1]
    assert (last["online"], last["reason"]) == (False, "shutdown")
    assert last["connected_ms"] == scada.payloads("status")[0]["connected_ms"] > 0
    newcomer = make_subscriber(mosquitto.port)
    assert newcomer.payloads("status")[-1]["reason"] in ("shutdown",)
    time.sleep(0.3)
    assert scada.payloads("status")[-1]["reason"] == "shutdown"  # the last will did not follow


def test_a_broker_absent_at_the_start_is_said_once_and_gets_all_later(
    line: Line, make_mosquitto: Any, make_subscriber: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_mosquitto()
    line.publish(broker.port)
    line.commit(30)
    time.sleep(1.0)
    assert sum("No connection to the broker" in r.message for r in caplog.records) == 1
    assert line.waiting() == 30
    broker.start()
    scada = make_subscriber(broker.port)
    wait_for(lambda: line.waiting() == 0, "the backlog")
    line.commit(1)
    wait_for(lambda: scada.first_seqs()[-1:] == [31], "the live event")
    flags = {e["seq"]: e["late"] for e in scada.events()}
    assert flags[31] is False


def test_a_broker_killed_in_the_middle_loses_nothing_and_keeps_the_order(
    line: Line, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port)
    line.commit(40)
    # What the subscriber has not, a killed broker may forget although it has acknowledged it.
    wait_for(lambda: line.waiting() == 0 and len(scada.first_seqs()) == 40, "the first half")
    mosquitto.kill()
    line.commit(40)
    mosquitto.start()
    wait_for(lambda: line.waiting() == 0, "the backlog")
    wait_for(lambda: len(scada.first_seqs()) == 80, "every event")
    assert scada.first_seqs() == list(range(1, 81))
    assert {e["seq"] for e in scada.events() if e["late"]} >= set(range(41, 81))


def test_killing_the_broker_while_events_flow_loses_nothing(
    line: Line, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    """The station's promise: what was not acknowledged is sent again. What a broker forgets, it may replay."""
    publisher = line.publish(mosquitto.port)
    stop = threading.Event()

    def flap() -> None:
        while not stop.wait(0.4):
            mosquitto.kill()
            mosquitto.start()

    flapper = threading.Thread(target=flap)
    flapper.start()
    for _ in range(150):
        line.commit(2)
        time.sleep(0.01)
    stop.set()
    flapper.join()
    wait_for(lambda: line.waiting() == 0, "the backlog")
    assert publisher.traffic.acked == 300
    assert publisher.traffic.connections > 1


def test_a_broker_that_hangs_is_given_up_after_the_acknowledgement_time(
    line: Line, mosquitto: Any, wait_for: Any
) -> None:
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=0.5))
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    mosquitto.send(signal.SIGSTOP)
    line.commit(3)
    time.sleep(1.0)
    assert line.waiting() == 3
    mosquitto.send(signal.SIGCONT)
    wait_for(lambda: line.waiting() == 0, "the events on a new connection")
    assert publisher.traffic.connections >= 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_network_thread_is_started_again(
    line: Line, mosquitto: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=1.0))
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    client = publisher._link._client
    usual, pair = client.on_publish, (client._sockpairR, client._sockpairW)

    def dies(*args: Any) -> None:
        client.on_publish = usual
        raise SystemExit  # passes by paho's own guard, and ends its thread without a word

    client.on_publish = dies
    line.commit(3)
    wait_for(lambda: line.waiting() == 0, "the events after the revival")
    assert any("network thread had died" in r.message for r in caplog.records)
    for forgotten in pair:
        forgotten.close()


def test_refused_events_stay_and_are_sent_again_when_allowed(
    line: Line, make_mosquitto: Any, tmp_path: Path, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite plant/line/st1/status\n")
    broker = make_mosquitto(f"acl_file {acl}")
    broker.start()
    publisher = line.publish(broker.port)
    line.commit(3)
    wait_for(lambda: publisher.traffic.rejected >= 3, "the refusals")
    assert line.waiting() == 3
    assert sum("refuses events" in r.message for r in caplog.records) == 1
    acl.write_text("topic readwrite #\n")
    broker.send(signal.SIGHUP)
    wait_for(lambda: line.waiting() == 0, "the events")


def test_no_more_is_on_the_way_than_the_broker_takes(line: Line, wait_for: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[list[int]] = [[], []]
        threading.Thread(target=_mute_broker, args=(server, connections), daemon=True).start()
        line.commit(30)
        line.publish(server.getsockname()[1], replace(FAST, ack_s=60))
        wait_for(lambda: len(connections[1]) >= 5, "five messages on the second connection")
        time.sleep(0.5)
        # The status, retained, and four events; nothing that paho kept (its messages would say DUP, 0x08).
        assert connections == [[0x33] + [0x32] * 4] * 2
        assert line.publisher is not None
        line.publisher.stop(reason="shutdown", drain_s=0.1)
        line.publisher = None


def _mute_broker(server: socket.socket, connections: list[list[int]]) -> None:
    """Speaks MQTT 5 with Receive Maximum 5, acknowledges nothing, and hangs up the first time after a while."""
    for number, publishes in enumerate(connections):
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(bytes([0x20, 6, 0, 0, 3, 0x21, 0, 5]))
            connection.settimeout(0.5 if number == 0 else None)
            with contextlib.suppress(TimeoutError):
                buffer = b""
                while data := connection.recv(65536):
                    buffer = _take_publishes(buffer + data, publishes)


def _take_publishes(buffer: bytes, publishes: list[int]) -> bytes:
    """Note the first byte of each whole PUBLISH with QoS 1; what is left over."""
    while len(buffer) > 2:
        length, used = buffer[1] & 0x7F, 2
        if buffer[1] & 0x80:
            length, used = length | buffer[2] << 7, 3
        if len(buffer) < used + length:
            break
        if buffer[0] & 0xF0 == 0x30 and buffer[0] & 0x06:
            publishes.append(buffer[0])
        buffer = buffer[used + length :]
    return buffer


class ChangingLink:
    """A connection that is lost and made again, before the publisher hears of it, after two messages."""

    connection = 1

    def __init__(self) -> None:
        self.sent: list[int] = []

    def publish(self, _topic: str, body: bytes, *, qos: int) -> int:
        self.sent.append(json.loads(body)["seq"])
        if len(self.sent) == 2:
            self.connection = 3
        return len(self.sent)


def test_no_event_overtakes_those_that_were_on_the_way_when_the_connection_was_lost(line: Line) -> None:
    line.commit(5)
    link = ChangingLink()
    delivery = Delivery(line.store._outbox, link, "t", refused_s=1)  # type: ignore[arg-type]
    delivery.begin(Up(1, 16))
    delivery.send()
    assert link.sent == [1, 2]
    delivery.begin(Up(3, 16))
    delivery.send()
    assert link.sent == [1, 2, 1, 2, 3, 4, 5]


AMQTT = """
import asyncio, sys
from amqtt.broker import Broker

async def serve():
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}}
    await Broker({"listeners": listeners, "plugins": plugins}).start()
    await asyncio.sleep(3600)

asyncio.run(serve())
"""


@pytest.fixture
def amqtt_port(free_port: int, wait_for: Callable[..., None]) -> Iterator[int]:
    """A broker that speaks MQTT 3.1.1 only."""
    process = subprocess.Popen([sys.executable, "-c", AMQTT, str(free_port)], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", free_port)) == 0

    wait_for(answers, "amqtt")
    yield free_port
    process.kill()
    process.wait()


def test_a_broker_without_mqtt_5_is_served_with_3_1_1(line: Line, amqtt_port: int, wait_for: Any) -> None:
    publisher = line.publish(amqtt_port)
    line.commit(20)
    wait_for(lambda: line.waiting() == 0, "the events")
    assert publisher.traffic.acked == 20
    assert publisher._version.name == "MQTTv311"


def test_a_publisher_without_broker_stops_at_once(line: Line, free_port: int, wait_for: Any) -> None:
    publisher = line.publish(free_port)
    line.commit(2)
    wait_for(lambda: publisher._has_failed, "the first attempt")
    start = time.monotonic()
    line.stop()
    assert time.monotonic() - start < 3
    assert line.waiting() == 2
