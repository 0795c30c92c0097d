from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kenpin.edge_runtime.alarm import Action, ActionKind, Inputs, Outcome, step
from kenpin.edge_runtime.alarm_catalogue import AlarmSpec
from kenpin.edge_runtime.alarm_condition import CHATTER_S
from kenpin.edge_runtime.alarm_flood import FLOOD_S, Flood, flood_step
from kenpin.edge_runtime.alarm_standing import AlarmState, Now, Standing, alarm_fields
from kenpin.errors import StoreError

ON_S, OFF_S, SHELVE_MIN = 20.0, 15.0, 3
SPEC = AlarmSpec(
    key="gpu_thermal",
    unit="degC",
    limit=90.0,
    deadband=5.0,
    on_delay_s=ON_S,
    off_delay_s=OFF_S,
    priority=1,
    severity=350,
    max_shelve_min=SHELVE_MIN,
    message="Too hot",
    operator_action="Check the fan",
)
AT_ONCE = replace(SPEC, on_delay_s=0.0, off_delay_s=0.0)
COLD, WARM, HOT = 20.0, 87.0, 95.0
ASIDE = {AlarmState.SHELVED, AlarmState.SUPPRESSED, AlarmState.OUT_OF_SERVICE}
ACTIVE = {AlarmState.UNACK, AlarmState.ACKED}

# Section 1.5 of the specification: - is no move; what brings an alarm back leads to UNACK while the condition
# is true. The columns from suppress on follow from shelve and unshelve.
TABLE = """
state       true  false     ack         reset shelve  unshelve suppress   unsuppress oos in_service
NORM        UNACK -         -           -     SHELVED -        SUPPRESSED -          OOS -
UNACK       -     RTN_UNACK ACKED       -     SHELVED -        SUPPRESSED -          OOS -
ACKED       -     NORM      -           -     SHELVED -        SUPPRESSED -          OOS -
RTN_UNACK   UNACK -         NORM        -     SHELVED -        SUPPRESSED -          OOS -
LATCH_UNACK UNACK -         LATCH_ACKED -     SHELVED -        SUPPRESSED -          OOS -
LATCH_ACKED UNACK -         -           NORM  SHELVED -        SUPPRESSED -          OOS -
SHELVED     -     -         -           -     -       NORM     -          -          -   -
SUPPRESSED  -     -         -           -     -       -        -          NORM       -   -
OOS         -     -         -           -     -       -        -          -          -   NORM
"""
FIELDS = (
    "alarm state active acked latched shelved suppressed out_of_service priority severity value limit deadband "
    "unit raised_ms acked_ms cleared_ms shelved_until_ms acked_by occurrence chattering message operator_action"
)
LATCHING = {AlarmState.UNACK: AlarmState.LATCH_UNACK, AlarmState.ACKED: AlarmState.LATCH_ACKED}


def cells() -> Iterator[tuple[AlarmState, str, str]]:
    lines = TABLE.replace("OOS", "OUT_OF_SERVICE").replace("oos", "out_of_service").strip().splitlines()
    head, *rows = [line.split() for line in lines]
    for state, *row in rows:
        for column, cell in zip(head[1:], row, strict=True):
            yield AlarmState(state), column, cell


def stands(state: AlarmState, *, active: bool = False, left_s: float = 60.0) -> Standing:
    is_true = active or state in ACTIVE
    return Standing(state=state, active=is_true, over=(is_true,), shelved_s=left_s, occurrence=7, at_s=0.0)


def tell(
    spec: AlarmSpec, standing: Standing, *told: tuple[float, float | None], action: Action | None = None
) -> Outcome:
    """Several steps, each at a monotonic time with a value; the action comes with the last one."""
    outcome = Outcome(standing)
    for k, (at_s, value) in enumerate(told, start=1):
        inputs = Inputs(value, action if k == len(told) else None)
        outcome = step(spec, outcome.standing, inputs, Now(s=at_s, ms=1000 + int(at_s * 1000)))
    return outcome


def act(
    spec: AlarmSpec, standing: Standing, kind: ActionKind, *, minutes: float = 1.0, actor: str = "ono"
) -> Outcome:
    return tell(spec, standing, (1.0, None), action=Action(kind, actor, minutes))


