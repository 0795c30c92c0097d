"""Each defect of paho-mqtt 2.2 that a station would suffer from, and that its guard holds."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from kenpin.config import MqttSection
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.clone_watch import CloneWatch
from kenpin.edge_runtime.link import Link, Terms, Will
from kenpin.edge_runtime.link_signal import Down, Incoming, Up
from kenpin.edge_runtime.publisher import Timing
from tests.edge_runtime.conftest import let_thread_die
from tests.edge_runtime.publishing_line import FAST, MuteBroker, PublishingLine

COMMITS_AND_DIES = """
import os, signal, sys, time
from pathlib import Path
from tests.edge_runtime.publishing_line import PublishingLine
line = PublishingLine(Path(sys.argv[1]))
line.publish(int(sys.argv[2]))
line.commit(20)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def mute() -> Iterator[MuteBroker]:
    made = MuteBroker()
    yield made
    made.close()


def make_link(port: int, **terms: Any) -> Link:
    address = BrokerAddress("127.0.0.1", port, "st1")
    return Link(address, Will("plant/st1/status", lambda: b"{}"), SimpleQueue(), Terms(**terms))


def test_paho_01_what_its_memory_loses_at_the_end_of_the_process_is_on_disk(
    tmp_path: Path, mosquitto: Any, free_port: int, make_subscriber: Any, wait_for: Any
) -> None:
    path = tmp_path / "station.db"
    command = [sys.executable, "-c", COMMITS_AND_DIES, str(path), str(free_port)]
    died = subprocess.run(command, check=False, cwd=Path(__file__).parents[2], timeout=300)
    assert died.returncode == -signal.SIGKILL
    scada = make_subscriber(mosquitto.port)
    line = PublishingLine(path)
    line.publish(mosquitto.port)
    wait_for(lambda: len(scada.first_seqs()) == 20, "the events of the killed process")
    assert scada.first_seqs() == list(range(1, 21))
    line.stop()
    line.store.close()


def test_paho_02_its_queue_drops_the_newest_so_it_never_gets_more_than_the_window(
    line: PublishingLine, mosquitto: Any, wait_for: Any
) -> None:
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=60))
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    mosquitto.send(signal.SIGSTOP)
    line.commit(100)
    wait_for(lambda: len(line.link._client._out_messages) >= 16, "a full window")
    assert len(line.link._client._out_messages) <= 17  # and the status, where it has no answer yet
    mosquitto.send(signal.SIGCONT)
    wait_for(lambda: line.waiting() == 0, "the events")


def test_paho_03_offline_it_says_no_and_keeps_the_message_so_it_is_not_asked(
    free_port: int, closed: Any
) -> None:
    link = closed(make_link(free_port))
    link.open(MQTTProtocolVersion.MQTTv5)
    assert link.publish("plant/st1/x", b"{}", qos=1) is None
    assert not link._client._out_messages


def test_paho_04_after_a_reconnection_it_sends_all_it_kept_at_once_so_that_is_dropped(
    line: PublishingLine, mute: MuteBroker, wait_for: Any
) -> None:
    line.commit(30)
    line.publish(mute.port, replace(FAST, ack_s=60))
    wait_for(lambda: len(mute.publishes[1]) >= 5, "five messages on the second connection")
    # The status, retained, and events; what paho kept would say DUP (0x08).
    assert mute.publishes[1][:5] == [0x33] + [0x32] * 4
    line.stop(drain_s=0.1)


def test_paho_05_it_ignores_the_receive_maximum_of_the_broker(
    line: PublishingLine, mute: MuteBroker, wait_for: Any
) -> None:
    line.commit(30)
    line.store.change(lambda connection, _: connection.execute("INSERT INTO state VALUES ('a', '{}', 1)"))
    line.publish(mute.port, replace(FAST, ack_s=60))
    wait_for(lambda: mute.publishes[1], "the second connection")
    assert mute.publishes[0] == [0x33, 0x33, 0x32, 0x32, 0x32]  # the status, what is retained, and events
    line.stop(drain_s=0.1)


