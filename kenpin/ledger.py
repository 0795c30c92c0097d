"""A ledger: a file of rows that are only appended, each chained to the one before it and signed by the station.

Each row names the SHA-256 of the line before it, so one genuine signature vouches for all rows before it. What
a ledger cannot show by itself is that its end was cut off; for that its head must be known elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kenpin.canonical_json import canonical_json
from kenpin.errors import BundleError, StoreError
from kenpin.events import now_ms
from kenpin.line_file import append_line, ending, whole_lines
from kenpin.signing import PublicKey, SecretKey, verify

_LAST_MS = 253_370_764_799_999  # the end of the year 9998: the next one cannot be told in every time zone


@dataclass(frozen=True)
class Head:
    """The newest row: whoever knows it can tell whether it, or any row before it, was altered or cut off.

    Attributes:
        seq: Its number, from 1; 0 = no row.
        sha256: Of its line; empty = no row.
        ts_ms: UTC when it was written, milliseconds since 1970; 0 = not known.
    """

    seq: int = 0
    sha256: str = ""
    ts_ms: int = 0


@dataclass(frozen=True)
class Line:
    """One line of the file, as it was found.

    Attributes:
        number: From 1.
        sha256: Of the line.
        row: What it says; empty where the line is damaged.
        signature: Of the row.
        fault: Why it is not the row that was appended there, in words; empty = none found. The signature is
            not part of this.
        end: Where the next line begins in the file, in bytes.
    """

    number: int
    sha256: str
    row: Mapping[str, Any]
    signature: str
    fault: str
    end: int


def append_row(path: Path, said: Mapping[str, Any], key: SecretKey) -> Head:
    """Sign a row and append it; it is on disk when this returns. Any process may do so at any time.

    A row that a power cut left unfinished was never acknowledged: it is taken off, and `torn_bytes` of the new
    row says so.

    Args:
        path: The file; its folder exists.
        said: What the row says. `seq`, `ts_ms`, `torn_bytes` and `previous_sha256` are added.
        key: The station's key.

    Raises:
        StoreError: It cannot be written, or the file ends in a damaged row.
    """
    with _writing(path), path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest, torn = _ending(path)
        row = {**said, "seq": newest.seq + 1, "ts_ms": now_ms()}
        row |= {"torn_bytes": torn, "previous_sha256": newest.sha256}
        signature = key.sign(canonical_json(row), comment=f"{path.stem} row {row['seq']}")
        line = canonical_json({"row": row, "signature": signature})
        append_line(path, line)
        return Head(row["seq"], hashlib.sha256(line).hexdigest(), row["ts_ms"])


def head(path: Path) -> Head:
    """The newest row of a ledger; without a file there is none.

    Raises:
        StoreError: It cannot be read, or ends in a damaged row.
    """
    with _writing(path):
        return _ending(path)[0]


def lines_of(path: Path, *, after: Line | None = None) -> Iterator[Line]:
    """Every whole line, with what is wrong with it or with its place; not an unfinished one at the end.

    Args:
        path: The file; a missing one has no line.
        after: A line that was read before: only those behind it. A year of rows takes a second to read.
    """
    previous, number, end = (after.sha256, after.number, after.end) if after is not None else ("", 0, 0)
    for text in whole_lines(path, start=end):
        number, end = number + 1, end + len(text) + 1
        row, signature = _parse(text)
        fault = ""
        if not row:
            fault = "is damaged"
        elif row["seq"] != number or row["previous_sha256"] != previous:
            fault = "does not follow the row before it: one was altered, removed or inserted"
        previous = hashlib.sha256(text).hexdigest()
        yield Line(number, previous, row, signature, fault, end)


def read_rows(path: Path, key: PublicKey) -> list[Mapping[str, Any]]:
    """All rows, oldest first, verified by the chain and the newest signature.

    Args:
        path: The file; a missing one holds no row.
        key: The station's public key.

    Raises:
        StoreError: A row is not the one that was appended; it is named.
    """
    lines = read_lines(path)
    check(path, lines, key)
    return [line.row for line in lines]


def read_lines(path: Path) -> list[Line]:
    """All that `lines_of` finds.

    Raises:
        StoreError: The file cannot be read.
    """
    with _writing(path):
        return list(lines_of(path))


def check(path: Path, lines: Sequence[Line], key: PublicKey) -> None:
    """Verify lines by the chain and the newest signature.

    Raises:
        StoreError: A row is not the one that was appended; it is named.
    """
    fault = next((line for line in lines if line.fault), None)
    if fault is not None:
        raise _damaged(path, fault.number, fault.fault)
    if lines and (why := forged(lines[-1], key)):
        raise _damaged(path, lines[-1].number, why)


def forged(line: Line, key: PublicKey) -> str:
    """Why the station did not sign this row, in words; empty if it did."""
    try:
        verify(canonical_json(line.row), line.signature, [key], where=line.number)
    except BundleError as error:
        return f"is not signed by this station: {error.what}"
    return ""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the station's ledger cannot be read or written: {error.strerror}",
            where=error.filename or path,
            cure="make room, or work as the user that owns the station's folder",
        ) from None


def _damaged(path: Path, number: int, why: str) -> StoreError:
    return StoreError(
        f"row {number} of {path.name} {why}",
        where=f"{path}, line {number}",
        cure="find out who changed it; move the file away, keep it as evidence, and start a new one",
    )


def _ending(path: Path) -> tuple[Head, int]:
    """The newest row, and the size of an unfinished one behind it."""
    newest, torn = ending(path)
    if newest is None:
        return Head(), torn
    row, _ = _parse(newest)
    if not row:
        raise _damaged(path, path.read_bytes().count(b"\n"), "is damaged")
    return Head(row["seq"], hashlib.sha256(newest).hexdigest(), row["ts_ms"]), torn


def _parse(text: bytes) -> tuple[dict[str, Any], str]:
    """Row and signature, or an empty row. Only the one way in which we write it counts."""
    try:
        line = json.loads(text)
        row, signature = line["row"], line["signature"]
        genuine = canonical_json({"row": row, "signature": signature}) == text
        ok = (
            genuine
            and isinstance(row["seq"], int)
            and isinstance(row["ts_ms"], int)
            and 0 <= row["ts_ms"] <= _LAST_MS
            and "previous_sha256" in row
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}, ""
    return (row, str(signature)) if ok else ({}, "")
