"""The herald: tells the broker how the station is, as retained status, as kpi and as last will."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kenpin.edge_runtime import announce
from kenpin.edge_runtime.announce import Identity, State
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.link import REFUSED, Link
from kenpin.edge_runtime.link_signal import Acked
from kenpin.edge_runtime.outbox import Depth
from kenpin.edge_runtime.traffic import Traffic
from kenpin.events import Kpi, Status, now_ms

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Takes messages that others publish, in the publisher's thread; what it raises is only logged."""

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        """Handle one.

        Args:
            topic: Below the station's prefix, `cmd/ack` for example.
            body: The payload, as it came from the network.
            retained: Whether the broker had kept it.
        """
        ...


@dataclass(frozen=True)
class Desk:
    """What a publisher works for.

    Attributes:
        broker: Where to publish.
        topic: Prefix of every topic.
        identity: Who speaks.
        database: The file with the outbox.
        counters: Gives the line's counters.
        listener: Gets what others publish below `cmd/`; default: the station does not listen.
        backlog_per_s: Events per second of those that waited while the broker was away.
        discovery: Topic and body of what lets others find the station, retained; default: none.
    """

    broker: BrokerAddress
    topic: str
    identity: Identity
    database: Path
    counters: Callable[[], Snapshot]
    listener: Listener | None = None
    backlog_per_s: float = 200.0
    discovery: tuple[str, bytes] | None = None


class Herald:
    """Tells the status when it changes, on every new connection and now and then; the kpi now and then.

    Args:
        desk: What it speaks for.
        status_s: Time between two status messages in seconds.
        kpi_s: Time between two kpi messages in seconds.

    Attributes:
        state: How the station is, and why.
        trouble: What is wrong with the connection itself, in words; empty when nothing is.
        is_refused: Whether the broker refused the last status: nobody hears then how the station is.
    """

    def __init__(self, desk: Desk, *, status_s: float, kpi_s: float) -> None:
        self.state: tuple[State, str] = ("STARTING", "")
        self.trouble = ""
        self.is_refused = False
        self._desk = desk
        self._every_s = {"status": status_s, "kpi": kpi_s}
        self._due_s = dict.fromkeys(self._every_s, 0.0)
        self._told: tuple[State, str] | None = None
        self._message: int | None = None
        self._sent_s = 0.0
        self._connected_ms = 0
        counters = desk.counters()
        self._counted = counters.total, counters.elapsed_s

    @property
    def status_topic(self) -> str:
        """Where the status and the last will go."""
        return f"{self._desk.topic}/{Status.topic}"

    @property
    def is_waiting(self) -> bool:
        """Whether the last status has no answer yet."""
        return self._message is not None

    def is_overdue(self, limit_s: float) -> bool:
        """Whether the last status has been without an answer for longer."""
        return self.is_waiting and time.monotonic() - self._sent_s > limit_s

    def last_will(self) -> bytes:
        """What the broker is to say when the station vanishes; called for each connection."""
        self._connected_ms = now_ms()
        return self._status("STOPPED", "lwt", online=False)

    def begin(self) -> None:
        """A new connection knows nothing yet."""
        self._told = None
        self._message = None

    def repeat(self) -> None:
        """Tell the status once more, new or not."""
        self._told = None

    def take(self, answer: Acked) -> None:
        """Handle the broker's answer."""
        if answer.mid != self._message:
            return
        self._message = None
        if answer.code >= REFUSED and not self.is_refused:
            _log.warning("The broker refuses the topic %s (%s).", Status.topic, answer.reason)
        self.is_refused = answer.code >= REFUSED

    def tell_status(self, link: Link) -> None:
        """Publish the status where it is new or due, one at a time."""
        if self.is_waiting:
            return
        now, is_due = self._now(), self._is_due("status")
        if self._told != now or is_due:
            self._told = now
            self._publish(link, self._status(*now, online=True))

    def tell_end(self, link: Link, reason: str) -> None:
        """Publish the last status."""
        self._publish(link, self._status("STOPPED", reason, online=False))

    def tell_kpi(
        self, link: Link, depth: Callable[[], Depth], traffic: Traffic, *, at_once: bool = False
    ) -> None:
        """Publish the kpi where it is due; nothing is lost with one that does not arrive."""
        if not (self._is_due("kpi") or at_once):
            return
        now = self._desk.counters()
        parts, elapsed_s = self._counted
        if now.total < parts or now.elapsed_s < elapsed_s:  # the station has begun anew, and counts from 0
            parts, elapsed_s = 0, 0.0
        self._counted = now.total, now.elapsed_s
        fps = (now.total - parts) / max(1e-3, now.elapsed_s - elapsed_s)
        payload = announce.kpi(self._desk.identity, now, depth(), traffic, fps=fps)
        link.publish(f"{self._desk.topic}/{Kpi.topic}", payload.to_json(), qos=0, expiry_s=Kpi.expiry_s)

    def _publish(self, link: Link, body: bytes) -> None:
        self._message = link.publish(self.status_topic, body, qos=1, retain=True)
        self._sent_s = time.monotonic()

    def _now(self) -> tuple[State, str]:
        state, reason = self.state
        if not self.trouble:
            return self.state
        return "DEGRADED" if state == "RUNNING" else state, "; ".join(filter(None, (reason, self.trouble)))

    def _status(self, state: State, reason: str, *, online: bool) -> bytes:
        return announce.status(
            self._desk.identity,
            (state, reason),
            online=online,
            connected_ms=self._connected_ms,
            insecure=self._desk.broker.insecure,
        ).to_json()

    def _is_due(self, topic: str) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s[topic]:
            return False
        self._due_s[topic] = now_s + self._every_s[topic]
        return True
