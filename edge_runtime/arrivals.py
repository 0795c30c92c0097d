"""What waits in the queue of a loop, a round at a time."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def arrivals(waiting: queue.SimpleQueue[T], timeout_s: float) -> Iterator[T]:
    """All that is there, after waiting for the first; what comes meanwhile has no end, and waits.

    Args:
        waiting: The queue.
        timeout_s: How long to wait for the first.
    """
    with suppress(queue.Empty):
        yield waiting.get(timeout=timeout_s)
        for _ in range(waiting.qsize()):
            yield waiting.get_nowait()
