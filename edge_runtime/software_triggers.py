"""The triggers of a camera that is triggered by software, in their order."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from kenpin.edge_runtime.source import Trigger

_TRIGGERS = 1024


@dataclass(frozen=True)
class Asked:
    """A part that the line asked for.

    Attributes:
        trigger: Its trigger.
        refused: Why the camera was not triggered; empty where it was.
    """

    trigger: Trigger
    refused: str


class SoftwareTriggers:
    """Only one is under way at a time, always the first; may be used from any thread.

    A camera that is still exposing ignores a trigger without a word, and the next picture would be taken for
    that of another part. So the part of a trigger that comes too early is refused.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: deque[Asked] = deque()

    def ask(self, trigger: Trigger, *, down: str) -> bool:
        """Take a trigger; whether the camera is to be triggered.

        Args:
            trigger: The trigger.
            down: Why the camera is away; empty where it is not.

        Raises:
            OverflowError: Too many are waiting to be told.
        """
        with self._lock:
            if len(self._asked) >= _TRIGGERS:
                raise OverflowError
            refused = f"the camera is down: {down}" if down else ""
            if not refused and self._asked:
                refused = "overrun: the camera was still busy with the trigger before"
            self._asked.append(Asked(trigger, refused))
            return not refused

    def next_refused(self) -> Asked | None:
        """The first one, where it was refused."""
        with self._lock:
            return self._asked.popleft() if self._asked and self._asked[0].refused else None

    def answered(self) -> Asked | None:
        """The one under way, which ends here."""
        with self._lock:
            return self._asked.popleft() if self._asked and not self._asked[0].refused else None

    def is_overdue(self, patience_s: float) -> bool:
        """Whether the one under way came longer ago than so many seconds."""
        with self._lock:
            return bool(self._asked) and time.monotonic() - self._asked[0].trigger.mono_ns / 1e9 > patience_s
