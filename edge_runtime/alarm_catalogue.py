"""The alarms of a station: a fixed list. Each is a condition that an operator must act on, by ISA-18.2.

A part judged NG is an event and no alarm. Limits are upper limits; a condition that is there or not has the
value 1.0 or 0.0. A station that wants another limit replaces it with `dataclasses.replace`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kenpin.errors import ConfigError

LONGEST_SHELVE_MIN = 480  # one shift


@dataclass(frozen=True, kw_only=True)
class AlarmSpec:
    """What one alarm watches and what it asks of the operator.

    Attributes:
        key: Its name in topics.
        unit: Of value, limit and deadband; `bool` for a condition, `1` for a share.
        limit: The condition is true from this value on.
        deadband: It is false again below limit - deadband.
        of_last: (m, n): true when m of the last n values are; for what is told once per part.
        on_delay_s: It has to be true for so long before the alarm is raised.
        off_delay_s: It has to be false for so long before the alarm returns.
        latching: Whether the alarm stays, after the condition is gone, until it is reset.
        priority: 0 diagnostic, 1 low, 2 medium, 3 high, 4 critical: the numbers of Ignition.
        severity: 1 to 1000, the scale of OPC UA.
        max_shelve_min: Longest time on the shelf in minutes; 0 = it must not be shelved.
        message: What is wrong.
        operator_action: What to do about it. ISA-18.2: what asks for no response is no alarm.

    Raises:
        ConfigError: The attributes contradict each other.
    """

    key: str
    unit: str = "bool"
    limit: float = 1.0
    deadband: float = 0.0
    of_last: tuple[int, int] = (1, 1)
    on_delay_s: float = 0.0
    off_delay_s: float = 0.0
    latching: bool = False
    priority: int
    severity: int
    max_shelve_min: int = LONGEST_SHELVE_MIN
    message: str
    operator_action: str

    def __post_init__(self) -> None:
        m, n = self.of_last
        wrong = {
            "of_last wants 1 <= m <= n": not 1 <= m <= n,
            "deadband and delays cannot be negative": min(self.deadband, self.on_delay_s, self.off_delay_s) < 0,
            "on_delay_s and of_last exclude each other": self.on_delay_s > 0 and n > 1,
            "max_shelve_min is 0 to 480": not 0 <= self.max_shelve_min <= LONGEST_SHELVE_MIN,
            "priority is 0 to 4": not 0 <= self.priority <= 4,
            "severity is 1 to 1000": not 1 <= self.severity <= 1000,
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise ConfigError(what, where=f"alarm {self.key}", cure="correct the alarm's attributes")

    def is_over(self, value: float, *, was_over: bool) -> bool:
        """Whether a value is too high.

        Args:
            value: In `unit`.
            was_over: Whether the value before was; the deadband is for leaving only.
        """
        return value >= self.limit - (self.deadband if was_over else 0.0)


CATALOGUE: tuple[AlarmSpec, ...] = (
    AlarmSpec(
        key="ng_rate",
        unit="1",
        limit=0.05,
        deadband=0.01,
        on_delay_s=10.0,
        off_delay_s=60.0,
        priority=2,
        severity=500,
        message="The share of NG among the last parts is too high",
        operator_action="Look at the last NG parts; correct the process, for false calls call the technician",
    ),
    AlarmSpec(
        key="ng_consecutive",
        unit="parts",
        limit=5.0,
        off_delay_s=10.0,
        latching=True,  # one good part would end it, and the run of bad ones would be forgotten
        priority=3,
        severity=700,
        max_shelve_min=60,
        message="Several parts in a row are NG",
        operator_action="Stop the feed, set the run of parts aside, find the cause, then reset",
    ),
    AlarmSpec(
        key="camera_lost",
        on_delay_s=2.0,
        off_delay_s=5.0,
        priority=3,
        severity=750,
        max_shelve_min=60,
        message="A camera delivers no pictures; no part is released",
        operator_action="Check the camera's cable and power; keep parts back until it is there again",
    ),
    AlarmSpec(
        key="line_lost",
        on_delay_s=5.0,  # a PLC that was switched on with the station
        off_delay_s=5.0,
        priority=3,
        severity=740,
        max_shelve_min=60,
        message="The line cannot be heard, or be told of results; no part is released",
        operator_action="Check power and cable of the PLC, or what status names; keep parts back",
    ),
    AlarmSpec(
        key="image_quality",
        of_last=(3, 10),  # one bad picture is a part with NO_DECISION, not a dirty lens
        off_delay_s=30.0,
        priority=2,
        severity=550,
        max_shelve_min=60,
        message="Pictures are dark, blurred or frozen, or show no part",
        operator_action="Check where parts lie, light, lens and focus; clean the window",
    ),
    AlarmSpec(
        key="score_drift",
        unit="1",
        limit=0.25,  # population stability index; above it a shift is usually called significant
        deadband=0.05,
        on_delay_s=60.0,
        off_delay_s=300.0,
        priority=1,
        severity=300,
        message="The scores of parts have moved away from those of the calibration",
        operator_action="Show the masters; call the technician to calibrate again where one is judged wrongly",
    ),
    AlarmSpec(
        key="inference_slow",
        unit="1",
        limit=1.0,  # decision time / time allowed
        deadband=0.1,
        of_last=(5, 20),
        off_delay_s=60.0,
        priority=1,
        severity=300,
        message="Decisions come too late and parts are not released",
        operator_action="Slow the line down; check power mode and fan of the station",
    ),
    AlarmSpec(
        key="engine_integrity",
        latching=True,  # whoever resets it has looked into it
        priority=4,
        severity=950,
        max_shelve_min=0,
        message="The engine or its bundle is damaged or was altered; no part is released",
        operator_action="Keep parts back; call the technician to install the signed bundle again, then reset",
    ),
    AlarmSpec(
        key="gpu_thermal",
        unit="degC",
        limit=90.0,
        deadband=5.0,
        on_delay_s=30.0,
        off_delay_s=60.0,
        priority=1,
        severity=350,
        message="The station is too hot and will slow down",
        operator_action="Check fan, filter and cabinet",
    ),
    AlarmSpec(
        key="disk_low",
        unit="1",
        limit=0.8,  # of the disk in use
        deadband=0.05,
        on_delay_s=30.0,
        off_delay_s=30.0,
        priority=1,
        severity=350,
        message="The station's disk is nearly full; when it is full no part is released",
        operator_action="Copy evidence pictures away, or have the technician lower their quota",
    ),
    AlarmSpec(
        key="outbox_pressure",
        unit="1",
        limit=0.8,  # of the outbox in use
        deadband=0.1,
        on_delay_s=10.0,
        off_delay_s=60.0,
        priority=1,
        severity=350,
        message="Events wait for the broker and will soon be dropped",
        operator_action="Restore network and broker",
    ),
    AlarmSpec(
        key="clock_unsynced",
        on_delay_s=300.0,  # after a start the clock takes a while to be set
        off_delay_s=30.0,
        priority=1,
        severity=200,
        message="The station's clock is not synchronised; times of events cannot be trusted",
        operator_action="Restore the network to the time server",
    ),
    AlarmSpec(
        key="calibration_expired",
        priority=2,
        severity=450,
        message="A camera is set otherwise than when it was calibrated; no part is released",
        operator_action="Keep parts back; call the technician to set it back or to calibrate again",
    ),
    AlarmSpec(
        key="masters_due",
        priority=2,
        severity=440,
        max_shelve_min=60,
        message="The shift check is due, or was not passed; no part is released",
        operator_action="Show the masters; keep parts back until they are judged as they should be",
    ),
    AlarmSpec(
        key="model_unapproved",
        priority=2,
        severity=600,
        max_shelve_min=60,
        message="There is no model, or no thresholds are signed for it; no part is released",
        operator_action="Keep parts back; call the technician to sign thresholds or go back to the last model",
    ),
    AlarmSpec(
        key="comms_unstable",
        unit="drops",
        limit=3.0,  # connections in a row that lived less than 10 s
        off_delay_s=60.0,
        priority=1,
        severity=250,
        message="The broker drops the connection again and again",
        operator_action="Check the network; check that no station was cloned and uses this one's id",
    ),
    AlarmSpec(
        key="comms_denied",
        on_delay_s=10.0,  # a broker that has just started may not know its users yet
        off_delay_s=60.0,
        priority=2,
        severity=400,
        message="The broker refuses the station or some of its messages, or has no valid certificate",
        operator_action="Call the technician to mend login, certificate or permissions; alerts wait here",
    ),
)
