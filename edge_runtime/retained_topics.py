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
        refused_s: Pause after the broker refused one.
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
        self._pending: list[Retained] = []
        self._seen_to = 0
        self._message: int | None = None
        self._resume_s = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether one is on its way without an answer."""
        return self._message is not None

    @property
    def is_told(self) -> bool:
        """Whether nothing is left to be sent now."""
        return len(self._pending) <= self.is_waiting or time.monotonic() < self._resume_s

    @property
    def is_refused(self) -> bool:
        """Whether the broker refused one when it was sent last."""
        return bool(self._refused)

    def take(self, answer: Acked) -> None:
        """Handle the broker's answer."""
        if answer.mid != self._message:
            return
        self._message = None
        value = self._pending.pop(0)
        if answer.code >= REFUSED:
            self._pending.append(value)  # the others first: not all may be refused
            self._resume_s = time.monotonic() + self._refused_s
            if not self._refused:
                _log.warning("The broker refuses the topic %s (%s).", value.topic, answer.reason)
            self._refused.add(value.topic)
        else:
            self._refused.discard(value.topic)

    def send(self) -> None:
        """Send the next one, when the last one was answered.

        Raises:
            StoreError: The outbox cannot be read.
        """
        if self.is_waiting or time.monotonic() < self._resume_s:
            return
        if not self._pending:
            found = self._outbox.retained(after=self._seen_to)
            self._pending = sorted(found, key=lambda value: value.topic != Meta.topic)
            self._seen_to = max((value.version for value in found), default=self._seen_to)
        if self._pending:
            value = self._pending[0]
            self._message = self._link.publish(
                f"{self._topic}/{value.topic}", value.body.encode(), qos=1, retain=True
            )
