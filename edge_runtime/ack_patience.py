"""How long a broker may take to acknowledge: longer where it needs that, else as usual again."""

from __future__ import annotations

from collections.abc import Callable

_MOST = 8  # times the usual
_QUICK_S = 600.0


class AckPatience:
    """Says when a connection is to be given up.

    Args:
        usual_s: What a message may take, in seconds. Twice as long each time that it was not enough, up to
            eight times: a broker that is only slow would never get more than the first events, again and
            again. After ten minutes in which it was enough, it is the usual again.
    """

    def __init__(self, usual_s: float) -> None:
        self._usual_s = self._limit_s = usual_s
        self._slow_s = 0.0  # when the usual was not enough

    def is_over(self, is_overdue: Callable[[float], bool], now_s: float) -> bool:
        """Whether the connection is to be given up; the next one has more time.

        Args:
            is_overdue: Whether a message has been on the way for longer than so many seconds.
            now_s: The monotonic clock.
        """
        if is_overdue(self._usual_s):
            self._slow_s = now_s
        elif now_s - self._slow_s > _QUICK_S:
            self._limit_s = self._usual_s
        if not is_overdue(self._limit_s):
            return False
        self._limit_s = min(2 * self._limit_s, _MOST * self._usual_s)
        return True
