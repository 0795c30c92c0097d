"""What the Line page tells: how the station is, what it sees, and what it judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kenpin.calibration.review import reviewed_parts
from kenpin.calibration.review_bench import waiting_parts
from kenpin.calibration.web.line_alarms import ACTIVE, ShownAlarm, shown_alarms
from kenpin.calibration.web.line_held import Held, why_held
from kenpin.calibration.web.line_parts import Counted, PartRow, count_parts, last_parts
from kenpin.calibration.web.review_tabs import LIMIT
from kenpin.edge_runtime.vitals import Vitals, read_vitals
from kenpin.errors import KenpinError, StoreError
from kenpin.events import now_ms
from kenpin.masters import Check, read_masters
from kenpin.masters_due import Due, read_demand
from kenpin.record import CalibrationRecord, record_in_force
from kenpin.station_folder import StationFolder

STALE_S = 5.0
_EVERY_S = 5.0
_SHARE = 50

T = TypeVar("T")


class Live(BaseModel):
    """What the station writes beside `live.jpg`; 0 = not known.

    Attributes:
        part_id: Identity of the part in the picture.
        verdict: Its verdict.
        ts_ms: UTC of the exposure, milliseconds since 1970.
        light: Light as a share of that of the sign-off.
        focus: Focus as a share of the least allowed.
        light_abs: Light, 0 to 255.
        light_low: The least light allowed.
        light_high: The most light allowed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    part_id: str = ""
    verdict: str = ""
    ts_ms: int = 0
    light: float = 0.0
    focus: float = 0.0
    light_abs: float = 0.0
    light_low: float = 0.0
    light_high: float = 255.0

    @property
    def light_is_good(self) -> bool:
        """Whether it is as bright as when it was signed off."""
        return self.light_low <= self.light_abs <= self.light_high


@dataclass(frozen=True)
class Facts:
    """What changes seldom, or takes long to find out.

    Attributes:
        record: The calibration in force; `None` = none for this bundle.
        check: The newest check of the masters; `None` = none.
        due: Why the masters must be shown; `None` = they need not.
        counted: Parts of the last hours.
        waiting: How many parts wait on the review bench, `LIMIT` = that many or more.
    """

    record: CalibrationRecord | None = None
    check: Check | None = None
    due: Due | None = None
    counted: Counted = field(default_factory=Counted)
    waiting: int = 0


@dataclass(frozen=True)
class LineState:
    """What the Line page tells.

    Attributes:
        state: How the station is, as in its vitals; STOPPED where it gives no sign of life.
        reason: Why it is not RUNNING, as the station says it.
        held: Why no part is released; `None` = parts are, or nothing is known of it.
        model: What judges, product and version; empty = nothing.
        facts: What changes seldom.
        live: What stands beside the picture.
        parts: The last parts, newest first.
        alarms: What an operator has to act on.
        shelved: How many alarms are set aside.
    """

    state: str
    reason: str
    held: Held | None
    model: str
    facts: Facts
    live: Live
    parts: Sequence[PartRow]
    alarms: Sequence[ShownAlarm]
    shelved: int

    @property
    def newest(self) -> PartRow | None:
        """The last part; `None` where nothing is to be said of it: an old OK must not look like a new one."""
        if not self.parts or self.state in ("STOPPED", "STARTING") or self._is_ok_in_doubt:
            return None
        return self.parts[0]

    @property
    def listed(self) -> Sequence[PartRow]:
        """The last parts; while parts are held back without an OK of which the release is not known."""
        return self.parts[1:] if self._is_ok_in_doubt and not self.parts[0].released else self.parts

    @property
    def _is_ok_in_doubt(self) -> bool:
        """Whether the last part is OK, though parts are held back."""
        return self.held is not None and bool(self.parts) and self.parts[0].verdict == "OK"


class LineReader:
    """Reads how the line is; what is missing or damaged is shown as missing.

    Args:
        folder: The station's folder.
    """

    def __init__(self, folder: StationFolder) -> None:
        self._folder = folder
        self._facts = Facts()
        self._facts_due_s = 0.0

    def read(self) -> LineState:
        """How it is now."""
        vitals, facts = _vitals(self._folder), self._slow()
        database = self._folder.database
        alarms = _or_none(lambda: shown_alarms(database))
        active = [alarm for alarm in alarms if alarm.standing.state in ACTIVE]
        return LineState(
            vitals.state,
            vitals.reason,
            why_held(self._folder, vitals, facts.record, facts.due),
            vitals.texts.get("model", ""),
            facts,
            self._live(),
            _or_none(lambda: last_parts(database)),
            active,
            len(alarms) - len(active),
        )

    def _slow(self) -> Facts:
        """Looked at now and then: of this process, one fiftieth of the time; the processor is the line's."""
        began_s = time.monotonic()
        if began_s >= self._facts_due_s:
            self._facts = _facts(self._folder)
            done_s = time.monotonic()
            self._facts_due_s = done_s + max(_EVERY_S, _SHARE * (done_s - began_s))
        return self._facts

    def _live(self) -> Live:
        try:
            return Live.model_validate_json((self._folder.run / "live.json").read_bytes())
        except (OSError, ValidationError):
            return Live()


def _vitals(folder: StationFolder) -> Vitals:
    """What the station told last; STOPPED where it is silent, whatever it said before."""
    told = read_vitals(folder.run).get("station") or Vitals(role="station", pid=0, state="STOPPED")
    return told.model_copy(update={"state": "STOPPED", "reason": ""}) if told.age_s >= STALE_S else told


def _facts(folder: StationFolder) -> Facts:
    due = read_demand(folder).why(now_ms())
    try:
        record, check = record_in_force(folder), read_masters(folder).last
    except KenpinError as error:
        return Facts(due=due or Due("fault", error.what, {"fault": error.what}))
    try:
        return Facts(record, check, due, count_parts(folder.database), _waiting(folder))
    except StoreError:
        return Facts(record, check, due)


def _waiting(folder: StationFolder) -> int:
    answered = {reviewed.newest.part_seq for reviewed in reviewed_parts(folder)}
    return len(waiting_parts(folder, answered, limit=LIMIT))


def _or_none(read: Callable[[], Sequence[T]]) -> Sequence[T]:
    try:
        return read()
    except StoreError:
        return ()
