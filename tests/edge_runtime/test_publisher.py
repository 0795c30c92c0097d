from __future__ import annotations

import signal
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from kenpin.edge_runtime import delivery
from kenpin.edge_runtime import publisher as publisher_module
from kenpin.edge_runtime.counters import Counters, Snapshot
from kenpin.edge_runtime.link_signal import Incoming
from kenpin.errors import StoreError
from tests.edge_runtime.publishing_line import FAST, ForgetfulBroker, PublishingLine, RawBroker, SlowBroker


def test_events_arrive_in_order_and_are_noted(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    started_s = time.monotonic()
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    line.commit(50)
    wait_for(lambda: line.waiting() == 0, "all acknowledgements")
    wait_for(lambda: len(scada.events()) == 50, "all events")
    assert [e["seq"] for e in scada.events()] == list(range(1, 51))
    lasted_ms = (time.monotonic() - started_s) * 1000
    assert all(0 <= e["capture_to_publish_ms"] < lasted_ms for e in scada.events())
    assert len(line.store._outbox.replay(since=0, limit=99)) == 50  # acknowledged, not removed


def test_status_is_retained_and_says_goodbye(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
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
    line: PublishingLine,
    make_mosquitto: Any,
    make_subscriber: Any,
    wait_for: Any,
    caplog: pytest.LogCaptureFixture,
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


def test_what_keeps_the_station_off_is_said_though_the_connection_ended_for_another_reason(
    line: PublishingLine, mosquitto: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: publisher.is_connected, "the connection")
    mosquitto.kill()
    wait_for(lambda: "Connection refused" in caplog.text, "why it stays away")
    time.sleep(1.0)
    said = [r.message for r in caplog.records if "No connection to the broker" in r.message]
    assert len(said) == len(set(said)) == 2
    assert "ended without a word" in said[0]


class HangsUp(RawBroker):
    """Ends each connection when it hears anything, as a port does that wants TLS, or is no broker's.

    Attributes:
        connections: How many there were.
    """

    def __init__(self) -> None:
        self.connections = 0
        super().__init__()

    def _talk(self, connection: socket.socket) -> None:
        self.connections += 1
        connection.recv(4096)


def test_a_port_that_answers_no_version_of_mqtt_is_said_once(
    line: PublishingLine, wait_for: Any, closed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port = closed(HangsUp())
    line.publish(port.port)
    wait_for(lambda: port.connections >= 6, "both versions, again and again")
    (said,) = [r.getMessage() for r in caplog.records if "No connection" in r.getMessage()]
    assert "mqtts://" in said


class Sparing(RawBroker):
    """Lets a client in and ends the connection at once: its quota is used up."""

    def _talk(self, connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(bytes([0x20, 3, 0, 0, 0, 0xE0, 2, 0x97, 0]))


def test_why_the_broker_drops_the_connection_again_and_again_is_told_by_its_own_words(
    line: PublishingLine, wait_for: Any, closed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = line.publish(closed(Sparing()).port)
    wait_for(lambda: publisher.is_unstable, "the suspicion")
    wait_for(lambda: "comms_unstable" in caplog.text, "the words")
    said = next(r.getMessage() for r in caplog.records if "comms_unstable" in r.getMessage())
    assert "Quota exceeded" in said


def test_a_broker_killed_in_the_middle_loses_nothing_and_keeps_the_order(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
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
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    """The station's promise: what was not acknowledged is sent again. What a broker forgets, it may replay."""
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    stop = threading.Event()

    def flap() -> None:
        while True:
            mosquitto.kill()
            mosquitto.start()
            if stop.wait(0.4):
                return

    flapper = threading.Thread(target=flap)
    flapper.start()
    try:
        for _ in range(150):
            line.commit(2)
            time.sleep(0.01)
    finally:
        stop.set()
        flapper.join()
    wait_for(lambda: line.waiting() == 0, "the backlog")
    assert publisher.traffic.acked == 300
    assert publisher.traffic.connections > 1


def test_a_broker_that_hangs_is_given_up_after_the_acknowledgement_time(
    line: PublishingLine, mosquitto: Any, wait_for: Any
) -> None:
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=0.5))
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    mosquitto.send(signal.SIGSTOP)
    line.commit(3)
    wait_for(lambda: not publisher.is_connected, "the end of its patience")
    assert line.waiting() == 3
    mosquitto.send(signal.SIGCONT)
    wait_for(lambda: line.waiting() == 0, "the events on a new connection")
    assert publisher.traffic.connections >= 2


@pytest.mark.parametrize("topic", ["status", "meta"])
def test_a_broker_that_never_answers_what_it_shall_retain_is_given_up_too(
    line: PublishingLine, topic: str, wait_for: Any, closed: Any
) -> None:
    broker = closed(ForgetfulBroker(topic))
    for name in ("alarm/a", "meta"):
        sql = "INSERT INTO state SELECT ?, '{}', count(*) + 1 FROM state"
        line.store.change(lambda connection, _, sql=sql, name=name: connection.execute(sql, (name,)))
    line.commit(3)
    # Nor does this broker answer pings: for those the connection would end as well, much later.
    publisher = line.publish(broker.port, replace(FAST, ack_s=0.5, keepalive_s=600))
    wait_for(lambda: publisher.traffic.connections >= 2, "the end of its patience")
    wait_for(lambda: line.waiting() == 0, "the events on a new connection")


def test_a_broker_that_takes_its_time_is_not_given_up_for_what_the_last_connection_left_unanswered(
    line: PublishingLine, wait_for: Any, closed: Any
) -> None:
    timing = replace(FAST, ack_s=2.0)
    broker = closed(ForgetfulBroker("event/anomaly", again_s=5 * timing.watch_s))
    line.commit(3)
    publisher = line.publish(broker.port, timing)
    wait_for(lambda: line.waiting() == 0, "the events on a new connection")
    assert publisher.traffic.connections == 2


def test_a_broker_that_is_always_slow_gets_more_than_its_first_events(
    line: PublishingLine, wait_for: Any, closed: Any
) -> None:
    timing = replace(FAST, ack_s=0.3)
    broker = closed(SlowBroker(2 * timing.ack_s))
    line.commit(3 * delivery.WINDOW)
    line.publish(broker.port, timing)
    wait_for(lambda: line.waiting() == 0, "all of them")


def test_a_publisher_without_broker_stops_at_once(line: PublishingLine, free_port: int, wait_for: Any) -> None:
    publisher = line.publish(free_port)
    line.commit(2)
    wait_for(lambda: publisher._connection.has_failed, "the first attempt")
    start_s = time.monotonic()
    line.stop(drain_s=300)
    assert time.monotonic() - start_s < 100  # it did not wait for the broker
    assert line.waiting() == 2


def test_the_publisher_is_woken_and_need_not_come_round(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scada = make_subscriber(mosquitto.port)
    with monkeypatch.context() as patch:
        patch.setattr(publisher_module, "_TICK_S", 3600.0)
        publisher = line.publish(mosquitto.port)
        wait_for(lambda: scada.payloads("status"), "the first status")
        publisher.set_state("FAULT", "not calibrated")
        wait_for(lambda: scada.payloads("status")[-1]["state"] == "FAULT", "the fault")
        line.commit(1)
        wait_for(scada.events, "the event")
    line.stop()


def test_what_nobody_foresaw_is_logged_and_the_publisher_goes_on(
    line: PublishingLine, mosquitto: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[Exception] = []

    def counters() -> Snapshot:
        if faults:
            raise faults.pop()
        return Counters().snapshot()

    line.publish(mosquitto.port, counters=counters)
    faults.append(RuntimeError("a bug"))
    wait_for(lambda: "stumbled" in caplog.text, "the log")
    line.commit(1)
    wait_for(lambda: line.waiting() == 0, "the event")


def test_a_publisher_whose_database_fails_ends_when_its_time_is_over(
    line: PublishingLine, mosquitto: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise StoreError("the disk is gone")

    publisher = line.publish(mosquitto.port)
    wait_for(lambda: publisher.is_connected, "the connection")
    monkeypatch.setattr(publisher._outbox, "waiting", fail)
    line.stop(drain_s=0.1)
    assert not publisher._thread.is_alive()


def test_a_publisher_that_ends_sends_first_what_waits(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port, replace(FAST, ack_s=60))
    wait_for(lambda: scada.payloads("status"), "the first status")
    mosquitto.send(signal.SIGSTOP)
    line.commit(100)
    end = threading.Thread(target=line.stop, args=(60,))
    end.start()
    wait_for(lambda: publisher._stop_by_s is not None, "the end to begin")
    mosquitto.send(signal.SIGCONT)
    end.join()
    assert line.waiting() == 0


def test_what_the_broker_has_is_noted_at_the_end_and_does_not_come_twice(
    line: PublishingLine, mosquitto: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_NOTE_S", 3600.0)
    publisher = line.publish(mosquitto.port)
    line.commit(3)
    wait_for(lambda: len(publisher._delivery._arrived) == 3, "the acknowledgements")
    assert line.waiting() == 3
    line.stop(drain_s=0)
    assert line.waiting() == 0


def test_a_publisher_that_ends_before_its_first_connection_waits_for_it(
    line: PublishingLine, mosquitto: Any
) -> None:
    line.commit(3)
    line.publish(mosquitto.port)
    line.stop(drain_s=60)
    assert line.waiting() == 0


def test_who_comes_after_the_station_has_vanished_is_told_so(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port, replace(FAST, reconnect_s=(100.0, 100.0)))
    wait_for(lambda: scada.payloads("status"), "the first status")
    line.link.break_off()
    wait_for(lambda: scada.payloads("status")[-1]["reason"] == "lwt", "the last will")
    newcomer = make_subscriber(mosquitto.port)
    wait_for(lambda: newcomer.payloads("status"), "the status")
    assert newcomer.payloads("status")[-1]["reason"] == "lwt"


def test_a_publisher_whose_thread_hangs_is_not_alive(
    line: PublishingLine, mosquitto: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    go_on.set()

    def counters() -> Snapshot:
        assert go_on.wait(60)
        return Counters().snapshot()

    publisher = line.publish(mosquitto.port, counters=counters)
    monkeypatch.setattr(publisher_module, "_ROUND_S", 1.0)
    go_on.clear()
    wait_for(lambda: not publisher.is_alive, "the end of its rounds")
    go_on.set()
    wait_for(lambda: publisher.is_alive, "the next round")


def test_a_flood_of_messages_keeps_no_event_back(line: PublishingLine, mosquitto: Any, wait_for: Any) -> None:
    class Flooded:
        """While it looks at a message, the next one comes."""

        is_over = False

        def take(self, topic: str, body: bytes, *, retained: bool) -> None:
            if not self.is_over:
                line.link._signals.put(Incoming(f"plant/line/st1/{topic}", body, retained))

    listener = Flooded()
    publisher = line.publish(mosquitto.port, listener=listener)
    try:
        wait_for(lambda: publisher.traffic.connections == 1, "the connection")
        listener.take("cmd/ack", b"{}", retained=False)
        line.commit(5)
        wait_for(lambda: line.waiting() == 0, "all acknowledgements")
        assert publisher.is_alive
    finally:
        listener.is_over = True
