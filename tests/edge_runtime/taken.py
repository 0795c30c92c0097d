"""What a source delivers, taken as a station takes it."""

from __future__ import annotations

import time

from kenpin.edge_runtime.source import Fault, FrameSource, Lull
from kenpin.frame import Frame

LIMIT_S = 180.0  # however slow the machine is


def take(source: FrameSource, count: int = 1) -> list[Frame | Fault]:
    """The next ones; fewer where the source ends."""
    items: list[Frame | Fault] = []
    by_s = time.monotonic() + LIMIT_S
    while len(items) < count and (item := source.next(time.monotonic() + 0.1)) is not Lull.END:
        assert time.monotonic() < by_s
        if not isinstance(item, Lull):
            items.append(item)
    return items
