"""Topics of events that the broker refuses: each has its own pause, and none keeps the others back.

Who may not publish an audit may still be the only one to tell of a bad part.
"""

from __future__ import annotations

import time
from collections.abc import Collection

_LONGEST_PAUSE = 64  # times the first one


class Shut:
    """Knows which topics wait for another attempt.

    Args:
        pause_s: The first pause in seconds; twice as long after each refusal in a row.
    """

    def __init__(self, pause_s: float) -> None:
        self._first_s = pause_s
        self._pause_s: dict[str, float] = {}  # the next one of a topic that was refused when it was sent last
        self._resume_s: dict[str, float] = {}

    @property
    def topics(self) -> Collection[str]:
        """Those that are not to be sent now."""
        return self._resume_s

    def refused(self, topic: str) -> None:
        """Shut a topic; the others of its window are of the same refusal."""
        if topic not in self._resume_s:
            pause_s = self._pause_s.get(topic, self._first_s)
            self._resume_s[topic] = time.monotonic() + pause_s
            self._pause_s[topic] = min(2 * pause_s, _LONGEST_PAUSE * self._first_s)

    def accepted(self, topic: str) -> None:
        """The broker took one of a topic."""
        self._pause_s.pop(topic, None)

    def reopen(self) -> bool:
        """Open the topics whose pause is over; whether there was one."""
        now_s = time.monotonic()
        over = [topic for topic, resume_s in self._resume_s.items() if now_s >= resume_s]
        for topic in over:
            del self._resume_s[topic]
        return bool(over)

    def open_all(self) -> None:
        """A new connection may take what the one before refused."""
        self._resume_s.clear()
