"""Whether the machine's clock can be believed."""

from __future__ import annotations

import ctypes

# 2026-01-01, UTC in milliseconds since 1970. No station ran before; a date below it is of a clock not yet set.
FIRST_MS = 1_767_225_600_000
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised to a reliable server


def clock_is_synchronised() -> bool:
    """Ask the kernel; False when it does not know, as after a boot without network on a board without RTC."""
    state = ctypes.create_string_buffer(512)  # struct timex, all zero: read only
    return int(ctypes.CDLL(None).adjtimex(state)) not in (-1, _TIME_ERROR)
