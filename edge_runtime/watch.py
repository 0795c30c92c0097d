"""The ages of a process's loops: its watchdog is fed only while each of them comes round."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

DECIDE_S = 10.0  # a part that takes longer hangs


class Watch:
    """May be used from any thread.

    Args:
        limits: Name of a loop -> longest time for one round, in seconds.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._beats = dict.fromkeys(limits, time.monotonic_ns())

    def beat(self, loop: str) -> None:
        """A loop came round."""
        with self._lock:
            self._beats[loop] = time.monotonic_ns()

    def late(self) -> list[str]:
        """The loops that have not come round for longer than they may."""
        now_ns = time.monotonic_ns()
        return [loop for loop, ns in self.beats().items() if (now_ns - ns) / 1e9 > self._limits[loop]]

    def beats(self) -> dict[str, int]:
        """When each loop came round last: monotonic clock, nanoseconds."""
        with self._lock:
            return dict(self._beats)
