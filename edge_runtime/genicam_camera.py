"""What a library has to do for a GenICam camera, and what it delivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kenpin.edge_runtime.genicam_settings import Opened, Wish
from kenpin.edge_runtime.pixel_format import Layout

BUFFERS = 16  # blocks that wait in memory for `grab`


@dataclass(frozen=True)
class Block:
    """What a camera delivered for one exposure.

    Attributes:
        block_id: The camera's number.
        timestamp_ns: The camera's clock, nanoseconds; 0 where it has none.
        layout: How its picture lies; `None` where it is incomplete.
        data: Its bytes, shape (N,); they may be overwritten after the next `grab`.
        padding: Bytes at the end of each row that are no pixels.
        reason: Why it is incomplete.
    """

    block_id: int
    timestamp_ns: int
    layout: Layout | None
    data: NDArray[np.uint8]
    padding: int = 0
    reason: str = ""


class GenicamCamera(Protocol):
    """A camera through one of the libraries.

    Each method raises `SourceError` where the camera does not answer; that may take seconds.

    Attributes:
        name: Its name.
        where: Its address, for messages.
    """

    name: str
    where: str

    def open(self, wish: Wish) -> Opened:
        """Connect, set up and start; nothing is held open where that fails."""
        ...

    def grab(self, wait_s: float) -> Block | None:
        """The oldest block that waits; `None` where none comes in time."""
        ...

    def fire(self) -> None:
        """Trigger it by software."""
        ...

    def probe(self) -> None:
        """Read something from the camera itself, to learn whether it is still there."""
        ...

    def close(self) -> None:
        """Let it go; without effect where it is not open."""
        ...
