"""What the Shift check page shows: how the masters stand, and how far a check has come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kenpin.calibration.masters_check import SHOWINGS, Step, Suspect, Suspects, showing_of, steps
from kenpin.calibration.web.shift_run import ShiftRun, plan_of, shown_parts
from kenpin.events import now_ms
from kenpin.masters import Master, Masters, Showing, read_masters
from kenpin.masters_due import Due, read_demand
from kenpin.record import record_in_force
from kenpin.station_folder import StationFolder

_ROWS = 11


@dataclass(frozen=True)
class Row:
    """The showings of one master; `None` = to come.

    Attributes:
        master: The master.
        showings: The master and a good part, in turn.
    """

    master: Master
    showings: Sequence[Showing | None]


@dataclass(frozen=True)
class Progress:
    """How far a check has come.

    Attributes:
        step: What is to be shown now; `None` = all was shown.
        number: The how-manieth showing of its master this is, from 1.
        showings: What was shown, in order.
        total: How many are to be shown.
        wrong: How many of those shown were not judged as expected.
        rows: Masters around the one that is shown now.
        is_void: Whether the masters were changed since the check began.
    """

    step: Step | None
    number: int
    showings: Sequence[Showing]
    total: int
    wrong: int
    rows: Sequence[Row]
    is_void: bool

    @property
    def shown(self) -> int:
        """How many parts were shown."""
        return len(self.showings)

    @property
    def last(self) -> Showing | None:
        """The last one that was shown."""
        return self.showings[-1] if self.showings else None


@dataclass(frozen=True)
class Standing:
    """How the masters stand.

    Attributes:
        masters: What is registered, and the last checks.
        due: Why they must be shown; `None` = they need not.
        suspects: Every part since the last check that was passed, where the last one was not; read anew each
            time.
    """

    masters: Masters
    due: Due | None
    suspects: Iterable[Suspect]


def read_standing(folder: StationFolder) -> Standing:
    """How the masters stand.

    Raises:
        StoreError: The ledger or the database cannot be read.
        ConfigError: The station's public key cannot be read.
    """
    masters = read_masters(folder)
    failed = masters.last if masters.last and not masters.last.passed else None
    suspects = Suspects(folder, masters.last_passed, failed) if failed else ()
    return Standing(masters, read_demand(folder).why(now_ms()), suspects)


def read_progress(folder: StationFolder, run: ShiftRun) -> Progress:
    """How far a check has come.

    Args:
        folder: The station's folder.
        run: The check.

    Raises:
        StoreError: The ledger or the database cannot be read.
        CalibrationError: The records do not verify.
    """
    masters = read_masters(folder)
    plan = steps(masters)
    record = record_in_force(folder)
    seen = shown_parts(folder.database, run, limit=len(plan))
    done = [showing_of(step, part, record) for step, part in zip(plan, seen, strict=False)] if record else []
    number = len(done) % (2 * SHOWINGS) // 2 + 1
    return Progress(
        step=plan[len(done)] if len(done) < len(plan) else None,
        number=number,
        showings=done,
        total=len(plan),
        wrong=sum(not showing.is_right for showing in done),
        rows=_rows(plan, done),
        is_void=plan_of(masters) != run.plan,
    )


def _rows(plan: Sequence[Step], done: Sequence[Showing]) -> Sequence[Row]:
    each = 2 * SHOWINGS
    padded = [*done, *[None] * (len(plan) - len(done))]
    rows = [
        Row(step.master, padded[k : k + each])
        for k, step in enumerate(plan)
        if k % each == 0 and step.master is not None
    ]
    first = max(0, min(len(done) // each - _ROWS // 2, len(rows) - _ROWS))
    return rows[first : first + _ROWS]
