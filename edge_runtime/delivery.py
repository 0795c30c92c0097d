"""The delivery: events from the outbox to the broker, in order, in a window, noted when acknowledged."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass

from kenpin.edge_runtime.link import REFUSED, Link
from kenpin.edge_runtime.link_signal import Acked, Up
from kenpin.edge_runtime.outbox import NO_END, Entry, Outbox
from kenpin.edge_runtime.pace import Pace
from kenpin.edge_runtime.shut_topics import Shut
from kenpin.edge_runtime.traffic import Traffic
from kenpin.errors import StoreError
from kenpin.events import Reply

WINDOW = 16  # more on the way only makes each slower
_NO_SUBSCRIBER = 0x10
_REPLIES = Reply.topic.partition("{")[0]
# Notes are written together, or soon: one by one, each costs the flash memory several pages.
_NOTES, _NOTE_S = 20, 0.05
_UNNOTED = 1000  # sent while the disk does not take the notes: each comes once more after a restart

_log = logging.getLogger(__name__)


@dataclass
class _Stretch:
    """Events that are sent in their order.

    Attributes:
        sent_to: All up to here are on the way or noted.
        end: The last one.
        late: Whether they waited for this connection.
    """

    sent_to: int
    end: int
    late: bool


@dataclass(frozen=True)
class _Sent:
    """An event on the way.

    Attributes:
        seq: Its number.
        topic: Below the station's prefix.
        at_s: When it was sent, on the monotonic clock.
    """

    seq: int
    topic: str
    at_s: float


@dataclass(frozen=True)
class Manner:
    """How events are sent.

    Attributes:
        refused_s: Pause of a topic after the broker refused one of it, in seconds; twice as long after each
            time in a row.
        backlog_per_s: Events per second of those that waited for the connection.
    """

    refused_s: float = 5.0
    backlog_per_s: float = 200.0


class Delivery:
    """Sends what waits and notes what arrived. An event is gone from here only when the broker has it.

    Events that come up while the connection stands go before those that waited for it: an operator needs to
    know what is wrong now.

    Args:
        outbox: The events, through a connection of the calling thread.
        link: The connection to the broker.
        topic: Prefix of every topic.
        manner: How fast.
    """

    def __init__(self, outbox: Outbox, link: Link, topic: str, manner: Manner) -> None:
        self.traffic = Traffic()
        self._outbox = outbox
        self._link = link
        self._topic = topic
        self._manner = manner
        self._pace = Pace(manner.backlog_per_s, WINDOW)
        self._connection = -1
        self._window = WINDOW
        self._on_way: dict[int, _Sent] = {}  # by message id
        self._stretches: list[_Stretch] = []  # the live one, the late one
        self._arrived: list[int] = []  # acknowledged, not yet noted
        self._arrived_s = 0.0  # since when there is one
        self._shut = Shut(manner.refused_s)

    def begin(self, up: Up) -> None:
        """Start over on a new connection: whatever was on the way on the old one is sent again.

        Raises:
            StoreError: The outbox cannot be read; the next call of `send` tries it again.
        """
        self._on_way.clear()
        self._stretches = []
        self._shut.open_all()
        self._connection = up.connection
        self._window = min(WINDOW, up.receive_maximum)
        self._divide()

    def look_back(self) -> None:
        """Events before those that were sent wait once more."""
        self._stretches = []

    def take(self, answer: Acked) -> None:
        """Handle the broker's answer to an event."""
        sent = self._on_way.pop(answer.mid, None)
        if sent is None:
            return  # of the status, or of a connection that is gone
        self._note(sent.topic, answer)
        if answer.code >= REFUSED:
            self.traffic.rejected += 1
            self._shut.refused(sent.topic)
            return
        self.traffic.no_subscriber += answer.code == _NO_SUBSCRIBER
        self._shut.accepted(sent.topic)
        if not self._arrived:
            self._arrived_s = time.monotonic()
        self._arrived.append(sent.seq)

    def note_arrived(self, *, at_once: bool = False) -> None:
        """Write down what was acknowledged, some at a time. Without the note an event is sent once more.

        Args:
            at_once: Do not wait for more.

        Raises:
            StoreError: It cannot be written; it is tried again with the next call.
        """
        is_time = len(self._arrived) >= _NOTES or time.monotonic() - self._arrived_s >= _NOTE_S
        if self._arrived and (at_once or is_time):
            self._outbox.mark_acked(self._arrived)
            self.traffic.acked += len(self._arrived)
            self._arrived = []

    def room(self, *, others: int) -> int:
        """Messages that the broker takes before it has answered those on the way.

        Args:
            others: Messages on the way that are not events; the broker counts them as well.
        """
        return max(0, self._window - len(self._on_way) - others)

    def send(self, *, others: int = 0) -> None:
        """Send what waits, as far as the window and the connection allow.

        Args:
            others: Messages on the way that are not events.

        Raises:
            StoreError: The outbox cannot be read.
        """
        if not self.room(others=others) or len(self._arrived) >= _UNNOTED:
            return
        if not self._stretches:
            self._divide()
        live, late = self._stretches
        if self._shut.reopen():  # some were refused, and others of their topics passed over
            live.sent_to, late.sent_to = late.end, 0
        self._send_some(live, self.room(others=others))
        self._pace.take(self._send_some(late, min(self._pace.left, self.room(others=others))))

    @property
    def wait_s(self) -> float:
        """Seconds until more of the backlog may be sent, where only its pace holds it back."""
        return 0.0 if self._pace.left else 1 / self._manner.backlog_per_s

    def is_overdue(self, limit_s: float) -> bool:
        """Whether an event has been on the way for longer."""
        oldest = min((sent.at_s for sent in self._on_way.values()), default=float("inf"))
        return time.monotonic() - oldest > limit_s

    def is_done(self) -> bool:
        """Whether nothing waits.

        Raises:
            StoreError: The outbox cannot be read.
        """
        return not self._outbox.waiting(after=0, limit=1)

    def _divide(self) -> None:
        newest = self._outbox.newest()
        self._stretches = [_Stretch(newest, NO_END, late=False), _Stretch(0, newest, late=True)]

    def _send_some(self, stretch: _Stretch, limit: int) -> int:
        """Send up to so many; how many it were."""
        if limit <= 0:
            return 0
        count = 0
        # Where one was refused, those behind it may be on the way already.
        known = {sent.seq for sent in self._on_way.values()} | set(self._arrived)
        # Asked before the events are read: what is committed in between is found the next time.
        shut, newest = self._shut.topics, self._outbox.newest() if self._shut.topics else 0
        most = limit + len(known)
        found = self._outbox.waiting(after=stretch.sent_to, up_to=stretch.end, limit=most, without=shut)
        for entry in found:
            if count == limit or not (entry.seq in known or self._publish(entry, late=stretch.late)):
                break
            count += entry.seq not in known
            stretch.sent_to = entry.seq
        else:
            if shut and len(found) < most:  # the rest is shut: not to be read again and again
                stretch.sent_to = min(newest, stretch.end)
        return count

    def _publish(self, entry: Entry, *, late: bool) -> bool:
        if self._link.connection != self._connection:
            return False  # events would overtake those that were on the way when it was lost
        expiry_s = Reply.expiry_s if entry.topic.startswith(_REPLIES) else 0
        try:
            body = _body(entry, late=late)
        except (StoreError, KeyError, TypeError) as error:
            return self._give_up(entry, error)
        try:
            message = self._link.publish(f"{self._topic}/{entry.topic}", body, qos=1, expiry_s=expiry_s)
        except ValueError as error:  # its topic was damaged
            return self._give_up(entry, error)
        if message is None:
            return False
        self._on_way[message] = _Sent(entry.seq, entry.topic, time.monotonic())
        return True

    def _give_up(self, entry: Entry, error: Exception) -> bool:
        """One that was damaged on the disk would keep all others from going out."""
        _log.warning("Event %d cannot be sent and is given up: %s", entry.seq, error)
        self._outbox.give_up(entry)
        return True

    def _note(self, topic: str, answer: Acked) -> None:
        """Remember of each topic whether it is refused, and whether anybody reads it."""
        is_reply, code = topic.startswith(_REPLIES), answer.code
        kind = {_REPLIES if is_reply else topic}
        traffic = self.traffic
        if code >= REFUSED and not kind <= traffic.refused:
            _log.warning(
                "The broker refuses events at %s (%s); they are kept and sent again. "
                "Check what it allows this station.",
                topic,
                answer.reason,
            )
        traffic.refused = traffic.refused | kind if code >= REFUSED else traffic.refused - kind
        if not is_reply:
            traffic.unread = traffic.unread | kind if code == _NO_SUBSCRIBER else traffic.unread - kind


def _body(entry: Entry, *, late: bool) -> bytes:
    payload = entry.payload(late=late)
    if "capture_to_publish_ms" in payload:
        payload["capture_to_publish_ms"] = max(0.0, time.time_ns() / 1e6 - payload["ts_ms"])
    return json.dumps(payload, separators=(",", ":")).encode()
