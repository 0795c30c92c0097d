"""A standstill: this process did not run for a while, and hears at once what came meanwhile.

As on a machine that swaps, or whose processes were frozen. Nothing says when such a trigger came; the part that
it is of may have passed long since, and a picture would show another one.
"""

from __future__ import annotations

import time

_BACKLOG_S = 0.2  # after a standstill; by then all that came meanwhile is heard


class Standstill:
    """Told again and again that somebody listens; used by one thread.

    Args:
        longest_s: Time between two calls of `heard_since_ns` that is none.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._looked_s = time.monotonic()
        self._since_s = 0.0
        self._until_s = 0.0

    def heard_since_ns(self) -> int:
        """Since when what is heard now may have waited: monotonic clock, nanoseconds; as a rule it did not."""
        now_s = time.monotonic()
        if now_s - self._looked_s > self._longest_s:
            self._since_s, self._until_s = self._looked_s, now_s + _BACKLOG_S
        self._looked_s = now_s
        return round((self._since_s if now_s < self._until_s else now_s) * 1e9)
