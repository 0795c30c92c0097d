"""The delivery: events from the outbox to the broker, in order, in a window, noted when acknowledged."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass

from kenpin.edge_runtime.link import Acked, Link, Up
from kenpin.edge_runtime.outbox import Entry, Outbox

WINDOW = 16  # more on the way only makes each slower
_NO_SUBSCRIBER = 0x10
_REFUSED = 0x80

_log = logging.getLogger(__name__)


@dataclass
class Traffic:
    """What was counted since the start.

    Attributes:
        acked: Events that the broker acknowledged.
        rejected: Events that it refused; they are sent again.
        no_subscriber: Events that nobody subscribes to (only MQTT 5 brokers tell).
        connections: Connections that the broker accepted.
    """

    acked: int = 0
    rejected: int = 0
    no_subscriber: int = 0
    connections: int = 0


class Delivery:
    """Sends what waits and notes what arrived. An event is gone from here only when the broker has it.

    Args:
        outbox: The events, through a connection of the calling thread.
        link: The connection to the broker.
        topic: Prefix of every topic.
        refused_s: Pause after the broker refused an event.
    """

    def __init__(self, outbox: Outbox, link: Link, topic: str, *, refused_s: float) -> None:
        self.traffic = Traffic()
        self._outbox = outbox
        self._link = link
        self._topic = topic
        self._refused_s = refused_s
        self._connection = -1
        self._window = WINDOW
        self._on_way: dict[int, tuple[int, float]] = {}  # message id -> event number, sent at
        self._sent_to = 0  # all events up to here are on the way or noted
        self._late_to: int | None = None  # events up to here waited for this connection
        self._arrived: list[int] = []  # acknowledged, not yet noted
        self._resume_s = 0.0

    def begin(self, up: Up) -> None:
        """Start over on a new connection: whatever was on the way on the old one is sent again."""
        self._on_way.clear()
        self._sent_to = 0
        self._late_to = None
        self._resume_s = 0.0
        self._connection = up.connection
        self._window = min(WINDOW, up.receive_maximum)

    def take(self, answer: Acked) -> None:
        """Handle the broker's answer to an event."""
        sent = self._on_way.pop(answer.mid, None)
        if sent is None:
            return  # of the status, or of a connection that is gone
        seq, _ = sent
        if answer.code >= _REFUSED:
            self.traffic.rejected += 1
            if self.traffic.rejected == 1:
                _log.warning(
                    "The broker refuses events (%s); they are kept and sent again. "
                    "Check this station's permissions on the broker.",
                    answer.reason,
                )
            self._sent_to = min(self._sent_to, seq - 1)
            self._resume_s = time.monotonic() + self._refused_s
            return
        self.traffic.no_subscriber += answer.code == _NO_SUBSCRIBER
        self._arrived.append(seq)

    def note_arrived(self) -> None:
        """Write down what was acknowledged.

        Raises:
            StoreError: It cannot be written; it is tried again with the next call.
        """
        if self._arrived:
            self._outbox.mark_acked(self._arrived)
            self.traffic.acked += len(self._arrived)
            self._arrived = []

    @property
    def has_room(self) -> bool:
        """Whether the broker takes another message before it has answered those on the way."""
        return len(self._on_way) < self._window

    def send(self, *, others: int = 0) -> None:
        """Send what waits, as far as the window and the connection allow.

        Args:
            others: Messages on the way that are not events; the broker counts them as well.

        Raises:
            StoreError: The outbox cannot be read.
        """
        room = self._window - len(self._on_way) - others
        if room <= 0 or time.monotonic() < self._resume_s:
            return
        if self._late_to is None:
            self._late_to = self._outbox.newest()
        for entry in self._outbox.waiting(after=self._sent_to, limit=room):
            if self._link.connection != self._connection:
                return  # events would overtake those that were on the way when it was lost
            message = self._link.publish(f"{self._topic}/{entry.topic}", self._body(entry), qos=1)
            if message is None:
                return
            self._on_way[message] = (entry.seq, time.monotonic())
            self._sent_to = entry.seq

    def is_overdue(self, limit_s: float) -> bool:
        """Whether an event has been on the way for longer."""
        oldest = min((sent_s for _, sent_s in self._on_way.values()), default=float("inf"))
        return time.monotonic() - oldest > limit_s

    def is_done(self) -> bool:
        """Whether nothing waits.

        Raises:
            StoreError: The outbox cannot be read.
        """
        return not self._arrived and self._outbox.depth().waiting == 0

    def _body(self, entry: Entry) -> bytes:
        assert self._late_to is not None
        payload = entry.payload(late=entry.seq <= self._late_to)
        payload["capture_to_publish_ms"] = max(0.0, time.time_ns() / 1e6 - payload["ts_ms"])
        return json.dumps(payload, separators=(",", ":")).encode()
