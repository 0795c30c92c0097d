"""A flood of alarms: more than an operator can follow, by ISA-18.2 and EEMUA 191."""

from __future__ import annotations

from dataclasses import dataclass

from kenpin.edge_runtime.alarm_standing import passed_s

FLOOD_RAISES = 10  # in FLOOD_S; one more is a flood
FLOOD_S = 600.0


@dataclass(frozen=True)
class Flood:
    """The raises of all alarms of a station in the last ten minutes.

    A summary says that there is a flood; nothing is held back because of it.

    Attributes:
        raised_s: Age of each of the last raises in seconds, at most one more than a flood needs.
        at_s: Monotonic clock at the last step; `None` before the first.
    """

    raised_s: tuple[float, ...] = ()
    at_s: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether there were more than 10 raises in 10 minutes."""
        return len(self.raised_s) > FLOOD_RAISES


def flood_step(flood: Flood, *, raises: int, now_s: float) -> Flood:
    """One step: old raises are forgotten and new ones counted.

    Args:
        flood: What was counted so far.
        raises: Transitions with the name `raise` since the last step.
        now_s: Monotonic clock in seconds.
    """
    passed = passed_s(flood.at_s, now_s)
    ages = [age + passed for age in flood.raised_s] + [0.0] * raises
    recent = [age for age in ages if age <= FLOOD_S]
    return Flood(tuple(recent[-FLOOD_RAISES - 1 :]), now_s)
