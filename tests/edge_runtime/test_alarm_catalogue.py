from __future__ import annotations

from typing import Any

import pytest

from kenpin.edge_runtime.alarm import Action, Inputs, step
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE, AlarmSpec
from kenpin.edge_runtime.alarm_standing import AlarmState, Now, Standing, alarm_fields
from kenpin.errors import ConfigError

KEYS = (
    "ng_rate ng_consecutive camera_lost line_lost image_quality score_drift inference_slow engine_integrity "
    "gpu_thermal disk_low outbox_pressure clock_unsynced calibration_expired masters_due model_unapproved "
    "comms_unstable comms_denied"
)
ATTRIBUTES: dict[str, Any] = {
    "key": "disk_low",
    "priority": 1,
    "severity": 350,
    "message": "Nearly full",
    "operator_action": "Copy pictures away",
}
each = pytest.mark.parametrize("alarm", CATALOGUE, ids=lambda alarm: alarm.key)


def test_the_catalogue_has_the_alarms_of_the_specification_in_its_order() -> None:
    assert " ".join(alarm.key for alarm in CATALOGUE) == KEYS


def test_the_more_urgent_an_alarm_the_rarer_and_the_severer() -> None:
    assert [alarm.key for alarm in CATALOGUE if alarm.priority == 4] == ["engine_integrity"]
    by_priority = [sum(alarm.priority == priority for alarm in CATALOGUE) for priority in (1, 2, 3, 4)]
    assert by_priority == sorted(by_priority, reverse=True)
    ranked = sorted(CATALOGUE, key=lambda alarm: alarm.severity)
    assert [alarm.priority for alarm in ranked] == sorted(alarm.priority for alarm in CATALOGUE)


def test_what_asks_for_a_reset_and_what_must_not_be_shelved() -> None:
    assert [alarm.key for alarm in CATALOGUE if alarm.latching] == ["ng_consecutive", "engine_integrity"]
    assert [alarm.key for alarm in CATALOGUE if alarm.max_shelve_min == 0] == ["engine_integrity"]


@each
def test_each_alarm_says_what_is_wrong_and_what_to_do(alarm: AlarmSpec) -> None:
    assert alarm.message
    assert alarm.operator_action
    assert alarm.message != alarm.operator_action
    assert not alarm.message.endswith(".")
    assert alarm.priority >= 1


@each
def test_each_alarm_comes_by_its_limit_and_goes_again(alarm: AlarmSpec) -> None:
    standing, at_s = Standing(), 0.0
    for value, wait_s, wanted in [
        (alarm.limit, alarm.on_delay_s, AlarmState.UNACK),
        (0.0, alarm.off_delay_s, AlarmState.LATCH_UNACK if alarm.latching else AlarmState.RTN_UNACK),
    ]:
        for _ in range(alarm.of_last[1]):
            standing = step(alarm, standing, Inputs(value), Now(s=at_s, ms=0)).standing
        at_s += wait_s
        standing = step(alarm, standing, Inputs(), Now(s=at_s, ms=0)).standing
        assert standing.state is wanted
    assert alarm_fields(alarm, standing, 0)["occurrence"] == 1


@each
def test_each_alarm_is_shelved_for_a_shift_at_most(alarm: AlarmSpec) -> None:
    assert alarm.max_shelve_min <= 480
    for minutes in (alarm.max_shelve_min, alarm.max_shelve_min + 1):
        outcome = step(alarm, Standing(), Inputs(action=Action("shelve", "ono", minutes)), Now(s=0.0, ms=0))
        assert bool(outcome.rejected) == (minutes > alarm.max_shelve_min or minutes == 0)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"of_last": (0, 1)}, "of_last wants"),
        ({"of_last": (3, 2)}, "of_last wants"),
        ({"deadband": -0.1}, "cannot be negative"),
        ({"on_delay_s": -1.0}, "cannot be negative"),
        ({"off_delay_s": -1.0}, "cannot be negative"),
        ({"of_last": (2, 3), "on_delay_s": 1.0}, "exclude each other"),
        ({"max_shelve_min": 481}, "0 to 480"),
        ({"max_shelve_min": -1}, "0 to 480"),
        ({"priority": 5}, "0 to 4"),
        ({"severity": 0}, "1 to 1000"),
    ],
)
def test_attributes_that_contradict_each_other_are_refused(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        AlarmSpec(**{**ATTRIBUTES, **wrong})
    assert caught.value.where == "alarm disk_low"
    assert caught.value.cure
