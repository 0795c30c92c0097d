"""The publisher: one thread that brings the outbox to the broker, and tells how the station is."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable

from kenpin.edge_runtime import announce
from kenpin.edge_runtime.ack_patience import AckPatience
from kenpin.edge_runtime.announce import State
from kenpin.edge_runtime.arrivals import arrivals
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.connection import Connection
from kenpin.edge_runtime.database import connect, file_id
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.delivery import Delivery, Manner
from kenpin.edge_runtime.herald import Desk, Herald, Listener
from kenpin.edge_runtime.link import Link, Terms, Will
from kenpin.edge_runtime.link_signal import Acked, Deaf, Down, Incoming, Up
from kenpin.edge_runtime.once import Once
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.protocol_choice import ProtocolChoice
from kenpin.edge_runtime.publisher_task import LookBack, Renew, Task, Tell, TellAgain, Wake
from kenpin.edge_runtime.result_inbox import LATE_S
from kenpin.edge_runtime.retained_topics import RetainedTopics
from kenpin.edge_runtime.timing import Timing
from kenpin.edge_runtime.traffic import Traffic
from kenpin.errors import StoreDamaged, StoreError

_TICK_S = 0.2
_GOODBYE_S = 2.0
_ROUND_S = 10.0  # a round of its thread that takes longer hangs
_COMMANDS = "cmd"

_log = logging.getLogger(__name__)


class Publisher:
    """Sends events at least once and in order; a broker that is away is said, never waited for.

    What others call only puts a task into a queue, but for `stop`. All else happens in the publisher's own
    thread, which is the only one to publish.

    Args:
        desk: What it works for.
        timing: How long it waits for what.

    Attributes:
        damaged_file: Which file of the database was found damaged when it was read; `None` = all is well.

    Raises:
        StoreError: The database cannot be opened.
    """

    def __init__(self, desk: Desk, timing: Timing | None = None) -> None:
        self._desk = desk
        self._timing = timing = timing or Timing()
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._herald = Herald(desk, status_s=timing.status_s, kpi_s=timing.kpi_s)
        listen_to = f"{desk.topic}/{_COMMANDS}/+" if desk.listener is not None else ""
        self._link = Link(
            desk.broker,
            Will(self._herald.status_topic, self._herald.last_will),
            self._tasks,
            Terms(timing.keepalive_s, timing.reconnect_s, listen_to),
        )
        choice = ProtocolChoice(probe_s=timing.probe_s)
        self._connection = Connection(desk.broker, self._link, self._tasks, choice)
        self.damaged_file: tuple[int, int] | None = None
        self._file = file_id(desk.database)
        self._database = connect(desk.database, durable=False)
        self._outbox = Outbox(self._database)
        manner = Manner(timing.refused_s, desk.backlog_per_s)
        self._delivery = Delivery(self._outbox, self._link, desk.topic, manner)
        self._retained = RetainedTopics(self._outbox, self._link, desk.topic, refused_s=timing.refused_s)
        self._patience = AckPatience(timing.ack_s)
        self._is_deaf = False
        self._stop_by_s: float | None = None
        self._last_words = ""
        self._once = Once()
        self._round_s = time.monotonic()
        self._due_s = dict.fromkeys(("watch", "prune"), 0.0)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @property
    def traffic(self) -> Traffic:
        """What was counted since the start."""
        return self._delivery.traffic

    @property
    def listener(self) -> Listener | None:
        """Who takes commands; `None` where the station listens to nothing."""
        return self._desk.listener

    @property
    def dropped(self) -> int:
        """Messages that came faster than they could be looked at."""
        return self._link.dropped

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection, and it stands."""
        return self._connection.is_up

    @property
    def why_away(self) -> str:
        """Why there is no connection, in words; empty before the first attempt has failed."""
        return self._connection.why_away

    @property
    def is_unstable(self) -> bool:
        """Whether the broker drops the connection again and again."""
        return bool(self._connection.trouble)

    @property
    def is_denied(self) -> bool | None:
        """Whether the broker refuses the station, some of what it says, or its commands; `None` at first."""
        if self._connection.is_denied is not False:  # refused, or not known
            return self._connection.is_denied
        is_refused = bool(self.traffic.refused) or self._retained.is_refused or self._herald.is_refused
        return is_refused or self._is_deaf

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
        by_s = time.monotonic() + LATE_S
        self._tasks.put(Tell(f"{self._desk.topic}/output", json.dumps(body).encode(), by_s))

    def look_back(self) -> None:
        """Publish, marked as late, what `Outbox.send_again` lets wait once more."""
        self._tasks.put(LookBack())

    def tell_again(self) -> None:
        """Publish the status once more, and what lets others find the station."""
        self._tasks.put(TellAgain())

    def renew(self, broker: BrokerAddress) -> None:
        """Connect anew by other credentials.

        Args:
            broker: The same broker.
        """
        self._tasks.put(Renew(broker))

    def start(self) -> None:
        """Start connecting and publishing."""
        self._connection.open()
        self._thread.start()

    def set_state(self, state: State, reason: str = "") -> None:
        """Let the status say how the station is."""
        if self._herald.state != (state, reason):
            self._herald.state = (state, reason)
            self.wake()

    def wake(self) -> None:
        """Say that there is something to do."""
        if self._tasks.empty():
            self._tasks.put(Wake())

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
            self._miss_database(error)
        except Exception:
            _log.exception("The publisher stumbled and goes on.")
        time.sleep(_TICK_S)
        return self._stop_by_s is None or time.monotonic() < self._stop_by_s

    def _miss_database(self, error: StoreError) -> None:
        if isinstance(error, StoreDamaged):
            self.damaged_file = self._file
        self._once.say("store", f"The publisher cannot use the database: {error.what}. Events wait.")

    def _work(self) -> bool:
        """One round; whether another one follows."""
        self._round_s = time.monotonic()
        self._listen(self._delivery.wait_s or _TICK_S)
        try:
            self._delivery.note_arrived()
        except StoreError as error:  # of all times, the status must be told while the disk is full
            self._miss_database(error)
        if self._is_due("watch", self._timing.watch_s):
            self._watch()
        if self._is_due("prune", self._timing.prune_s) and self._outbox.prune():
            self._due_s["prune"] = 0.0  # more is left; bite by bite, so that the line need not wait long
        if self._connection.is_up:
            self._speak()
        return not self._is_finished()

    def _speak(self) -> None:
        """First how the station is, then what is retained, then events."""
        self._herald.trouble = "; ".join(filter(None, (self._connection.trouble, self._link.trouble)))
        if self._room():
            self._herald.tell_status(self._link)
        if self._room():
            self._retained.send()
        self._herald.tell_kpi(self._link, self._outbox.depth, self.traffic)
        if self._retained.has_begun:
            self._delivery.send(others=self._others())

    def _others(self) -> int:
        return self._herald.is_waiting + self._retained.is_waiting

    def _room(self) -> int:
        return self._delivery.room(others=self._others())

    def _is_finished(self) -> bool:
        if self._stop_by_s is None:
            return False
        if time.monotonic() >= self._stop_by_s:
            return True
        if not self._connection.is_up:
            return self._connection.has_failed
        return self._delivery.is_done() and self._retained.is_told and not self._retained.is_waiting

    def _is_due(self, task: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s[task]:
            return False
        self._due_s[task] = now_s + every_s
        return True

    def _listen(self, timeout_s: float) -> None:
        for task in arrivals(self._tasks, timeout_s):
            self._handle(task)

    def _handle(self, task: Task) -> None:
        if isinstance(task, Up):
            self._go_up(task)
        elif isinstance(task, Down):
            self._connection.down(task, expected=self._stop_by_s is not None)
        elif isinstance(task, Acked):
            self._herald.take(task)
            self._retained.take(task)
            self._delivery.take(task)
        elif isinstance(task, Tell):
            if time.monotonic() <= task.by_s:  # this thread may have waited for the disk
                self._link.publish(task.topic, task.body, qos=0)
        elif isinstance(task, LookBack):
            self._delivery.look_back()
        elif isinstance(task, Renew):
            self._connection.renew(task.broker)
        elif isinstance(task, TellAgain):
            self._herald.repeat()
            self._introduce()
        elif isinstance(task, Incoming):
            self._hear(task)
        elif isinstance(task, Deaf):
            self._is_deaf = True
            self._once.say("deaf", f"The broker does not let the station hear commands ({task.reason}).")

    def _hear(self, message: Incoming) -> None:
        """Pass on what came; nothing in it may stop the publisher."""
        assert self._desk.listener is not None
        topic = message.topic.removeprefix(f"{self._desk.topic}/")
        try:
            self._desk.listener.take(topic, message.body, retained=message.retained)
        except Exception:
            _log.exception("A message at %s could not be handled.", topic)

    def _go_up(self, up: Up) -> None:
        self._connection.up()
        self._is_deaf = False  # it asks again
        self._once.forget("silent")
        self._introduce()
        self._herald.begin()
        self._retained.begin()
        self._delivery.begin(up)
        self._delivery.traffic.connections += 1

    def _introduce(self) -> None:
        if self._desk.discovery is not None:
            topic, body = self._desk.discovery
            self._link.publish(topic, body, qos=0, retain=True)

    def _watch(self) -> None:
        self._connection.watch(connack_s=self._timing.connack_s)
        # A new connection is not to be broken off for what the one before left without an answer.
        if self._connection.is_up and self._patience.is_over(self._is_overdue, time.monotonic()):
            self._once.say("silent", f"The broker {self._desk.broker} does not answer; connecting again.")
            self._link.break_off()
        if self._connection.is_up:
            self._watch_flood()
            self._outbox.report_gaps(lambda lost: announce.gap(self._desk.identity, lost))

    def _watch_flood(self) -> None:
        self._link.listen_again()
        if trouble := self._link.trouble:
            self._once.say("flood", f"{trouble}.")
        else:
            self._once.forget("flood")

    def _is_overdue(self, limit_s: float) -> bool:
        """Events wait for what is retained, so that must not wait for ever either."""
        senders = (self._herald, self._retained, self._delivery)
        return any(sender.is_overdue(limit_s) for sender in senders)

    def _say_goodbye(self) -> bool:
        if self._connection.is_up:
            self._herald.tell_kpi(self._link, self._outbox.depth, self.traffic, at_once=True)
            self._herald.tell_end(self._link, self._last_words)
            self._listen_until(lambda: not self._herald.is_waiting)
            self._delivery.note_arrived(at_once=True)
            self._link.disconnect()
            self._listen_until(lambda: not self._connection.is_up)
        return False

    def _listen_until(self, is_over: Callable[[], bool]) -> None:
        by_s = time.monotonic() + _GOODBYE_S
        while not is_over() and time.monotonic() < by_s:
            self._listen(_TICK_S)
