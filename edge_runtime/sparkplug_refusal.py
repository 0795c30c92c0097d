"""What came over Sparkplug and was not obeyed: counted, and reported for the audit without flooding it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# Nobody signs these messages, and what is reported stays in the audit for ever: a flood must not fill the disk.
_PAUSE_S, _LONGEST_S = 1.0, 3600.0


@dataclass(frozen=True)
class Refusal:
    """Messages that were not obeyed.

    Attributes:
        topic: Where the last one came.
        why: What it was, in words.
        times: How many came since the last report.
    """

    topic: str
    why: str
    times: int


class Refusals:
    """Counts them, and reports the last one: the first at once, then after pauses that double up to an hour.

    Args:
        report: Told of them.

    Attributes:
        total: How many there were.
    """

    def __init__(self, report: Callable[[Refusal], None]) -> None:
        self.total = 0
        self._report = report
        self._reported = 0
        self._due_s, self._pause_s = 0.0, _PAUSE_S
        self._last: tuple[str, str] | None = None

    def note(self, topic: str, why: str) -> None:
        """Count one."""
        self.total += 1
        self._last = topic, why

    def tell(self) -> None:
        """Report what came since the last report, where that is long enough ago."""
        if self._last is None or time.monotonic() < self._due_s:
            return
        refusal = Refusal(*self._last, times=self.total - self._reported)
        self._last, self._reported, self._due_s = None, self.total, time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_S)
        self._report(refusal)