def test_paho_06a_an_exception_in_a_callback_ends_its_thread(
    line: PublishingLine, mosquitto: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=0.5))
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    client = line.link._client
    usual = client.on_publish

    def fails(*_: Any) -> None:
        client.on_publish = usual
        raise ValueError("a bug")

    client.on_publish = fails
    line.commit(3)
    wait_for(lambda: line.waiting() == 0, "the events")
    assert any("Caught exception" in r.message for r in caplog.records)
    assert not any("network thread had died" in r.message for r in caplog.records)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_paho_06b_a_dead_thread_looks_alive_and_is_started_again(
    line: PublishingLine, mosquitto: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=1.0))
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    client = line.link._client
    pair = let_thread_die(client, "on_publish")
    line.commit(3)
    wait_for(lambda: line.waiting() == 0, "the events after the revival")
    assert any("network thread had died" in r.message for r in caplog.records)
    for forgotten in pair:
        forgotten.close()


class Blocking:
    """Stands for a publisher's thread that is busy."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.go_on = threading.Event()

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        self.came.set()
        assert self.go_on.wait(180)


def publish(port: int, topic: str, body: str | bytes, *options: str) -> None:
    command = [
        "mosquitto_pub",
        "-V",
        "5",
        "-p",
        str(port),
        "-q",
        "1",
        "-t",
        f"plant/line/st1/{topic}",
        *options,
        "-s",
    ]
    subprocess.run(command, check=True, input=body.encode() if isinstance(body, str) else body, timeout=300)


def test_paho_07_its_callbacks_hold_its_locks_so_they_only_enqueue(
    line: PublishingLine, mosquitto: Any, wait_for: Any
) -> None:
    """Whatever the publisher's thread is doing, paho's thread goes on."""
    blocking = Blocking()
    publisher = line.publish(mosquitto.port, listener=blocking)
    wait_for(line.link._client.is_connected, "the connection")
    wait_for(lambda: publish(mosquitto.port, "cmd/a", "x") or blocking.came.is_set(), "the first command")
    before = publisher._tasks.qsize()
    for _ in range(3):
        publish(mosquitto.port, "cmd/a", "x")
    wait_for(lambda: publisher._tasks.qsize() >= before + 3, "the next commands in the queue")
    blocking.go_on.set()


def test_paho_08_a_refused_event_counts_as_sent_so_the_reason_code_is_read(
    line: PublishingLine, make_mosquitto: Any, tmp_path: Path, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite plant/line/st1/status\n")
    broker = make_mosquitto(f"acl_file {acl}")
    broker.start()
    publisher = line.publish(broker.port)
    line.commit(3)
    wait_for(lambda: publisher.traffic.rejected >= 6, "the refusals, again")
    assert (line.waiting(), publisher.traffic.acked) == (3, 0)
    assert sum("refuses events" in r.message for r in caplog.records) == 1
    acl.write_text("topic readwrite #\n")
    broker.send(signal.SIGHUP)
    wait_for(lambda: line.waiting() == 0, "the events")


def test_paho_09_an_event_without_a_reader_is_counted(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    publisher = line.publish(mosquitto.port)
    line.commit(3)
    wait_for(lambda: publisher.traffic.acked == 3, "the acknowledgements")
    assert publisher.traffic.no_subscriber == 3
    make_subscriber(mosquitto.port)
    line.commit(2)
    wait_for(lambda: publisher.traffic.acked == 5, "the acknowledgements")
    assert publisher.traffic.no_subscriber == 3


def test_paho_10a_it_reports_a_loss_twice() -> None:
    watch = CloneWatch()
    for second in (0, 1):
        watch.up(second)
        watch.down(second + 0.5)
        watch.down(second + 0.5)
    assert not watch.suspects(2)  # two losses, though four reports


def test_paho_10b_a_dead_link_is_noticed_late_so_an_answer_has_its_time(
    line: PublishingLine, mosquitto: Any, wait_for: Any
) -> None:
    assert (Timing().keepalive_s, Timing().ack_s) == (15, 10.0)
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=0.5, keepalive_s=600))
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    mosquitto.send(signal.SIGSTOP)
    line.commit(1)
    wait_for(lambda: not line.link._client.is_connected(), "the end of the connection")
    mosquitto.send(signal.SIGCONT)
    wait_for(lambda: line.waiting() == 0, "the event on a new connection")


def test_paho_11a_two_clients_with_one_id_fight_for_ever_and_the_status_says_so(
    line: PublishingLine, tmp_path: Path, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    clone = PublishingLine(tmp_path / "clone.db")
    for station in (line, clone):
        station.publish(mosquitto.port)
    wait_for(
        lambda: any("comms_unstable" in s["reason"] for s in scada.payloads("status") if s["online"]),
        "the reason in the status",
    )
    told = next(s for s in scada.payloads("status") if "comms_unstable" in s["reason"])
    assert (told["state"], "copied disk" in told["reason"]) == ("DEGRADED", True)
    clone.stop(drain_s=0)
    clone.store.close()


def test_of_two_clients_with_one_id_one_gives_way(
    line: PublishingLine, tmp_path: Path, mosquitto: Any, wait_for: Any
) -> None:
    clone = PublishingLine(tmp_path / "clone.db")
    both = [s.publish(mosquitto.port, replace(FAST, reconnect_s=(0.1, 1000.0))) for s in (line, clone)]
    wait_for(lambda: any(publisher.is_unstable for publisher in both), "the fight")
    time.sleep(3.0)
    made = [publisher.traffic.connections for publisher in both]
    time.sleep(3.0)
    assert [publisher.traffic.connections for publisher in both] == made
    clone.stop(drain_s=0)
    clone.store.close()


def test_no_packet_is_larger_than_the_broker_takes_and_none_that_fits_is_kept_back(closed: Any) -> None:
    """But for the bytes by which the head of a packet may be shorter."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        link = closed(make_link(broker.getsockname()[1]))
        link.open(MQTTProtocolVersion.MQTTv5)
        with broker.accept()[0] as connected:
            connected.recv(4096)
            connected.sendall(b"\x20\x08\0\0\x05\x27\0\0\x01\x90")  # CONNACK: up to 400 bytes
            assert isinstance(link._signals.get(timeout=180), Up)
            event = {"schema": "kenpin.audit.v1", "id": "a", "ts": "b"}
            for size in range(400):
                body = json.dumps({**event, "new": "x" * size}).encode()
                link.publish("plant/line/st1/event/audit", body, qos=1, expiry_s=300)
            link.disconnect()
            came = b""
            while data := connected.recv(65536):
                came += data
    sizes = []
    while came:
        size = 2 + came[1] if came[1] < 0x80 else 3 + (came[1] & 0x7F) + (came[2] << 7)
        sizes.append(size)
        came = came[size:]
    assert 396 <= max(sizes) <= 400
    assert len(sizes) > 100


