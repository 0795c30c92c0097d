"""How an alarm stands: what survives a reboot, and what is told of it.

Time is counted on the monotonic clock only; UTC is a label, because the wall clock of a station may jump. The
monotonic clock of Linux starts at zero when the machine boots. A reading below the last one therefore tells of
a reboot, and delays and shelves go on with what was left of them, less the time since the boot: the time
without power does not count, and a shelved alarm comes back however often the machine is started anew. A boot
that the clock does not show, because the last one was shorter, counts less time and never more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from kenpin.edge_runtime.alarm_catalogue import AlarmSpec
from kenpin.errors import StoreError


class AlarmState(str, Enum):
    """Where an alarm stands; UNACK and ACKED are active, the LATCH ones were and wait for a reset."""

    NORM = "NORM"
    UNACK = "UNACK"
    ACKED = "ACKED"
    RTN_UNACK = "RTN_UNACK"
    LATCH_UNACK = "LATCH_UNACK"
    LATCH_ACKED = "LATCH_ACKED"
    SHELVED = "SHELVED"
    SUPPRESSED = "SUPPRESSED"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"


TO_ACK = (AlarmState.UNACK, AlarmState.RTN_UNACK, AlarmState.LATCH_UNACK)
ASIDE = (AlarmState.SHELVED, AlarmState.SUPPRESSED, AlarmState.OUT_OF_SERVICE)


@dataclass(frozen=True, kw_only=True)
class Now:
    """The moment of a step.

    Attributes:
        s: Monotonic clock in seconds.
        ms: UTC in milliseconds since 1970.
    """

    s: float
    ms: int


@dataclass(frozen=True)
class Standing:
    """How an alarm stands: all that has to survive a reboot.

    Attributes:
        state: The state.
        active: Whether the condition is true, delays included; followed in every state.
        value: The last value that was told.
        over: Which of the last n values were too high.
        held_s: How long m of n have, or have not, been too high, in seconds.
        shelved_s: What is left of the time on the shelf, in seconds.
        raised_s: Age of each of the last raises that may be part of a chatter, in seconds.
        chattering: Raised 3 times in 60 s and not steady for 60 s since.
        occurrence: How often it was raised.
        raised_ms: UTC of the last raise, milliseconds since 1970; 0 = never.
        acked_ms: UTC of its acknowledgement; 0 = none.
        cleared_ms: UTC when the condition went after it; 0 = it did not.
        acked_by: Who acknowledged it.
        at_s: Monotonic clock at the last step; `None` before the first.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    state: AlarmState = AlarmState.NORM
    active: bool = False
    value: float = 0.0
    over: tuple[bool, ...] = ()
    held_s: float = 0.0
    shelved_s: float = 0.0
    raised_s: tuple[float, ...] = ()
    chattering: bool = False
    occurrence: int = 0
    raised_ms: int = 0
    acked_ms: int = 0
    cleared_ms: int = 0
    acked_by: str = ""
    at_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the store."""
        return {**asdict(self), "state": self.state.value}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Standing:
        """The same standing again; what an older version did not keep is taken as new.

        Args:
            plain: What `to_json` gave.

        Raises:
            StoreError: It is no standing.
        """
        try:
            return TypeAdapter(cls).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            raise StoreError(
                f"the stored state of an alarm is damaged: {first['msg']}",
                where=".".join(str(part) for part in first["loc"]),
                cure="let the alarm start anew; it is raised again while its condition is true",
            ) from None


def alarm_fields(alarm: AlarmSpec, standing: Standing, now_ms: int) -> dict[str, str | int | float | bool]:
    """The fields of `alarm/<key>`, but for those that every payload has.

    Args:
        alarm: The alarm.
        standing: How it stands.
        now_ms: UTC in milliseconds since 1970; the end of the time on the shelf follows the clock as it is now.
    """
    is_shelved = standing.state is AlarmState.SHELVED
    return {
        "alarm": alarm.key,
        "state": standing.state.value,
        "active": standing.active,
        "acked": standing.state not in TO_ACK,
        "latched": standing.state in (AlarmState.LATCH_UNACK, AlarmState.LATCH_ACKED),
        "shelved": is_shelved,
        "suppressed": standing.state is AlarmState.SUPPRESSED,
        "out_of_service": standing.state is AlarmState.OUT_OF_SERVICE,
        "priority": alarm.priority,
        "severity": alarm.severity,
        "value": standing.value,
        "limit": alarm.limit,
        "deadband": alarm.deadband,
        "unit": alarm.unit,
        "raised_ms": standing.raised_ms,
        "acked_ms": standing.acked_ms,
        "cleared_ms": standing.cleared_ms,
        "shelved_until_ms": now_ms + round(standing.shelved_s * 1000) if is_shelved else 0,
        "acked_by": standing.acked_by,
        "occurrence": standing.occurrence,
        "chattering": standing.chattering,
        "message": alarm.message,
        "operator_action": alarm.operator_action,
    }


def passed_s(since_s: float | None, now_s: float) -> float:
    """Time between two readings of the monotonic clock; after a reboot, at least the time since the boot.

    Args:
        since_s: The earlier one in seconds; `None` = there is none.
        now_s: The later one in seconds.
    """
    if since_s is None:
        return 0.0
    return now_s - since_s if now_s >= since_s else now_s
