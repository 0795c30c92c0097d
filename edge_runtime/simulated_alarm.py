"""An alarm that goes through all its states, by the real state machine on a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from kenpin.edge_runtime.alarm import Action, ActionKind, Inputs, Transition, step
from kenpin.edge_runtime.alarm_catalogue import AlarmSpec
from kenpin.edge_runtime.alarm_standing import Now, Standing
from kenpin.events import now_ms

ACTOR = "simulation"
_Condition: TypeAlias = Literal["true", "false"]
# What an alarm does not take, such as a reset where it does not latch, is left out.
_SCRIPT: tuple[_Condition | ActionKind, ...] = (
    *("true", "ack", "false", "reset"),
    *("true", "false", "ack", "reset"),
    *("shelve", "true", "ack", "false", "reset"),  # the time on the shelf ends meanwhile
    *("shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service"),
)
_LONG_S = 1000.0  # longer than every delay, and than an alarm is remembered to chatter
_SHORT_S = 1.0
_SHELVE_MIN = 1.0


class SimulatedAlarm:
    """One alarm of the catalogue.

    Args:
        alarm: Which.

    Attributes:
        alarm: Which.
        standing: How it stands.
    """

    def __init__(self, alarm: AlarmSpec) -> None:
        self.alarm = alarm
        self.standing = Standing()
        self._now_s = 0.0

    def walk(self) -> Iterator[Transition]:
        """Every transition; `standing` is the one after it."""
        for happening in _SCRIPT:
            if happening == "true" or happening == "false":  # noqa: PLR1714 - so the type checker follows
                value = 2 * self.alarm.limit if happening == "true" else 0.0
                for _ in range(self.alarm.of_last[1] + 1):
                    yield from self._step(Inputs(value), _LONG_S)
            else:
                action = Action(happening, ACTOR, _SHELVE_MIN if happening == "shelve" else 0.0)
                yield from self._step(Inputs(action=action), _SHORT_S)

    def _step(self, inputs: Inputs, passed_s: float) -> tuple[Transition, ...]:
        self._now_s += passed_s
        outcome = step(self.alarm, self.standing, inputs, Now(s=self._now_s, ms=now_ms()))
        self.standing = outcome.standing
        return outcome.transitions
