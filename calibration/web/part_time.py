"""Over how long a time parts were shown, whatever was done to the clock meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol


class Timed(Protocol):
    """A part whose exposure is dated by two clocks."""

    @property
    def ts_ms(self) -> int:
        """UTC, milliseconds since 1970."""

    @property
    def captured_mono_ns(self) -> int | None:
        """By the clock that nobody sets; `None` = not known."""


def minutes_of(parts: Sequence[Timed]) -> float:
    """Time from the first part to the last one: a clock that is set meanwhile does not make days of it.

    Args:
        parts: In the order in which they were shown.
    """
    return sum(_minutes(*step) for step in pairwise(parts))


def _minutes(before: Timed, after: Timed) -> float:
    """The clock that nobody sets begins anew with the machine, and never tells more than has passed."""
    if before.captured_mono_ns is not None and after.captured_mono_ns is not None:
        passed = (after.captured_mono_ns - before.captured_mono_ns) / 60e9
        if passed >= 0:
            return passed
    return max(after.ts_ms - before.ts_ms, 0) / 60_000
