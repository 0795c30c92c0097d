"""A camera's block ids as numbers that rise without end."""

from __future__ import annotations

from kenpin.edge_runtime.counter_gap import CounterGap

# GigE Vision 1.x has ids of 16 bits: 1 follows 65535, and 0 means that the id is not known. GigE Vision 2 with
# extended ids and USB3 Vision have 64 bits; those of USB3 Vision begin with 0.
_SHORT_MAX = 65535


class BlockNumbers:
    """Follows the ids of one camera. The first number is the first id; no number comes twice.

    Attributes:
        number: The last number; 0 before the first one.
        left_out: Blocks whose ids were left out.
        late: Blocks that came again, or after one with a later id: they were counted as left out.
    """

    def __init__(self) -> None:
        self.number = 0
        self.left_out = 0
        self.late = 0
        self._started = False
        self.start_over()

    def start_over(self) -> None:
        """The camera was opened again: its ids begin anew, and nothing is known of those between."""
        self._last: int | None = None
        self._wide = False
        self._gap = CounterGap(_SHORT_MAX, first=1)

    def take(self, block_id: int) -> int | None:
        """Take the next id.

        Returns:
            Its number; `None` where the block is late, came again or has no id.
        """
        if self._last is not None and block_id == 0:
            return None
        if block_id > _SHORT_MAX and not self._wide:
            self._wide = True
            self._gap = CounterGap(last=self._last)
        # Cameras deliver what is incomplete late, after blocks that are complete.
        if self._last is not None and self._gap.is_ahead(self._last, of=block_id):
            self.late += 1
            return None
        left_out = self._gap.missed(block_id)
        if left_out is None:
            self.late += 1
            return None
        self.left_out += len(left_out)
        self.number = self.number + len(left_out) + 1 if self._started else block_id
        self._started = True
        self._last = block_id
        return self.number
