"""Attempts at a PIN: after each wrong one the next must wait longer, up to a minute, and nobody is locked out.

The first attempts of a minute come at 0, 2, 6, 14 and 30 s: never more than five. People who stand at the
station itself are counted apart from the network, so that nobody can keep the operator out from afar.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LONGEST_S = 60.0
FORGET_S = 900.0
_KEYS = 4096


@dataclass(frozen=True)
class _Failures:
    count: int
    last_s: float

    @property
    def next_s(self) -> float:
        return self.last_s + min(2.0**self.count, LONGEST_S)


class Attempts:
    """Wrong PINs of late, by whom and from where.

    Args:
        clock_s: Monotonic clock in seconds.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._failures: dict[str, _Failures] = {}
        self._lock = threading.Lock()

    def take(self, keys: Sequence[str]) -> float:
        """Ask to try a PIN. A try counts as wrong until `forgive` says otherwise.

        Args:
            keys: For whom and from where.

        Returns:
            0 if it may be tried now, otherwise the time to wait in seconds.
        """
        with self._lock:
            now_s = self._clock_s()
            self._forget(now_s)
            known = [self._failures[key] for key in keys if key in self._failures]
            wait_s = max([failures.next_s - now_s for failures in known], default=0.0)
            if wait_s > 0:
                return wait_s
            for key in keys:
                before = self._failures.pop(key, _Failures(0, now_s))
                self._failures[key] = _Failures(before.count + 1, now_s)
            return 0.0

    def forgive(self, account: str, others: Sequence[str]) -> None:
        """The PIN was right.

        Args:
            account: Starts anew.
            others: Only this try is taken back: who knows one PIN may not guess those of others faster.
        """
        with self._lock:
            self._failures.pop(account, None)
            for key in others:
                failures = self._failures.pop(key, None)
                if failures is not None and failures.count > 1:
                    self._failures[key] = _Failures(failures.count - 1, failures.last_s)

    def _forget(self, now_s: float) -> None:
        """Drop what is long ago, and the oldest where there are too many."""
        old = [key for key, failures in self._failures.items() if now_s - failures.last_s > FORGET_S]
        for key in old or list(self._failures)[: max(0, len(self._failures) - _KEYS)]:
            del self._failures[key]