CONNACK, TAKEN_OVER = b"\x20\x03\0\0\0", b"\xe0\x02\x8e\0"


@pytest.mark.parametrize(
    ("last_words", "reason"),
    [
        (TAKEN_OVER, "another client with this station's id has taken"),
        (b"", "or another client has this station's id"),
    ],
)
def test_a_connection_that_another_client_takes_is_told_as_such_the_first_time(
    last_words: bytes, reason: str, closed: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        link = closed(make_link(broker.getsockname()[1], reconnect_s=(100.0, 100.0)))
        link.open(MQTTProtocolVersion.MQTTv5)
        with broker.accept()[0] as connected:
            connected.recv(4096)
            connected.sendall(CONNACK + last_words)
        assert isinstance(link._signals.get(timeout=180), Up)
        assert reason in link._signals.get(timeout=180).reason


def test_paho_11b_its_pauses_have_no_chance_in_them_so_each_link_has_its_own(
    free_port: int, closed: Any
) -> None:
    links = [closed(make_link(free_port, reconnect_s=(100.0, 1000.0))) for _ in range(8)]
    for link in links:
        link.open(MQTTProtocolVersion.MQTTv5)
    pauses = [link._client._reconnect_min_delay for link in links]
    assert len(set(pauses)) == 8
    assert all(50 <= pause <= 150 for pause in pauses)
    links[0].take_time()
    assert links[0]._client._reconnect_min_delay >= 500


def test_paho_12_its_own_window_is_slow_so_only_ours_counts(free_port: int, closed: Any) -> None:
    link = closed(make_link(free_port))
    link.open(MQTTProtocolVersion.MQTTv5)
    assert link._client.max_inflight_messages == 0


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
def amqtt_port(free_port: int, wait_for: Any) -> Iterator[int]:
    """A broker that speaks MQTT 3.1.1 only."""
    process = subprocess.Popen([sys.executable, "-c", AMQTT, str(free_port)], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", free_port)) == 0

    wait_for(answers, "amqtt")
    yield free_port
    process.kill()
    process.wait()


def test_paho_13_it_does_not_fall_back_to_3_1_1(line: PublishingLine, amqtt_port: int, wait_for: Any) -> None:
    publisher = line.publish(amqtt_port)
    line.commit(20)
    wait_for(lambda: line.waiting() == 0, "the events")
    assert publisher.traffic.acked == 20
    assert publisher._connection.version.name == "MQTTv311"


def test_paho_13_mqtt_5_is_tried_again_and_what_the_broker_takes_is_found_again(
    line: PublishingLine, amqtt_port: int, wait_for: Any
) -> None:
    publisher = line.publish(amqtt_port, replace(FAST, probe_s=0.5))
    wait_for(lambda: publisher.traffic.connections >= 2, "a connection after the second trial")
    line.commit(5)
    wait_for(lambda: line.waiting() == 0, "the events")


def test_paho_14_a_message_from_another_thread_passes_by_a_loop_that_is_not_its_own(
    free_port: int, closed: Any
) -> None:
    link = closed(make_link(free_port))
    link.open(MQTTProtocolVersion.MQTTv5)
    thread = link._client._thread  # where it is None, paho writes from whoever publishes
    assert thread is not None
    assert thread.name == "paho-mqtt-client-st1"


class Hearing:
    """Notes what comes in."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        self.sizes.append(len(body))


def test_paho_15_it_takes_packets_of_any_size_so_the_broker_is_told_to_keep_large_ones(
    line: PublishingLine, mosquitto: Any, wait_for: Any
) -> None:
    hearing = Hearing()
    publisher = line.publish(mosquitto.port, listener=hearing)
    wait_for(lambda: publish(mosquitto.port, "cmd/a", "x") or hearing.sizes, "a small one")
    publish(mosquitto.port, "cmd/a", b"y" * 70_000)
    publish(mosquitto.port, "cmd/a", b"z" * 60_000)
    wait_for(lambda: 60_000 in hearing.sizes, "one that is small enough")
    assert 70_000 not in hearing.sizes
    assert publisher.traffic.connections == 1


def test_paho_16_a_context_that_does_not_check_names_breaks_on_newer_pythons() -> None:
    address = BrokerAddress.from_config(MqttSection(url="mqtts://localhost"), client_id="st1")
    assert address.tls is not None
    assert address.tls.check_hostname
    assert address.tls.verify_mode == ssl.CERT_REQUIRED
    assert address.tls.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_link_that_cannot_connect_says_so_and_closes(free_port: int, closed: Any) -> None:
    link = closed(make_link(free_port, reconnect_s=(0.01, 0.02)))
    link.open(MQTTProtocolVersion.MQTTv5)
    told = link._signals.get(timeout=180)
    assert isinstance(told, Down)
    assert not told.version_refused
    assert os.strerror(111) in told.reason
    assert link.publish("a", b"{}", qos=1) is None


@pytest.mark.parametrize("retain", [True, False])
def test_a_message_that_the_broker_had_kept_is_told_as_such(*, retain: bool) -> None:
    """With 3.1.1 it sends them whether one wants them or not, and a command must not be one."""
    link, nobody = make_link(1), None
    message: Any = SimpleNamespace(topic="plant/st1/cmd/ack", payload=b"{}", retain=retain)
    link._on_message(nobody, None, message)  # type: ignore[arg-type]
    assert link._signals.get_nowait() == Incoming("plant/st1/cmd/ack", b"{}", retain)


def test_of_a_huge_message_no_more_waits_than_it_takes_to_refuse_it(
    mosquitto: Any, wait_for: Any, closed: Any
) -> None:
    link = closed(make_link(mosquitto.port, listen_to="plant/st1/cmd/+"))
    link.open(MQTTProtocolVersion.MQTTv311)  # which tells the broker no limit
    heard: list[int] = []

    def is_heard() -> bool:
        to = ["-p", str(mosquitto.port), "-t", "plant/st1/cmd/ack", "-s"]
        subprocess.run(["mosquitto_pub", *to], input=b"x" * 200_000, check=True, timeout=300)
        while not link._signals.empty():
            if isinstance(signal := link._signals.get(), Incoming):
                heard.append(len(signal.body))
        return bool(heard)

    wait_for(is_heard, "a message")
    assert set(heard) == {65536}
