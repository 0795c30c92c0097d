"""The log, who changed what and why: the audit, and the records from before there was one."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kenpin import audit
from kenpin.cell import plain_cell
from kenpin.errors import KenpinError
from kenpin.events import rfc3339
from kenpin.record import CalibrationRecord, load_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder

COLUMNS = ("time", "who", "what", "was", "now", "why")

T = TypeVar("T")


@dataclass(frozen=True)
class LogRow:
    """One change.

    Attributes:
        ts_ms: UTC, milliseconds since 1970.
        who: Who did it.
        what: What was changed.
        was: What it was before.
        now: What it is now.
        why: The reason.
    """

    ts_ms: int
    who: str
    what: str
    was: str
    now: str
    why: str


@dataclass(frozen=True)
class Log:
    """What there is to read.

    Attributes:
        rows: Newest first.
        fault: Why a part of it cannot be believed, in words; empty = all of it verifies.
    """

    rows: Sequence[LogRow]
    fault: str = ""


def read_log(folder: StationFolder) -> Log:
    """All changes, verified; the station's hourly signs of life are left out."""
    public = folder.key.with_suffix(".pub")
    if not public.exists():
        return Log(())  # nothing was ever signed here
    try:
        key = PublicKey.load(public)
    except KenpinError as error:
        return Log((), str(error))
    audited, audit_fault = _or_fault(lambda: audit.read_audit(folder, key))
    records, record_fault = _or_fault(lambda: load_records(folder.records, key))
    # The audit names each record that was made since there is an audit.
    named = {row["new"].partition(",")[0] for row in audited if row["what"] == "thresholds"}
    rows = [_of_record(record) for record in records if f"record {record.rev}" not in named]
    # In the order of the file: a clock that was set back must not hide the newest change behind older ones.
    rows += [_of_audit(row) for row in audited if row["what"] != audit.CHECKPOINT]
    return Log(rows[::-1], "\n".join(fault for fault in (audit_fault, record_fault) if fault))


def to_csv(log: Log) -> str:
    """The log for a spreadsheet, which must not take what somebody typed for a formula.

    A file is read without the page: what cannot be believed is said in its first row, too.

    Args:
        log: The log.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    if log.fault:
        writer.writerow(("", "", "NOT VERIFIED", "", plain_cell(log.fault), ""))
    for row in log.rows:
        texts = (rfc3339(row.ts_ms), row.who, row.what, row.was, row.now, row.why)
        writer.writerow(map(plain_cell, texts))
    return out.getvalue()


def _or_fault(read: Callable[[], Sequence[T]]) -> tuple[Sequence[T], str]:
    try:
        return read(), ""
    except KenpinError as error:
        return (), str(error)


def _of_audit(row: Mapping[str, Any]) -> LogRow:
    return LogRow(row["ts_ms"], row["by"], row["what"], row["old"], row["new"], row["why"])


def _of_record(record: CalibrationRecord) -> LogRow:
    now = f"record {record.rev}, {record.state}, T1 {record.t1:.9g}, T2 {record.t2:.9g}"
    return LogRow(record.created_ms, record.by, "thresholds", "", now, record.why)
