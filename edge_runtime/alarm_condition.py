"""The condition of an alarm: true while the value is too high, with deadband, m of n and delays."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

from kenpin.edge_runtime.alarm_catalogue import AlarmSpec
from kenpin.edge_runtime.alarm_standing import Now, Standing, passed_s

CHATTER_S = 60.0


def watch(alarm: AlarmSpec, standing: Standing, value: float | None, now: Now) -> Standing:
    """Let time pass and follow the condition through deadband, m of n and delays; the state stays.

    An alarm that chatters is active, and stays so until its condition is steady for 60 s.

    Args:
        alarm: What the alarm watches.
        standing: How it stood.
        value: What is measured; `None` or NaN = cannot be told, and the condition keeps what it was.
        now: When.
    """
    standing = _age(alarm, standing, now)
    told = standing if value is None or math.isnan(value) else _told(alarm, standing, value)
    is_met = _is_met(alarm, told)
    held_s = standing.held_s if is_met == _is_met(alarm, standing) else 0.0
    chattering = standing.chattering and held_s < CHATTER_S
    watched = replace(told, held_s=held_s, chattering=chattering)
    delay_s = alarm.on_delay_s if is_met else alarm.off_delay_s
    if is_met == standing.active or held_s < delay_s or chattering:
        return watched
    return replace(watched, active=is_met, cleared_ms=0 if is_met else now.ms)


def _age(alarm: AlarmSpec, standing: Standing, now: Now) -> Standing:
    passed = passed_s(standing.at_s, now.s)
    ages = (age + passed for age in standing.raised_s)
    return replace(
        standing,
        held_s=standing.held_s + passed,
        shelved_s=max(0.0, min(standing.shelved_s, alarm.max_shelve_min * 60.0) - passed),
        raised_s=tuple(age for age in ages if age <= CHATTER_S),
        at_s=now.s,
    )


def _told(alarm: AlarmSpec, standing: Standing, value: float) -> Standing:
    is_over = alarm.is_over(value, was_over=standing.over[-1:] == (True,))
    finite = max(-sys.float_info.max, min(value, sys.float_info.max))  # JSON knows no infinity
    return replace(standing, value=finite, over=(*standing.over, is_over)[-alarm.of_last[1] :])


def _is_met(alarm: AlarmSpec, standing: Standing) -> bool:
    return sum(standing.over) >= alarm.of_last[0]