def names(outcome: Outcome) -> list[tuple[str, str, str]]:
    return [(transition.name, transition.cause, transition.actor) for transition in outcome.transitions]


def test_the_table_has_all_states() -> None:
    assert {state for state, _, _ in cells()} == set(AlarmState)


@pytest.mark.parametrize("latching", [False, True])
@pytest.mark.parametrize(
    ("state", "column", "cell"), [cell for cell in cells() if cell[1] in ("true", "false")]
)
def test_the_table_moves_with_the_condition(state: AlarmState, column: str, cell: str, latching: bool) -> None:
    spec = replace(SPEC, latching=latching)
    is_true = column == "true"
    before = stands(state, active=not is_true and state in ASIDE)
    value, delay_s = (HOT, ON_S) if is_true else (COLD, OFF_S)
    after = LATCHING.get(state, cell) if latching and not is_true else cell
    early = tell(spec, before, (1.0, value), (delay_s, value))
    assert early.standing.state is state
    assert not early.transitions
    late = tell(spec, early.standing, (delay_s + 1.0, value))
    assert late.standing.active == is_true
    if after == "-":
        assert late.standing.state is state
        assert not late.transitions
    else:
        assert late.standing.state is AlarmState(after)
        assert [(t.before, t.after, t.cause, t.actor) for t in late.transitions] == [
            (state, AlarmState(after), "condition", "")
        ]
    assert late.standing.occurrence == 7 + (after == "UNACK")


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize(
    ("state", "column", "cell"), [cell for cell in cells() if cell[1] not in ("true", "false")]
)
def test_the_table_moves_with_actions(state: AlarmState, column: ActionKind, cell: str, active: bool) -> None:
    before = stands(state, active=active and state in ASIDE)
    outcome = act(SPEC, before, column)
    if cell == "-":
        assert outcome.standing.state is state
        assert outcome.rejected.startswith(f"gpu_thermal is {state.value}: ")
        assert not outcome.transitions
        return
    after = AlarmState.UNACK if state in ASIDE and active else AlarmState(cell)
    assert outcome.rejected == ""
    assert outcome.standing.state is after
    assert [(t.before, t.after, t.cause, t.actor) for t in outcome.transitions] == [
        (state, after, column, "ono")
    ]
    assert names(outcome)[0][0] == ("raise" if after is AlarmState.UNACK else column)
    assert outcome.standing.occurrence == outcome.transitions[0].occurrence == 7 + (after is AlarmState.UNACK)


@pytest.mark.parametrize("active", [False, True])
def test_the_end_of_the_time_on_the_shelf_is_as_an_unshelve(active: bool) -> None:
    before = stands(AlarmState.SHELVED, active=active, left_s=60.0)
    assert tell(SPEC, before, (59.0, None)).standing.state is AlarmState.SHELVED
    outcome = tell(SPEC, before, (60.0, None))
    assert outcome.standing.state is (AlarmState.UNACK if active else AlarmState.NORM)
    assert names(outcome) == [("raise" if active else "unshelve", "expiry", "")]


def test_a_condition_clears_below_the_deadband_only() -> None:
    raised = tell(AT_ONCE, Standing(), (0, 89.999), (1, 90.0)).standing
    assert raised.state is AlarmState.UNACK
    assert tell(AT_ONCE, raised, (2, 85.0)).standing.state is AlarmState.UNACK
    assert tell(AT_ONCE, raised, (2, 84.999)).standing.state is AlarmState.RTN_UNACK
    assert tell(AT_ONCE, Standing(), (0, WARM)).standing.state is AlarmState.NORM


def test_a_condition_that_comes_and_goes_within_the_delay_is_not_raised() -> None:
    told = [(0, HOT), (19, HOT), (19.5, COLD), (20, HOT), (39, HOT)]
    assert tell(SPEC, Standing(), *told).standing.state is AlarmState.NORM
    assert tell(SPEC, Standing(), *told, (40, HOT)).standing.state is AlarmState.UNACK


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_what_cannot_be_told_keeps_the_condition_and_its_delay(unknown: float | None) -> None:
    assert tell(SPEC, Standing(), (0, HOT), (19, unknown)).standing.state is AlarmState.NORM
    raised = tell(SPEC, Standing(), (0, HOT), (20, unknown)).standing
    assert raised.state is AlarmState.UNACK
    assert raised.value == HOT
    assert tell(SPEC, raised, (5000, unknown)).standing.state is AlarmState.UNACK
    assert tell(SPEC, Standing(), (0, unknown), (5000, unknown)).standing.state is AlarmState.NORM


