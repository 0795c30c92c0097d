"""The shift check: each master three times, a good part after each showing; what was not seen is held back.

The three showings and the clean part between them are those of metal detectors: the clean part shows that the
station does not merely remember. A failed check puts every part in doubt since the last one that was passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from kenpin.book import open_book
from kenpin.calibration.camera_settings import camera_settings
from kenpin.calibration.masters_book import append_check
from kenpin.cell import plain_table
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.decide import Verdict, judge
from kenpin.edge_runtime.signed_settings import set_otherwise
from kenpin.errors import CalibrationError
from kenpin.events import rfc3339
from kenpin.masters import Check, Expected, Master, Masters, Showing, read_masters
from kenpin.record import CalibrationRecord
from kenpin.station_folder import StationFolder

SHOWINGS = 3
_SHOWN = 6  # of the parts in doubt, at a glance


@dataclass(frozen=True)
class Step:
    """What is to be shown next.

    Attributes:
        master: The master; `None` = a good part.
        words: The same for the person who shows it.
    """

    master: Master | None
    words: str


@dataclass(frozen=True)
class Seen:
    """A part that the station has judged.

    Attributes:
        seq: Its number.
        score: Its score; `None` where there is none.
        bundle_sha256: What scored it; empty where nothing did.
    """

    seq: int
    score: float | None
    bundle_sha256: str


@dataclass(frozen=True)
class Suspect:
    """A part that is in doubt after a failed check.

    Attributes:
        seq: Its number.
        part_id: Its identity.
        ts_ms: UTC of its exposure, milliseconds since 1970.
        verdict: What was said of it.
        released: Whether the line was told that it is good.
    """

    seq: int
    part_id: str
    ts_ms: int
    verdict: str
    released: bool


@dataclass(frozen=True)
class Suspects:
    """Every part between the last check that was passed, or the first part of all, and a failed one.

    Numbers without a record stand there too: such parts are in a database of before, or were too old to be
    kept. All are read each time that they are gone through, and none is kept: those of a day on a fast line
    take more memory than the page has.

    Attributes:
        folder: The station's folder.
        last_passed: The check before; `None` = there was none.
        failed: The failed check.
    """

    folder: StationFolder
    last_passed: Check | None
    failed: Check

    def __iter__(self) -> Iterator[Suspect]:
        return _suspects(self.folder, self.last_passed, self.failed)


@dataclass(frozen=True)
class Doubt:
    """How many parts are in doubt.

    Attributes:
        parts: Their number.
        released: How many of them were released.
        last: The newest ones.
    """

    parts: int
    released: int
    last: Sequence[Suspect]


@dataclass(frozen=True)
class Result:
    """What came of a check.

    Attributes:
        check: As it was written down.
        suspects: Every part since the last check that was passed, where this one was not; read anew each time.
    """

    check: Check
    suspects: Iterable[Suspect]


def steps(masters: Masters) -> list[Step]:
    """What is to be shown, in order."""
    plan = []
    for name in sorted(masters.registered):
        master = masters.registered[name]
        for time_no in range(1, SHOWINGS + 1):
            plan.append(Step(master, f"show master {name} ({master.type}), {time_no} of {SHOWINGS}"))
            plan.append(Step(None, "show a good part"))
    return plan


def check_masters(folder: StationFolder, next_seen: Callable[[Step], Seen], *, by: str) -> Result:
    """Have every master shown, judge by the thresholds in force, and write the result down.

    Parts are judged by their score, so that a station that may release nothing can be checked as well. A check
    that is broken off after something was judged wrongly has failed: nobody tries until it fits.

    Args:
        folder: The station's folder.
        next_seen: Asks for what is to be shown and returns what the station saw.
        by: Who shows the parts.

    Raises:
        CalibrationError: There are no masters, the active bundle has no thresholds, or the cameras are not set
            as at the sign-off.
        SourceError: No part came.
        StoreError: A ledger cannot be read or written.
    """
    masters = read_masters(folder)
    if not masters.registered:
        raise CalibrationError(
            f"no master of {masters.product} is registered" if masters.product else "no master is registered",
            where=folder.root,
            cure="kenpin masters add ID --type TYPE --picture FILE",
        )
    record = open_book(folder).newest(folder.installed().name)
    require_settings(folder, record)
    showings: list[Showing] = []
    try:
        for step in steps(masters):
            showings.append(showing_of(step, next_seen(step), record))
    except BaseException:
        write_broken_off(folder, check_of(showings, record, masters.product), by=by)
        raise
    check = check_of(showings, record, masters.product)
    if check.passed:
        require_settings(folder, record)
    append_check(folder, check, by=by)
    return Result(check, () if check.passed else Suspects(folder, masters.last_passed, check))


def require_settings(folder: StationFolder, record: CalibrationRecord) -> None:
    """What is seen with other settings says nothing of the parts that are released when they are set back.

    Args:
        folder: The station's folder.
        record: The calibration in force.

    Raises:
        CalibrationError: A camera is not set as at the sign-off, or nobody tells how it is set.
    """
    if changed := set_otherwise(record, camera_settings(folder)):
        raise CalibrationError(
            "the masters cannot be checked: " + changed.partition(";")[0],
            where=folder.root,
            cure="set the camera back while the station runs, and show them anew",
        )


def write_broken_off(folder: StationFolder, so_far: Check, *, by: str) -> None:
    """Write a check that did not come to its end down as failed, where anything was judged wrongly by then.

    Args:
        folder: The station's folder.
        so_far: What was shown.
        by: Who showed the parts.

    Raises:
        StoreError: A ledger cannot be written.
    """
    if not so_far.passed:
        append_check(folder, so_far, by=by)


def check_of(showings: Sequence[Showing], record: CalibrationRecord, product: str) -> Check:
    """What came of these showings.

    Args:
        showings: What was shown.
        record: The calibration in force.
        product: Whose masters were shown.
    """
    return Check(
        passed=all(s.is_right for s in showings),
        bundle_sha256=record.bundle_sha256,
        t1=record.t1,
        t2=record.t2,
        showings=tuple(showings),
        product=product,
    )


def _suspects(folder: StationFolder, last_passed: Check | None, failed: Check) -> Iterator[Suspect]:
    after = max((s.seq for s in last_passed.showings), default=0) if last_passed else 0
    before = min(s.seq for s in failed.showings)
    since_ms = last_passed.ts_ms if last_passed else 0
    if before <= after:  # a database from before it was put back, with its numbers
        yield _without_record(after + 1, "?", since_ms)
        yield from _parts(folder, "ts_ms > ? AND seq < ?", since_ms, before)
        return
    for part in _parts(folder, "seq > ? AND seq < ?", after, before):
        if part.seq > after + 1:
            yield _without_record(after + 1, part.seq - 1, since_ms)
        after = part.seq
        yield part
    if before > after + 1:
        yield _without_record(after + 1, before - 1, since_ms)


def _parts(folder: StationFolder, which: str, *values: int) -> Iterator[Suspect]:
    sql = f"SELECT seq, part_id, ts_ms, verdict, released FROM part WHERE {which} ORDER BY seq"  # noqa: S608 our own
    with reading(folder.database) as connection:
        for seq, part_id, ts_ms, verdict, released in connection.execute(sql, values):
            yield Suspect(seq, part_id, ts_ms, verdict, bool(released))


def _without_record(first: int, last: int | str, ts_ms: int) -> Suspect:
    return Suspect(first, f"{first} to {last}: no record", ts_ms, Verdict.NO_DECISION.value, released=False)


def doubt_of(suspects: Iterable[Suspect]) -> Doubt:
    """How many there are, and the newest of them; only these are kept in memory."""
    parts = released = 0
    last: deque[Suspect] = deque(maxlen=_SHOWN)
    for suspect in suspects:
        parts += 1
        released += suspect.released
        last.append(suspect)
    return Doubt(parts, released, tuple(last))


def suspects_csv(suspects: Iterable[Suspect], *, separator: str = ",") -> str:
    """Parts in doubt for a spreadsheet, which must not take an identity for a formula.

    Args:
        suspects: The parts.
        separator: Between cells.
    """
    head = ("seq", "part_id", "time", "verdict", "released")
    rows = ((s.seq, s.part_id, rfc3339(s.ts_ms), s.verdict, s.released) for s in suspects)
    return plain_table(chain([head], rows), separator=separator)


def showing_of(step: Step, seen: Seen, record: CalibrationRecord) -> Showing:
    """What came of one showing, by the score and the thresholds in force.

    Args:
        step: What was to be shown.
        seen: What the station saw.
        record: The calibration in force.
    """
    expected: Expected = step.master.expected if step.master else "OK"
    return Showing(
        master=step.master.id if step.master else "",
        expected=expected,
        verdict=_judged(seen, record).value,  # type: ignore[arg-type] # never MISSED
        seq=seen.seq,
        score=seen.score,
    )


def _judged(seen: Seen, record: CalibrationRecord) -> Verdict:
    if seen.score is None or seen.bundle_sha256 != record.bundle_sha256:
        return Verdict.NO_DECISION
    return judge(seen.score, record.t1, record.t2)
