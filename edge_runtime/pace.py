"""How many may pass in a second, evenly."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A bucket of tokens that fills steadily.

    Args:
        per_s: Tokens per second.
        burst: Tokens that it holds at most; it starts full.
        clock_s: A clock that never jumps, in seconds.
    """

    def __init__(self, per_s: float, burst: int, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock_s = clock_s
        self._tokens = float(burst)
        self._filled_s = clock_s()

    @property
    def left(self) -> int:
        """Tokens that are there now."""
        now_s = self._clock_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        return int(self._tokens)

    def take(self, count: int) -> None:
        """Take tokens that `left` has shown."""
        self._tokens -= count