def test_an_infinite_value_raises_and_can_be_told() -> None:
    raised = tell(AT_ONCE, Standing(), (0, math.inf)).standing
    assert raised.state is AlarmState.UNACK
    json.dumps(alarm_fields(AT_ONCE, raised, 0), allow_nan=False)
    assert tell(AT_ONCE, raised, (1, -math.inf)).standing.state is AlarmState.RTN_UNACK


def test_m_of_the_last_n_values_count_and_steps_without_a_value_do_not() -> None:
    spec = replace(AT_ONCE, of_last=(3, 5))
    two = tell(spec, Standing(), (0, HOT), (1, COLD), (2, HOT), (3, COLD), (4, None), (5, None)).standing
    assert two.state is AlarmState.NORM
    assert tell(spec, two, (6, HOT)).standing.state is AlarmState.UNACK
    assert tell(spec, two, (6, COLD), (7, HOT)).standing.state is AlarmState.NORM
    many = tell(spec, Standing(), *((k, HOT) for k in range(9)), (9, COLD), (10, COLD)).standing
    assert many.state is AlarmState.UNACK
    assert tell(spec, many, (11, COLD)).standing.state is AlarmState.RTN_UNACK


@pytest.mark.parametrize(
    ("action", "why"),
    [
        (Action("ack", " "), "ack needs an actor: say who wants it"),
        (Action("shelve", "ono", 0.0), "more than 0 and at most 3 minutes"),
        (Action("shelve", "ono", -1.0), "more than 0 and at most 3 minutes"),
        (Action("shelve", "ono", math.nan), "more than 0 and at most 3 minutes"),
        (Action("shelve", "ono", 3.01), "more than 0 and at most 3 minutes"),
        (Action("reset", "ono"), "only a latched alarm that was acknowledged can be reset"),
        (Action("explode", "ono"), "explode is nothing that can be done"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_done_is_rejected_in_words(action: Action, why: str) -> None:
    raised = stands(AlarmState.UNACK)
    outcome = tell(SPEC, raised, (1, None), action=action)
    assert why in outcome.rejected
    assert outcome == replace(tell(SPEC, raised, (1, None)), rejected=outcome.rejected)


def test_an_alarm_that_must_not_be_shelved_says_so() -> None:
    assert (
        act(replace(SPEC, max_shelve_min=0), Standing(), "shelve").rejected == "gpu_thermal must not be shelved"
    )


def test_nobody_stays_longer_on_the_shelf_than_the_alarm_allows_even_if_the_store_says_so() -> None:
    shelved = stands(AlarmState.SHELVED, left_s=1e9)
    assert tell(SPEC, shelved, (SHELVE_MIN * 60, None)).standing.state is AlarmState.NORM


def test_condition_and_action_of_one_step_are_two_transitions_in_order() -> None:
    outcome = tell(AT_ONCE, Standing(), (0, HOT), action=Action("ack", "ono"))
    assert names(outcome) == [("raise", "condition", ""), ("ack", "ack", "ono")]
    assert outcome.standing.state is AlarmState.ACKED


def test_the_labels_tell_of_the_last_raise() -> None:
    raised = tell(AT_ONCE, Standing(), (0, COLD), (1, HOT)).standing
    assert (raised.raised_ms, raised.acked_ms, raised.cleared_ms, raised.acked_by) == (2000, 0, 0, "")
    acked = tell(AT_ONCE, raised, (2, HOT), action=Action("ack", "ono")).standing
    cleared = tell(AT_ONCE, acked, (3, COLD)).standing
    assert (cleared.raised_ms, cleared.acked_ms, cleared.cleared_ms) == (2000, 3000, 4000)
    assert tell(AT_ONCE, cleared, (3.5, COLD)).standing.cleared_ms == 4000
    assert cleared.acked_by == "ono"
    again = tell(AT_ONCE, cleared, (4, HOT)).standing
    assert (again.raised_ms, again.acked_ms, again.cleared_ms, again.acked_by) == (5000, 0, 0, "")


def test_the_payload_has_the_fields_of_the_specification_and_no_others() -> None:
    shelved = act(SPEC, stands(AlarmState.UNACK), "shelve", minutes=2.0).standing
    fields = alarm_fields(SPEC, shelved, 5_000)
    assert " ".join(fields) == FIELDS
    assert fields["shelved_until_ms"] == 125_000
    assert fields["active"] is True
    assert alarm_fields(SPEC, stands(AlarmState.NORM), 5_000)["shelved_until_ms"] == 0


@pytest.mark.parametrize("state", AlarmState)
def test_the_flags_follow_the_state(state: AlarmState) -> None:
    fields = alarm_fields(SPEC, stands(state), 0)
    assert fields["state"] == state.value
    assert fields["active"] == (state in ACTIVE)
    assert fields["acked"] == ("UNACK" not in state.value)
    assert fields["latched"] == ("LATCH" in state.value)
    for flag in ("shelved", "suppressed", "out_of_service"):
        assert fields[flag] == (state.value == flag.upper())


def test_three_raises_in_a_minute_are_a_chatter_that_holds_the_alarm_and_ends_by_itself() -> None:
    told = [(0, HOT), (10, COLD), (20, HOT), (30, COLD)]
    twice = tell(AT_ONCE, Standing(), *told).standing
    assert not twice.chattering
    chatter = tell(AT_ONCE, twice, (60, HOT)).standing
    assert chatter.chattering
    held = tell(AT_ONCE, chatter, (61, COLD), (90, HOT), (91, COLD), (91 + CHATTER_S - 1, COLD)).standing
    assert held.state is AlarmState.UNACK
    assert held.chattering
    assert held.occurrence == 3
    over = tell(AT_ONCE, held, (91 + CHATTER_S, COLD)).standing
    assert over.state is AlarmState.RTN_UNACK
    assert not over.chattering


def test_a_chatter_ends_with_a_condition_that_stays_true() -> None:
    told = [(0, HOT), (1, COLD), (2, HOT), (3, COLD), (4, HOT)]
    assert tell(AT_ONCE, Standing(), *told, (63, HOT)).standing.chattering
    steady = tell(AT_ONCE, Standing(), *told, (64, HOT)).standing
    assert not steady.chattering
    assert tell(AT_ONCE, steady, (65, COLD)).standing.state is AlarmState.RTN_UNACK


def test_a_chatter_is_not_ended_by_the_shelf_while_the_condition_still_flaps() -> None:
    told = [(0, HOT), (1, COLD), (2, HOT), (3, COLD), (4, HOT)]
    shelved = tell(AT_ONCE, Standing(), *told, action=Action("shelve", "ono", 3.0)).standing
    flapping = tell(AT_ONCE, shelved, (40, COLD), (70, HOT), action=Action("unshelve", "ono")).standing
    assert flapping.state is AlarmState.UNACK
    assert flapping.chattering


def test_raises_by_hand_are_not_kept_without_end() -> None:
    standing = tell(AT_ONCE, Standing(), (0, HOT)).standing
    for _ in range(9):
        standing = act(AT_ONCE, act(AT_ONCE, standing, "shelve").standing, "unshelve").standing
    assert standing.occurrence == 10
    assert len(standing.raised_s) == 3


def test_three_raises_in_more_than_a_minute_are_none() -> None:
    told = [(0, HOT), (10, COLD), (20, HOT), (30, COLD), (60.5, HOT)]
    assert not tell(AT_ONCE, Standing(), *told).standing.chattering


def test_delays_go_on_after_a_reboot_with_the_time_since_the_boot() -> None:
    before = tell(SPEC, Standing(), (1000, HOT), (1012, HOT)).standing
    assert tell(SPEC, before, (7.5, None)).standing.state is AlarmState.NORM
    assert tell(SPEC, before, (8, None)).standing.state is AlarmState.UNACK


def test_a_shelved_alarm_comes_back_though_the_machine_boots_again_and_again() -> None:
    standing = act(SPEC, Standing(), "shelve", minutes=3.0).standing
    boots = 0
    while standing.state is AlarmState.SHELVED:
        standing = tell(SPEC, Standing.from_json(standing.to_json()), (30.0, None), (31.0, None)).standing
        boots += 1
        assert boots < 100
    assert boots == 6


def test_a_boot_that_the_clock_does_not_show_counts_less_time_and_never_more() -> None:
    before = tell(SPEC, Standing(), (10, HOT)).standing
    assert tell(SPEC, before, (29, None)).standing.state is AlarmState.NORM
    assert tell(SPEC, before, (30, None)).standing.state is AlarmState.UNACK


def test_a_damaged_standing_is_refused_with_the_place() -> None:
    plain = Standing().to_json()
    for key, wrong in [("state", "ASLEEP"), ("held_s", math.nan), ("over", [3]), ("occurrence", "x")]:
        with pytest.raises(StoreError, match="damaged") as caught:
            Standing.from_json({**plain, key: wrong})
        assert caught.value.where.startswith(key)


def test_what_an_older_version_did_not_store_is_new_and_what_a_newer_one_did_is_left() -> None:
    assert Standing.from_json({"state": "ACKED", "mood": "good"}) == Standing(state=AlarmState.ACKED)


def flood(*told: tuple[float, int]) -> Flood:
    found = Flood()
    for at_s, raises in told:
        found = flood_step(found, raises=raises, now_s=at_s)
    return found


def test_more_than_ten_raises_in_ten_minutes_are_a_flood_that_ends_by_itself() -> None:
    assert not flood((0, 1), (300, 9), (600, 0)).is_on
    assert flood((0, 1), (300, 9), (600, 1)).is_on
    assert not flood((0, 1), (300, 9), (600, 1), (600.5, 0)).is_on
    assert flood((0, 500)).is_on
    assert not flood((0, 500), (FLOOD_S + 1, 0)).is_on


def test_a_flood_goes_on_after_a_reboot_and_keeps_no_more_than_it_needs() -> None:
    assert flood((5000, 11), (30, 0)).is_on
    assert not flood((5000, 11), (FLOOD_S + 1, 0)).is_on
    assert len(flood((0, 500), (1, 500)).raised_s) == 11


@dataclass(frozen=True)
class Happening:
    """What comes next in a random history: after some seconds of running time, a step."""

    after_s: int
    value: float | None
    action: Action | None
    boots: bool
    ms: int


@dataclass(frozen=True)
class Moment:
    running_s: int  # since the start of the history, time without power left out
    now: Now
    inputs: Inputs
    before: Standing
    outcome: Outcome


ACTIONS = st.builds(
    Action,
    st.sampled_from(
        ["ack", "ack", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service"]
    ),
    st.sampled_from(["ono", "ono", "ono", ""]),
    st.sampled_from([0.5, 1.0, 3.0, 3.5, 0.0, -1.0, math.nan]),
)
HAPPENINGS = st.builds(
    Happening,
    st.sampled_from([0, 1, 5, 10, 20, 40]),
    st.sampled_from([COLD, COLD, WARM, HOT, HOT, None, math.nan]),
    st.none() | ACTIONS,
    st.sampled_from([False, False, False, True]),
    st.integers(0, 2_000_000_000_000),  # the wall clock jumps as it likes
)
HISTORIES = st.lists(HAPPENINGS, min_size=1, max_size=50)
SPECS = st.builds(
    lambda on_s, off_s, latching: replace(SPEC, on_delay_s=on_s, off_delay_s=off_s, latching=latching),
    st.sampled_from([0.0, ON_S]),
    st.sampled_from([0.0, OFF_S]),
    st.booleans(),
)


def play(spec: AlarmSpec, history: list[Happening], *, stored: bool = False) -> list[Moment]:
    standing, clock_s, running_s = Standing(), 100, 0
    moments = []
    for happening in history:
        shows = happening.after_s < clock_s  # else the clock does not show the boot
        clock_s = happening.after_s if happening.boots and shows else clock_s + happening.after_s
        running_s += happening.after_s
        if stored:
            standing = Standing.from_json(json.loads(json.dumps(standing.to_json(), allow_nan=False)))
        now, inputs = Now(s=float(clock_s), ms=happening.ms), Inputs(happening.value, happening.action)
        outcome = step(spec, standing, inputs, now)
        moments.append(Moment(running_s, now, inputs, standing, outcome))
        standing = outcome.standing
    return moments


def true_for_s(moments: list[Moment], *, wanted: float) -> float:
    """How long only this value was told, up to the last moment; -1 where it was not."""
    since = -1
    for moment in reversed(moments):
        value = moment.inputs.value
        if value == wanted:
            since = moment.running_s
        elif value is not None and not math.isnan(value):
            break
    return -1 if since < 0 else moments[-1].running_s - since


properties = settings(deadline=None, max_examples=150)


@properties
@given(SPECS, HISTORIES)
def test_never_normal_while_the_condition_is_true_past_its_delay(
    spec: AlarmSpec, history: list[Happening]
) -> None:
    moments = play(spec, history)
    for k, moment in enumerate(moments, start=1):
        if true_for_s(moments[:k], wanted=HOT) >= spec.on_delay_s:
            assert moment.outcome.standing.state in ACTIVE | ASIDE


@properties
@given(SPECS, HISTORIES)
def test_never_active_while_the_condition_is_false_past_its_delay(
    spec: AlarmSpec, history: list[Happening]
) -> None:
    moments = play(spec, history)
    for k, moment in enumerate(moments, start=1):
        chattered = moment.before.chattering
        if true_for_s(moments[:k], wanted=COLD) >= max(spec.off_delay_s, CHATTER_S if chattered else 0.0):
            assert moment.outcome.standing.state not in ACTIVE


@properties
@given(SPECS, HISTORIES)
def test_each_state_is_reached_by_transitions_and_unack_by_a_raise(
    spec: AlarmSpec, history: list[Happening]
) -> None:
    for moment in play(spec, history):
        state, occurrence = moment.before.state, moment.before.occurrence
        for transition in moment.outcome.transitions:
            is_raise = transition.after is AlarmState.UNACK
            assert transition.before is state is not transition.after
            assert (transition.name == "raise") == is_raise
            assert transition.occurrence == occurrence + is_raise
            assert transition.ts_ms == moment.now.ms
            state, occurrence = transition.after, transition.occurrence
        assert moment.outcome.standing.state is state
        assert moment.outcome.standing.occurrence == occurrence


@properties
@given(SPECS, HISTORIES)
def test_a_shelved_alarm_leaves_the_shelf_in_time(spec: AlarmSpec, history: list[Happening]) -> None:
    until_s = math.inf
    for moment in play(spec, history):
        for transition in moment.outcome.transitions:
            if transition.after is AlarmState.SHELVED:
                assert moment.inputs.action is not None
                assert 0 < moment.inputs.action.minutes <= SHELVE_MIN
                until_s = moment.running_s + moment.inputs.action.minutes * 60
        if moment.outcome.standing.state is AlarmState.SHELVED:
            assert moment.running_s < until_s


@properties
@given(SPECS, HISTORIES)
def test_a_rejected_action_changes_nothing(spec: AlarmSpec, history: list[Happening]) -> None:
    for moment in play(spec, history):
        alone = step(spec, moment.before, Inputs(moment.inputs.value), moment.now)
        if moment.outcome.rejected:
            assert moment.outcome == replace(alone, rejected=moment.outcome.rejected)
        elif moment.inputs.action is None:
            assert moment.outcome == alone
        else:
            assert moment.outcome.transitions[:-1] == alone.transitions
            assert moment.outcome.transitions[-1].cause == moment.inputs.action.kind
            assert moment.outcome.transitions[-1].actor == "ono"


def comparable(moments: list[Moment]) -> list[tuple[Any, ...]]:
    return [
        (moment.outcome.standing, moment.outcome.transitions, moment.outcome.rejected) for moment in moments
    ]


@properties
@given(SPECS, HISTORIES)
def test_what_is_stored_and_loaded_goes_on_the_same(spec: AlarmSpec, history: list[Happening]) -> None:
    assert comparable(play(spec, history, stored=True)) == comparable(play(spec, history))
