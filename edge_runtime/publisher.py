"""The publisher: one thread that brings the outbox to the broker, and tells how the station is."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from paho.mqtt.enums import MQTTProtocolVersion

from kenpin.edge_runtime.announce import State
from kenpin.edge_runtime.database import connect
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.delivery import Delivery, Traffic
from kenpin.edge_runtime.herald import Desk, Herald
from kenpin.edge_runtime.link import Acked, Down, Link, Signal, Up, Wake, Will
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.output import Result
from kenpin.errors import StoreError

_TICK_S = 0.2
_GOODBYE_S = 2.0
_ROUND_S = 10.0  # a round of its thread that takes longer hangs
_SHORT_LIFE_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """How long the publisher waits, in seconds.

    Attributes:
        keepalive_s: Silence after which the broker is probed.
        reconnect_s: Shortest and longest pause before a new connection.
        connack_s: A broker that does not answer CONNECT in this time may not know the version of MQTT.
        ack_s: An event that is not acknowledged in this time breaks the connection.
        refused_s: Pause after the broker refused an event.
        status_s: Between two status messages.
        kpi_s: Between two kpi messages.
        watch_s: Between two looks at paho's thread.
        prune_s: Between two removals of old acknowledged events.
    """

    keepalive_s: int = 15
    reconnect_s: tuple[float, float] = (1.0, 30.0)
    connack_s: float = 2.0
    ack_s: float = 10.0
    refused_s: float = 5.0
    status_s: float = 60.0
    kpi_s: float = 10.0
    watch_s: float = 1.0
    prune_s: float = 3600.0


class Publisher:
    """Sends events at least once and in order; a broker that is away is said, never waited for.

    `set_state`, `wake` and `stop` are for the line's thread; only `stop` blocks it. All else happens in the
    publisher's own thread.

    Args:
        desk: What it works for.
        timing: How long it waits for what.

    Raises:
        StoreError: The database cannot be opened.
    """

    def __init__(self, desk: Desk, timing: Timing | None = None) -> None:
        self._desk = desk
        self._timing = timing or Timing()
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._herald = Herald(desk, status_s=self._timing.status_s, kpi_s=self._timing.kpi_s)
        self._link = Link(
            desk.broker,
            Will(self._herald.status_topic, self._herald.last_will),
            self._signals,
            keepalive_s=self._timing.keepalive_s,
            reconnect_s=self._timing.reconnect_s,
        )
        self._database = connect(desk.database, durable=False)
        self._outbox = Outbox(self._database)
        self._delivery = Delivery(self._outbox, self._link, desk.topic, refused_s=self._timing.refused_s)
        self._version = MQTTProtocolVersion.MQTTv5
        self._stop_by_s: float | None = None
        self._last_words = ""
        self._up_since_s: float | None = None
        self._has_failed = False
        self._short_lives = 0
        self._said: set[str] = set()
        self._round_s = time.monotonic()
        self._due_s = dict.fromkeys(("watch", "prune"), 0.0)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @property
    def traffic(self) -> Traffic:
        """What was counted since the start."""
        return self._delivery.traffic

    @property
    def acked(self) -> int:
        """Events that the broker acknowledged since the start."""
        return self.traffic.acked

    @property
    def is_alive(self) -> bool:
        """Whether its thread comes round."""
        return time.monotonic() - self._round_s < _ROUND_S

    def tell_result(self, result: Result) -> None:
        """Publish a result where there is a connection; one that comes late would release another part."""
        body = {
            "part_id": result.part_id,
            "trigger_id": -1 if result.trigger_id is None else result.trigger_id,
            "verdict": result.verdict.value,
            "pass": result.verdict is Verdict.OK,
        }
        if self._up_since_s is not None:
            self._link.publish(f"{self._desk.topic}/output", json.dumps(body).encode(), qos=0)

    def start(self) -> None:
        """Start connecting and publishing."""
        self._link.open(self._version)
        self._thread.start()

    def set_state(self, state: State, reason: str = "") -> None:
        """Let the status say how the station is."""
        if self._herald.state != (state, reason):
            self._herald.state = (state, reason)
            self.wake()

    def wake(self) -> None:
        """Say that there is something to do."""
        if self._signals.empty():
            self._signals.put(Wake())

    def stop(self, *, reason: str, drain_s: float) -> None:
        """Send what waits while the broker takes it, say goodbye and end; what is left stays in the outbox.

        Args:
            reason: For the last status.
            drain_s: Time for the events that wait.
        """
        self._last_words = reason
        self._stop_by_s = time.monotonic() + drain_s
        self.wake()
        self._thread.join(drain_s + 2 * _GOODBYE_S + 1)

    def _run(self) -> None:
        while self._guarded(self._work):
            pass
        self._guarded(self._say_goodbye)
        self._link.close()
        self._database.close()

    def _guarded(self, step: Callable[[], bool]) -> bool:
        """Survive everything: without this thread the line would run on and nobody would hear of it."""
        try:
            return step()
        except StoreError as error:
            self._say_once("store", f"The publisher cannot use the database: {error.what}. Events wait.")
        except Exception:
            _log.exception("The publisher stumbled and goes on.")
        time.sleep(_TICK_S)
        return self._stop_by_s is None or time.monotonic() < self._stop_by_s

    def _work(self) -> bool:
        """One round; whether another one follows."""
        self._round_s = time.monotonic()
        self._listen(_TICK_S)
        self._delivery.note_arrived()
        if self._is_due("watch", self._timing.watch_s):
            self._watch()
        if self._is_due("prune", self._timing.prune_s):
            self._outbox.prune()
        if self._up_since_s is not None:
            if self._delivery.has_room:
                self._herald.tell_status(self._link)
            self._herald.tell_kpi(self._link, self._outbox.depth, self.traffic)
            self._delivery.send(others=self._herald.is_waiting)
        return not self._is_finished()

    def _is_finished(self) -> bool:
        if self._stop_by_s is None:
            return False
        if self._up_since_s is None:
            return self._has_failed or time.monotonic() >= self._stop_by_s
        return time.monotonic() >= self._stop_by_s or self._delivery.is_done()

    def _is_due(self, task: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s[task]:
            return False
        self._due_s[task] = now_s + every_s
        return True

    def _listen(self, timeout_s: float) -> None:
        """Handle all signals that are there, after waiting for the first."""
        try:
            signal = self._signals.get(timeout=timeout_s)
            while True:
                self._handle(signal)
                signal = self._signals.get_nowait()
        except queue.Empty:
            pass

    def _handle(self, signal: Signal) -> None:
        if isinstance(signal, Up):
            self._go_up(signal)
        elif isinstance(signal, Down):
            self._go_down(signal)
        elif isinstance(signal, Acked):
            self._herald.take(signal.mid)
            self._delivery.take(signal)

    def _go_up(self, up: Up) -> None:
        if "away" in self._said:
            _log.warning("Connected to the broker %s.", self._desk.broker)
        self._said.clear()
        self._delivery.traffic.connections += 1
        self._herald.begin()
        self._up_since_s = time.monotonic()
        self._has_failed = False
        self._delivery.begin(up)

    def _go_down(self, down: Down) -> None:
        """Also called for the second of paho's two reports about the same loss."""
        if self._up_since_s is not None:
            lived_s = time.monotonic() - self._up_since_s
            self._short_lives = self._short_lives + 1 if lived_s < _SHORT_LIFE_S else 0
        self._up_since_s = None
        self._has_failed = True
        if down.version_doubtful and self.traffic.connections == 0:
            self._change_version()
        elif self._stop_by_s is None:
            self._say_once(
                "away",
                f"No connection to the broker {self._desk.broker} ({down.reason}). "
                "The line runs on; events are kept and sent when it is back.",
            )
        if self._short_lives == 3:
            self._say_once(
                "taken over",
                f"The broker drops the connection again and again. Does another station use the id "
                f"{self._desk.broker.client_id}?",
            )

    def _change_version(self) -> None:
        """Try MQTT 3.1.1 instead of 5, or the other way round; what the broker once took is kept."""
        self._link.close()
        while not self._signals.empty():
            self._signals.get()
        if self._version == MQTTProtocolVersion.MQTTv5:
            self._version = MQTTProtocolVersion.MQTTv311
            self._has_failed = False
        else:
            self._version = MQTTProtocolVersion.MQTTv5
            time.sleep(self._timing.reconnect_s[0])
        self._link.open(self._version)

    def _watch(self) -> None:
        if self._link.revive():
            _log.warning("The network thread had died and was started again.")
        if self._delivery.is_overdue(self._timing.ack_s):
            self._say_once("silent", f"The broker {self._desk.broker} does not answer; connecting again.")
            self._link.break_off()
        if self._link.is_unanswered(self._timing.connack_s):
            self._link.break_off()

    def _say_goodbye(self) -> bool:
        if self._up_since_s is not None:
            self._herald.tell_kpi(self._link, self._outbox.depth, self.traffic, at_once=True)
            self._herald.tell_end(self._link, self._last_words)
            self._listen_until(lambda: not self._herald.is_waiting)
            self._delivery.note_arrived()
            self._link.disconnect()
            self._listen_until(lambda: self._up_since_s is None)
        return False

    def _listen_until(self, is_over: Callable[[], bool]) -> None:
        by_s = time.monotonic() + _GOODBYE_S
        while not is_over() and time.monotonic() < by_s:
            self._listen(_TICK_S)

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            _log.warning("%s", text)
