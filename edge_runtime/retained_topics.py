"""The retained topics: all of them on each new connection, and later each one whenever it has changed.

An outage of a day costs one message per topic, and readers that come later find the latest value.
"""

from __future__ import annotations

import logging
import time

from kenpin.edge_runtime.link import REFUSED, Link
from kenpin.edge_runtime.link_signal import Acked
from kenpin.edge_runtime.outbox import Outbox, Retained
from kenpin.events import Meta

_log = logging.getLogger(__name__)


class RetainedTopics:
    """Sends one value after the other, `meta` first.

    Args:
        outbox: Where they are, through a connection of the calling thread.
        link: The connection to the broker.
        topic: Prefix of every topic.
        refused_s: Pause of a topic after the broker refused it.
    """

    def __init__(self, outbox: Outbox, link: Link, topic: str, *, refused_s: float) -> None:
        self._outbox = outbox
        self._link = link
        self._topic = topic
        self._refused_s = refused_s
        self._refused: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """A new connection knows nothing yet."""
        self._pending: dict[str, Retained] = {}  # the newest value of each topic, next ones first
        self._seen_to = 0
        self._first_to: int | None = None  # the newest value that was there when the connection came
        self._message: int | None = None
        self._topic_sent = ""
        self._sent_s = 0.0
        self._resume_s: dict[str, float] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether one is on its way without an answer."""
        return self._message is not None

    def is_overdue(self, limit_s: float) -> bool:
        """Whether one has been on its way for longer."""
        return self.is_waiting and time.monotonic() - self._sent_s > limit_s

    @property
    def is_told(self) -> bool:
        """Whether nothing is left to be sent now."""
        return len(self._due()) <= self.is_waiting

    @property
    def has_begun(self) -> bool:
        """Whether all has been told that stood when the connection came.

        Events wait for that and no longer: on a slow line, values that change each second are never all told.
        """
        if self._first_to is None:
            return False
        on_way = self._topic_sent if self.is_waiting else ""
        return not any(v.version <= self._first_to and v.topic != on_way for v in self._due())

    @property
    def is_refused(self) -> bool:
        """Whether the broker refused one when it was sent last."""
        return bool(self._refused)

    def take(self, answer: Acked) -> None:
        """Handle the broker's answer.

        Raises:
            StoreError: What the broker has forgotten cannot be forgotten here.
        """
        if answer.mid != self._message:
            return
        self._message = None
        value = self._pending.pop(self._topic_sent)
        if answer.code >= REFUSED:
            self._pending[value.topic] = value  # behind the others: not all may be refused
            self._resume_s[value.topic] = time.monotonic() + self._refused_s
            if not self._refused:
                _log.warning("The broker refuses the topic %s (%s).", value.topic, answer.reason)
            self._refused.add(value.topic)
        else:
            self._refused.discard(value.topic)
            if not value.body:
                self._outbox.forget(value)

    def send(self) -> None:
        """Send the next one, when the last one was answered.

        Raises:
            StoreError: The outbox cannot be read.
        """
        if self.is_waiting:
            return
        self._look()
        if due := self._due():
            self._publish(due[0])

    def _publish(self, value: Retained) -> None:
        try:
            message = self._link.publish(
                f"{self._topic}/{value.topic}", value.body.encode(), qos=1, retain=True
            )
        except ValueError as error:  # or all others, and events, would wait for it
            _log.warning("The topic %s cannot be told, as its value was damaged: %s", value.topic, error)
            del self._pending[value.topic]
            return
        self._message, self._topic_sent, self._sent_s = message, value.topic, time.monotonic()

    def _look(self) -> None:
        """Find what has changed. A refused topic must not keep the changes of the others from being seen."""
        found = self._outbox.retained(after=self._seen_to)
        self._seen_to = max((value.version for value in found), default=self._seen_to)
        if self._first_to is None:
            self._first_to = self._seen_to
        self._pending |= {v.topic: v for v in sorted(found, key=lambda v: v.topic != Meta.topic)}

    def _due(self) -> list[Retained]:
        """What may be sent now: a topic that was refused has its pause."""
        now_s = time.monotonic()
        return [v for v in self._pending.values() if now_s >= self._resume_s.get(v.topic, 0.0)]
