"""One alarm: a pure state machine with the states A to I of ISA-18.2 / IEC 62682.

Whoever calls it gives the `Standing` back at each step, and stores it in the same transaction as the events of
its transitions, with the first step after a start, and once a minute: time that was not stored is lost in a
power cut, and delays and shelves last longer by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kenpin.edge_runtime.alarm_catalogue import AlarmSpec
from kenpin.edge_runtime.alarm_condition import watch
from kenpin.edge_runtime.alarm_standing import ASIDE, AlarmState, Now, Standing

CHATTER_RAISES = 3  # within `CHATTER_S`

ActionKind = Literal[
    "ack", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service"
]

_A = AlarmState
_SERVING = tuple(state for state in AlarmState if state not in ASIDE)

# The table: state before -> state after; what is not in it does not move. NORM becomes UNACK where the
# condition is true, so that nothing comes back from aside with a condition that nobody was told of.
_TRUE = dict.fromkeys((_A.NORM, _A.RTN_UNACK, _A.LATCH_UNACK, _A.LATCH_ACKED), _A.UNACK)
_FALSE = {_A.UNACK: _A.RTN_UNACK, _A.ACKED: _A.NORM}
_FALSE_LATCHING = {_A.UNACK: _A.LATCH_UNACK, _A.ACKED: _A.LATCH_ACKED}
_ACTIONS: dict[ActionKind, dict[AlarmState, AlarmState]] = {
    "ack": {_A.UNACK: _A.ACKED, _A.RTN_UNACK: _A.NORM, _A.LATCH_UNACK: _A.LATCH_ACKED},
    "reset": {_A.LATCH_ACKED: _A.NORM},
    "shelve": dict.fromkeys(_SERVING, _A.SHELVED),
    "unshelve": {_A.SHELVED: _A.NORM},
    "suppress": dict.fromkeys(_SERVING, _A.SUPPRESSED),
    "unsuppress": {_A.SUPPRESSED: _A.NORM},
    "out_of_service": dict.fromkeys(_SERVING, _A.OUT_OF_SERVICE),
    "in_service": {_A.OUT_OF_SERVICE: _A.NORM},
}

_WHY_NOT: dict[ActionKind, str] = {
    "ack": "there is nothing to acknowledge",
    "reset": "only a latched alarm that was acknowledged can be reset",
    "shelve": "it is set aside already",
    "unshelve": "it is not shelved",
    "suppress": "it is set aside already",
    "unsuppress": "it is not suppressed",
    "out_of_service": "it is set aside already",
    "in_service": "it is not out of service",
}


@dataclass(frozen=True)
class Action:
    """What somebody wants of an alarm.

    Attributes:
        kind: What.
        actor: Who; the station itself may suppress, under its own name.
        minutes: How long to shelve.
        occurrence: Which raise was looked at; 0 = whichever it is now.
    """

    kind: ActionKind
    actor: str
    minutes: float = 0.0
    occurrence: int = 0


@dataclass(frozen=True)
class Inputs:
    """What a step is told.

    Attributes:
        value: In the unit of the alarm. `None` or NaN = cannot be told: too few parts for a share, no part
            since the last step. The condition then keeps what it was and its delays run on. Where m of the
            last n values count, each value is told once.
        action: What somebody wants.
    """

    value: float | None = None
    action: Action | None = None


@dataclass(frozen=True)
class Transition:
    """A change of state, for `event/alarm`.

    Attributes:
        alarm: Key of the alarm.
        name: What it is to the operator: `raise` whenever it leads to UNACK, `return` when the condition went,
            `unshelve` also when the time on the shelf was over, else the kind of the action.
        cause: What made it: `condition`, `expiry` or the kind of the action.
        before: State before.
        after: State after.
        occurrence: How often the alarm was raised so far.
        actor: Who did it; empty for condition and expiry.
        ts_ms: UTC, milliseconds since 1970.
    """

    alarm: str
    name: str
    cause: str
    before: AlarmState
    after: AlarmState
    occurrence: int
    actor: str
    ts_ms: int


@dataclass(frozen=True)
class _Cause:
    name: str
    actor: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a step led to.

    Attributes:
        standing: How the alarm stands now.
        transitions: What changed, in order: by condition or expiry, then by the action.
        rejected: Why the action was not done, in words; empty where it was.
    """

    standing: Standing
    transitions: tuple[Transition, ...] = ()
    rejected: str = ""


