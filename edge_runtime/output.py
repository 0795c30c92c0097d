"""An output: what tells the line how the station is and what became of a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kenpin.edge_runtime.decide import Verdict


@dataclass(frozen=True)
class Result:
    """What became of one part.

    Attributes:
        part_id: Identity of the part, echoed.
        trigger_id: Number of its trigger, echoed; `None` where nobody counts triggers.
        verdict: Only OK releases it.
    """

    part_id: str
    trigger_id: int | None
    verdict: Verdict


class Output(Protocol):
    """One way to the line. Silence means not OK: the line takes a part for bad until it hears OK.

    All methods are called by the decision loop and must return within a few milliseconds.
    """

    def beat(self, *, ready: bool) -> None:
        """The decision loop is alive; called four times a second or more, but not while a part is in hand.

        Args:
            ready: Whether parts can be judged. The heartbeat stops where not.
        """
        ...

    def busy(self, *, busy: bool) -> None:
        """A part is in hand, or not any more."""
        ...

    def result(self, result: Result) -> None:
        """Tell the line. For OK this is called only after the record is on disk.

        Raises:
            Exception: The line could not be told; the part then counts as not released.
        """
        ...

    def close(self) -> None:
        """Fall back to not ready and let go."""
        ...
