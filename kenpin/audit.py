"""The audit: who changed what on a station, when, from what to what, and why; chained and signed.

Every row is signed by the station's key, and at least one is written each hour, so that the file also shows for
which hours the station vouches. The chain finds whatever was altered or removed; that the end was cut off, or
that somebody with the key wrote the file anew, is found against a head that was witnessed elsewhere, as the
station publishes it (IEC 62443-4-2 CR 2.8 to 2.12, 3.9 and 6.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kenpin import ledger
from kenpin.answers import changed_answers
from kenpin.errors import CalibrationError, StoreError
from kenpin.events import now_ms
from kenpin.ledger import Head, Line
from kenpin.line_file import ending, whole_lines
from kenpin.masters import masters_file
from kenpin.record import load_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key

_RECORD = re.compile(r"record (\d+),")  # as `kenpin.book` names it
_OF_MASTERS = (
    "masters",
    "masters interval",
    "masters check",
)  # as `kenpin.calibration.masters_book` names them
CHECKPOINT = "checkpoint"
CHECKPOINT_MS = 3_600_000


@dataclass(frozen=True)
class Entry:
    """One change.

    Attributes:
        what: What was changed, in a word or two: `thresholds`, `masters`, `bundle` …
        by: Who did it.
        old: What it was before, in words; empty where there was nothing.
        new: What it is now, in words; empty where it is gone.
        why: Reason in words.
    """

    what: str
    by: str
    old: str = ""
    new: str = ""
    why: str = ""


@dataclass(frozen=True)
class Report:
    """What a check of the audit found.

    Attributes:
        rows: Number of rows.
        head: The newest one.
        findings: What is wrong, one sentence each; empty = nothing was altered, removed or cut off, back to
            the newest witnessed head.
        notes: What is not wrong but should be known.
    """

    rows: int
    head: Head
    findings: tuple[str, ...]
    notes: tuple[str, ...]


def audit_file(folder: StationFolder) -> Path:
    """Where the audit lies: one row per line."""
    return folder.root / "audit.jsonl"


def names_masters(folder: StationFolder) -> bool:
    """Whether a row tells of masters. Nothing is verified, as this is asked while a line runs.

    A file that cannot be read tells nothing: it must not stop a line that has no masters.
    """
    path = audit_file(folder)
    try:
        return path.exists() and any(b'"what":"masters' in line for line in whole_lines(path))
    except OSError:
        return False


def append(folder: StationFolder, entry: Entry) -> Head:
    """Write a change down, before it is made: it is on disk when this returns.

    Returns:
        The new head, to be published.

    Raises:
        StoreError: It cannot be written; do not make the change then.
        CalibrationError: The station's key is gone.
        ConfigError: The station's key is damaged, or this is root in another user's folder.
    """
    folder.refuse_root()
    path = audit_file(folder)
    if path.exists() and not folder.key.exists():
        raise StoreError(
            "the station's key is gone, so its audit cannot be continued",
            where=folder.key,
            cure=f"restore it, or move {path} away and keep it as evidence",
        )
    said = {name: one_line(text) for name, text in asdict(entry).items()}
    return ledger.append_row(path, {"schema": "kenpin.audit.v1", **said}, station_key(folder))


def checkpoint(folder: StationFolder, *, by: str) -> Head | None:
    """Let the station vouch for the audit once an hour; call it as often as you like.

    Args:
        folder: The station's folder.
        by: Which program vouches.

    Returns:
        The new head, to be published, or `None` if the newest row is not an hour old.

    Raises:
        StoreError: It cannot be written.
        CalibrationError: The station's key is gone.
        ConfigError: The station's key is damaged.
    """
    # Where the clock was set back, the age is below zero: then it is time as well.
    if 0 <= now_ms() - head(folder).ts_ms < CHECKPOINT_MS:
        return None
    return append(folder, Entry(CHECKPOINT, by))


def head(folder: StationFolder) -> Head:
    """The newest row; publish it, so that a witness off the station knows it.

    Raises:
        StoreError: The audit cannot be read, or its newest row is damaged.
    """
    return ledger.head(audit_file(folder))


def read_audit(folder: StationFolder, key: PublicKey) -> list[Mapping[str, Any]]:
    """All rows, oldest first, verified.

    Args:
        folder: The station's folder.
        key: The station's public key.

    Raises:
        StoreError: A row is damaged, altered or not signed by this station.
    """
    return ledger.read_rows(audit_file(folder), key)


def verify(folder: StationFolder, key: PublicKey, witnessed: Sequence[Head] = ()) -> Report:
    """Look for rows that were altered, removed, inserted or cut off, and for what records rest on.

    Args:
        folder: The station's folder.
        key: The station's public key; better from a copy of your own than from the station.
        witnessed: Heads that were seen elsewhere, as published by the station.

    Raises:
        StoreError: The file cannot be read.
    """
    path = audit_file(folder)
    try:
        lines = list(ledger.lines_of(path))
        _, torn = ending(path)
        records = sum(1 for _ in whole_lines(folder.records))
    except OSError as error:
        raise StoreError(
            f"the audit cannot be read: {error.strerror}", where=path, cure="check the permissions and the disk"
        ) from None
    faults = [(line.number, line.fault or ledger.forged(line, key)) for line in lines]
    findings = [f"row {number} {fault}" for number, fault in faults if fault]
    findings += _against_witnesses([line.sha256 for line in lines], witnessed)
    findings += _of_records(folder, key)
    end = Head()
    if lines:
        end = Head(lines[-1].number, lines[-1].sha256, lines[-1].row.get("ts_ms", 0))
    shown, of_masters = _of_masters(folder, key)
    notes = [*_power_cuts(lines, torn), *_cut_records(lines, records), *_cut_masters(lines, shown)]
    return Report(len(lines), end, (*findings, *of_masters), tuple(notes))


def _of_records(folder: StationFolder, key: PublicKey) -> list[str]:
    """Calibration records that do not verify, or rest on answers of people that were changed since."""
    try:
        records = [record for record in load_records(folder.records, key) if record.answers is not None]
        changed = changed_answers(folder, [r.answers for r in records if r.answers is not None])
    except (CalibrationError, StoreError) as error:
        return [f"{error.what}: {error.where}"]
    return [
        f"answers of the review bench that calibration record {record.rev} rests on were changed or removed"
        for record in records
        if record.answers in changed
    ]


def _of_masters(folder: StationFolder, key: PublicKey) -> tuple[int, list[str]]:
    """How many rows the ledger of masters has, and what is wrong with it."""
    try:
        return len(ledger.read_rows(masters_file(folder), key)), []
    except StoreError as error:
        return sum(1 for _ in whole_lines(masters_file(folder))), [f"{error.what}: {error.where}"]


def _power_cuts(lines: Sequence[Line], torn: int) -> list[str]:
    cut = "as after a power cut"
    found = [
        f"before row {line.number} an unfinished row of {line.row['torn_bytes']} bytes was taken off, {cut}"
        for line in lines
        if line.row.get("torn_bytes")
    ]
    if torn:
        found.append(f"an unfinished row of {torn} bytes stands at the end, {cut}")
    return found


def _cut_records(lines: Sequence[Line], records: int) -> list[str]:
    """A calibration record is named here before it is written: so the end of their file is known here.

    One that was cut off gives its number to the next one, and so is named twice.
    """
    changes = [(line.number, line.row) for line in lines if line.row.get("what") == "thresholds"]
    matches = [(number, _RECORD.match(str(row.get("new")))) for number, row in changes]
    named = [(number, int(found[1])) for number, found in matches if found]
    why = "it was cut off, or a full disk or a power cut kept it from being written"
    rows: dict[int, int] = {}
    notes = []
    for number, record in named:
        if record in rows:
            notes.append(
                f"calibration record {record} of row {rows[record]} was made anew in row {number}: {why}"
            )
        rows[record] = number
    newest = named[-1][1] if named else 0
    if newest > records:
        ends = f"calibration record {newest} stands in the audit, but the file of records ends with {records}"
        notes.append(f"{ends}: {why}; calibrate again")
    return notes


def _cut_masters(lines: Sequence[Line], rows: int) -> list[str]:
    """Each change and check of masters is named here before it is written: so their number is known here."""
    of_masters = [line.row for line in lines if line.row.get("what") in _OF_MASTERS]
    named = sum(not str(row.get("new")).startswith("given up") for row in of_masters)  # that is no row there
    if named <= rows:
        return []
    why = "it was cut off or removed, or a full disk or a power cut kept some from being written"
    return [f"the audit names {named} changes and checks of masters, their file has {rows}: {why}"]


def _against_witnesses(hashes: Sequence[str], witnessed: Sequence[Head]) -> list[str]:
    found = []
    good = 0
    for seen in sorted(witnessed, key=lambda h: h.seq):
        if seen.seq > len(hashes):
            found.append(
                f"the end was cut off: row {seen.seq} was witnessed, but row {len(hashes)} is the last"
            )
        elif seen.seq and hashes[seen.seq - 1] != seen.sha256:
            found.append(f"row {seen.seq} is not the one that was witnessed: a row after {good} was altered")
        else:
            good = seen.seq
    return found


def one_line(text: str) -> str:
    """What a person typed, without line ends and what cannot be stored, as half of a character's bytes."""
    return "".join(c if c.isprintable() else " " for c in text)
