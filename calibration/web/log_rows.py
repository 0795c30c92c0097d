"""The log, who changed what and why: the audit, and the records from before there was one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kenpin import audit, ledger
from kenpin.cell import plain_table
from kenpin.errors import KenpinError, StoreError
from kenpin.events import rfc3339
from kenpin.ledger import Line
from kenpin.record import CalibrationRecord, load_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_public_key

COLUMNS = ("time", "who", "what", "was", "now", "why")


@dataclass(frozen=True)
class LogRow:
    """One change.

    Attributes:
        ts_ms: UTC, milliseconds since 1970; 0 = not known.
        who: Who did it.
        what: What was changed; empty where the row is damaged.
        was: What it was before.
        now: What it is now.
        why: The reason.
        number: Of the row of the audit; 0 = a record from before there was one.
        is_doubted: Whether it cannot be believed: it, or one before it, was altered, removed or inserted.
    """

    ts_ms: int
    who: str
    what: str
    was: str
    now: str
    why: str
    number: int = 0
    is_doubted: bool = False


@dataclass(frozen=True)
class Log:
    """What there is to read.

    Attributes:
        rows: Newest first.
        fault: Why a part of it cannot be believed, in words; empty = all of it verifies.
        doubted: How many rows of the audit cannot be believed.
        last: The newest row of the audit that can be believed; `None` where none can, or all.
    """

    rows: Sequence[LogRow]
    fault: str = ""
    doubted: int = 0
    last: LogRow | None = None


def read_log(folder: StationFolder) -> Log:
    """All changes, verified; the station's hourly signs of life are left out."""
    is_new = not (folder.public_key.exists() or folder.key.exists())
    if is_new and not audit.audit_file(folder).exists():
        return Log(())  # nothing was ever signed here
    key: PublicKey | None = None
    records: Sequence[CalibrationRecord] = ()
    faults = []
    try:
        key = station_public_key(folder)
        records = load_records(folder.records, key)
    except KenpinError as error:
        faults.append(str(error))
    audited, fault = _audited(folder, key)
    faults += [fault] if fault and fault not in faults else []
    # The audit names each record that was made since there is an audit.
    named = {row.now.partition(",")[0] for row in audited if row.what == "thresholds"}
    rows = [_of_record(record) for record in records if f"record {record.rev}" not in named]
    # In the order of the file: a clock that was set back must not hide the newest change behind older ones.
    rows += [row for row in audited if row.what != audit.CHECKPOINT]
    doubted = sum(row.is_doubted for row in audited)
    last = next((row for row in reversed(audited) if not row.is_doubted), None) if doubted else None
    return Log(rows[::-1], "\n".join(faults), doubted, last)


def to_csv(log: Log, *, separator: str) -> str:
    """The log for a spreadsheet, which must not take what somebody typed for a formula.

    A file is read without the page: what cannot be believed is said in its first row, and in each such row.

    Args:
        log: The log.
        separator: Between cells.
    """
    rows = [COLUMNS]
    if log.fault:
        rows.append(("", "", "NOT VERIFIED", "", log.fault, ""))
    for row in log.rows:
        what = row.what or f"row {row.number} is damaged"
        what = f"NOT VERIFIED: {what}" if row.is_doubted else what
        rows.append((rfc3339(row.ts_ms) if row.ts_ms else "", row.who, what, row.was, row.now, row.why))
    return plain_table(rows, separator=separator)


def _audited(folder: StationFolder, key: PublicKey | None) -> tuple[Sequence[LogRow], str]:
    """The audit, oldest first, and why not all of it can be believed."""
    path = audit.audit_file(folder)
    fault = "the station's public key is gone or damaged: nothing can be verified" if key is None else ""
    lines: Sequence[Line] = ()
    try:
        lines = ledger.read_lines(path)
        if key is not None:
            ledger.check(path, lines, key)
    except StoreError as error:
        fault = fault or str(error)
    good = _believed(lines, key)
    return [_of_audit(line, is_doubted=line.number > good) for line in lines], fault


def _believed(lines: Sequence[Line], key: PublicKey | None) -> int:
    """How many rows can be believed: the last one that the station has signed vouches for those before it."""
    good = next((line.number - 1 for line in lines if line.fault), len(lines)) if key is not None else 0
    while key is not None and good and ledger.forged(lines[good - 1], key):
        good -= 1
    return good


def _of_audit(line: Line, *, is_doubted: bool) -> LogRow:
    """A row that cannot be believed may say anything, or nothing."""
    who, what, was, now, why = (str(line.row.get(name, "")) for name in ("by", "what", "old", "new", "why"))
    return LogRow(line.row.get("ts_ms", 0), who, what, was, now, why, line.number, is_doubted)


def _of_record(record: CalibrationRecord) -> LogRow:
    now = f"record {record.rev}, {record.state}, T1 {record.t1:.9g}, T2 {record.t2:.9g}"
    return LogRow(record.created_ms, record.by, "thresholds", "", now, record.why)