def step(alarm: AlarmSpec, standing: Standing, inputs: Inputs, now: Now) -> Outcome:
    """One step of an alarm: time passes, the condition is followed, then the action is done or rejected.

    Args:
        alarm: What it watches.
        standing: How it stood.
        inputs: What is told.
        now: When.
    """
    moved = _follow(alarm, watch(alarm, standing, inputs.value, now), now)
    if inputs.action is None:
        return moved
    acted = _act(alarm, moved.standing, inputs.action, now)
    return replace(acted, transitions=moved.transitions + acted.transitions)


def _follow(alarm: AlarmSpec, standing: Standing, now: Now) -> Outcome:
    """Move as the shelf's end or the condition demands."""
    if standing.state is AlarmState.SHELVED and standing.shelved_s <= 0:
        return _move(alarm, standing, AlarmState.NORM, _Cause("expiry"), now)
    gone = _FALSE_LATCHING if alarm.latching else _FALSE
    to = (_TRUE if standing.active else gone).get(standing.state)
    return Outcome(standing) if to is None else _move(alarm, standing, to, _Cause("condition"), now)


def _act(alarm: AlarmSpec, standing: Standing, action: Action, now: Now) -> Outcome:
    refusal = _refusal(alarm, standing, action)
    if refusal:
        return Outcome(standing, rejected=refusal)
    to = _ACTIONS[action.kind][standing.state]
    moved = _move(alarm, standing, to, _Cause(action.kind, action.actor), now)
    if action.kind == "ack":
        return replace(moved, standing=replace(moved.standing, acked_ms=now.ms, acked_by=action.actor))
    if action.kind == "shelve":
        return replace(moved, standing=replace(moved.standing, shelved_s=action.minutes * 60.0))
    return moved


def _refusal(alarm: AlarmSpec, standing: Standing, action: Action) -> str:
    """Why an action cannot be done, in words; empty where it can."""
    if action.kind not in _ACTIONS:
        return f"{action.kind} is nothing that can be done to an alarm"
    if not action.actor.strip():
        return f"{action.kind} needs an actor: say who wants it"
    if action.occurrence not in (0, standing.occurrence):
        return f"{alarm.key} was raised anew meanwhile: look at it first"
    if standing.state not in _ACTIONS[action.kind]:
        return f"{alarm.key} is {standing.state.value}: {_WHY_NOT[action.kind]}"
    too_long = action.kind == "shelve" and not 0 < action.minutes <= alarm.max_shelve_min
    return _how_long(alarm) if too_long else ""


def _how_long(alarm: AlarmSpec) -> str:
    if alarm.max_shelve_min == 0:
        return f"{alarm.key} must not be shelved"
    return f"{alarm.key} can be shelved for more than 0 and at most {alarm.max_shelve_min} minutes"


def _move(alarm: AlarmSpec, standing: Standing, to: AlarmState, cause: _Cause, now: Now) -> Outcome:
    """Change the state; NORM becomes UNACK where the condition is true."""
    after = AlarmState.UNACK if to is AlarmState.NORM and standing.active else to
    moved = replace(standing, state=after, shelved_s=0.0)
    name = {"condition": "return", "expiry": "unshelve"}.get(cause.name, cause.name)
    if after is AlarmState.UNACK:
        moved, name = _raised(moved, now), "raise"
    transition = Transition(
        alarm=alarm.key,
        name=name,
        cause=cause.name,
        before=standing.state,
        after=after,
        occurrence=moved.occurrence,
        actor=cause.actor,
        ts_ms=now.ms,
    )
    return Outcome(moved, (transition,))


def _raised(standing: Standing, now: Now) -> Standing:
    ages = (*standing.raised_s, 0.0)[-CHATTER_RAISES:]
    return replace(
        standing,
        raised_s=ages,
        chattering=standing.chattering or len(ages) == CHATTER_RAISES,
        occurrence=standing.occurrence + 1,
        raised_ms=now.ms,
        acked_ms=0,
        acked_by="",
    )
