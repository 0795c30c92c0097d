"""How many commands a station carries out in a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_WINDOW_S = 1.0


class Allowance:
    """Lets so many pass in any one second, whoever sends them.

    Args:
        per_s: How many.
        clock_s: A clock that never jumps, in seconds.
    """

    def __init__(self, per_s: int, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._passed_s: deque[float] = deque(maxlen=per_s)
        self._clock_s = clock_s

    def take(self) -> bool:
        """Take one; False where none is left."""
        now_s = self._clock_s()
        passed_s = self._passed_s
        if len(passed_s) == passed_s.maxlen and now_s - passed_s[0] < _WINDOW_S:
            return False
        passed_s.append(now_s)
        return True
