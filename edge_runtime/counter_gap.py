"""Gaps in the numbers of triggers: each number that is left out is a part that was missed."""

from __future__ import annotations

import logging

# A step further than this is a counter that was set anew, and says nothing about parts.
FARTHEST = 1000

_log = logging.getLogger(__name__)


class CounterGap:
    """Follows a counter that may start over after its highest number: a PLC's often at 0, a GigE camera's at 1.

    Args:
        counter_max: The highest number; 0 = it does not start over.
        first: The number after the highest one.
        last: The number before; `None` = the first one that comes is taken as it is.
        is_ours: It is counted on this machine or by its camera, from when that was started, and never brings a
            number twice: one that is the last of an earlier start is of another part.

    Attributes:
        repeated: Numbers that came again and were ignored.
        restarts: Times that the counter was set anew.
    """

    def __init__(
        self, counter_max: int = 0, *, first: int = 0, last: int | None = None, is_ours: bool = False
    ) -> None:
        self.repeated = 0
        self.restarts = 0
        self._max = counter_max
        self._round = counter_max - first + 1  # numbers in one round
        self._last = last
        self._starts = is_ours and last is not None

    def missed(self, trigger_id: int) -> list[int] | None:
        """Take the next number.

        Args:
            trigger_id: The number.

        Returns:
            The numbers that were left out before it; `None` where it came before and is to be ignored.
        """
        if self._last is None:
            self._last = trigger_id
            return []
        step = self._step(self._last, trigger_id)
        starts, self._starts = self._starts, False
        if step == 0 and not starts:
            self.repeated += 1
            return None
        last, self._last = self._last, trigger_id
        if not 0 < step <= FARTHEST:
            self.restarts += 1
            _log.warning(
                "The trigger counter was set anew: %d after %d. No part is claimed missed.", trigger_id, last
            )
            return []
        return [self._after(last, k) for k in range(1, step)]

    def is_ahead(self, trigger_id: int, *, of: int) -> bool:
        """Whether a number comes after another one."""
        return 0 < self._step(of, trigger_id) <= FARTHEST

    def _step(self, last: int, number: int) -> int:
        """How many numbers further, forwards; negative or too large = not a step of the same counter."""
        if number >= last or not self._max:
            return number - last
        return number - last + self._round

    def _after(self, last: int, step: int) -> int:
        number = last + step
        return number - self._round if self._max and number > self._max else number
