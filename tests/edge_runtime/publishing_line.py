"""A store and a publisher without an engine in between, and a broker that says little."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.link import Link
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.publisher import Publisher, Timing
from kenpin.edge_runtime.store import Store
from kenpin.events import now_ms

FAST = Timing(reconnect_s=(0.1, 0.4), watch_s=0.1, refused_s=0.3, kpi_s=0.5)


class FakeEvent:
    """An event as small as the store takes it."""

    topic = "event/anomaly"

    def to_json(self) -> bytes:
        return json.dumps({"ts_ms": now_ms(), "late": False, "capture_to_publish_ms": 0.0}).encode()


class PublishingLine:
    """Commits parts with their events, and publishes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(path)
        self.publisher: Publisher | None = None

    def publish(self, port: int, timing: Timing = FAST, **more: Any) -> Publisher:
        desk = Desk(
            BrokerAddress("127.0.0.1", port, "st1"),
            "plant/line/st1",
            Identity("st1"),
            self.path,
            Counters().snapshot,
        )
        self.publisher = Publisher(replace(desk, **more), timing)
        self.publisher.start()
        self.publisher.set_state("RUNNING")
        return self.publisher

    @property
    def link(self) -> Link:
        assert self.publisher is not None
        return self.publisher._link

    def commit(self, count: int) -> None:
        for _ in range(count):
            part = Part("p", "cam", "s", 0, 0, Decision(Verdict.NG))
            self.store.commit([(part, FakeEvent())])  # type: ignore[list-item]
            if self.publisher is not None:
                self.publisher.wake()

    def send_again(self, *, since: int, count: int) -> None:
        assert self.publisher is not None
        self.store.change(lambda _, outbox: outbox.send_again(since=since, count=count) and None)
        self.publisher.look_back()

    def waiting(self) -> int:
        return self.store.depth().waiting

    def stop(self, drain_s: float = 5) -> None:
        if self.publisher is not None:
            self.publisher.stop(reason="shutdown", drain_s=drain_s)
            self.publisher._thread.join()  # or its connections are open when the next test begins
            self.publisher = None


class RawBroker:
    """Listens where a broker would; what it says on each connection is up to `_talk`."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                connection, _ = self._server.accept()
                with connection, contextlib.suppress(ConnectionError):
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        raise NotImplementedError


class MuteBroker(RawBroker):
    """Speaks MQTT 5 with Receive Maximum 5, acknowledges nothing, hangs up the first time when no more comes.

    Attributes:
        publishes: First byte of each PUBLISH with QoS 1, of the first and of the second connection.
    """

    def __init__(self) -> None:
        self.publishes: list[list[int]] = [[], []]
        super().__init__()

    def _serve(self) -> None:
        for number, publishes in enumerate(self.publishes):
            connection, _ = self._server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(bytes([0x20, 6, 0, 0, 3, 0x21, 0, 5]))
                with contextlib.suppress(TimeoutError, ConnectionError):
                    buffer = b""
                    while data := connection.recv(65536):
                        buffer = _take_publishes(buffer + data, publishes)
                        connection.settimeout(0.5 if number == 0 and len(publishes) >= 5 else None)


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


class ForgetfulBroker(RawBroker):
    """Speaks MQTT 5, and on the first connection never answers what comes at one topic.

    Args:
        topic: Below the station's prefix.
        again_s: Time to let a client in that comes again.
    """

    def __init__(self, topic: str, *, again_s: float = 0.0) -> None:
        self._forgotten = f"plant/line/st1/{topic}".encode()
        self._again_s = again_s
        super().__init__()

    def _talk(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rwb", buffering=0) as wire:
                self._answer(wire)
        finally:
            self._forgotten = b""

    def _answer(self, wire: Any) -> None:
        while head := wire.read(1):
            length, place = 0, 0
            while True:
                byte = wire.read(1)[0]
                length |= (byte & 0x7F) << place
                place += 7
                if byte < 0x80:
                    break
            packet = wire.read(length)
            while len(packet) < length:
                packet += wire.read(length - len(packet))
            if head[0] == 0x10:
                time.sleep(0 if self._forgotten else self._again_s)
                wire.write(bytes([0x20, 3, 0, 0, 0]))
            elif head[0] & 0xF6 == 0x32:  # a PUBLISH with QoS 1
                end = 2 + int.from_bytes(packet[:2], "big")
                if packet[2:end] != self._forgotten:
                    self._acknowledge(wire, bytes([0x40, 2, *packet[end : end + 2]]))

    def _acknowledge(self, wire: Any, puback: bytes) -> None:
        wire.write(puback)


class SlowBroker(ForgetfulBroker):
    """Answers each message a while after it came, as one does whose disk is slow.

    Args:
        after_s: That while.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        super().__init__("")

    def _acknowledge(self, wire: Any, puback: bytes) -> None:
        def answer() -> None:
            with contextlib.suppress(OSError, ValueError):  # the client has gone
                wire.write(puback)

        threading.Timer(self._after_s, answer).start()
