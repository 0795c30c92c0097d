"""The rescue: events that still waited in a damaged database go on waiting in the fresh one.

How far the audit was told comes along: told once more, its rows would be other events, which nobody can know
for doubles.

Usually a page or two of a file are bad, and most of it can be read. What cannot be read stays in that file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kenpin.counted import counted
from kenpin.edge_runtime.audit_mirror import BEGAN, MIRRORED
from kenpin.edge_runtime.database import moved_aside, reading, transaction
from kenpin.edge_runtime.outbox import Entry
from kenpin.errors import StoreError

_RESCUED = "rescued"  # number of the file that was looked at last
_COLUMNS = "seq, created_ms, prio, topic, body, bytes"


def rescue_events(path: Path, connection: sqlite3.Connection) -> str:
    """Bring over what waits in the damaged file that was moved aside last, once.

    Args:
        path: The fresh database.
        connection: To it.

    Returns:
        How many came over, in words; empty where there was no such file to look at.

    Raises:
        StoreError: The fresh one cannot be written; it is tried again with the next start.
    """
    aside = moved_aside(path)
    if not aside or _last(connection) >= (newest := max(aside)):
        return ""
    count = 0
    with transaction(connection):
        for row in _waiting_in(aside[newest]):
            sql = f"INSERT OR IGNORE INTO outbox ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 our own text
            count += connection.execute(sql, row).rowcount
        connection.executemany("INSERT OR IGNORE INTO counter VALUES (?, ?)", _audit_told_in(aside[newest]))
        connection.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (_RESCUED, newest))
    return f"{counted(count, 'event')} that waited in {aside[newest].name}: sent from the fresh one"


def _last(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM counter WHERE name = ?", (_RESCUED,)).fetchone()
    return int(row[0]) if row else 0


def _waiting_in(aside: Path) -> Iterator[tuple[Any, ...]]:
    """From both ends up to where it is bad, past the indexes, which may be."""
    seen = set()
    for order in ("ASC", "DESC"):
        with suppress(StoreError), reading(aside) as damaged:
            sql = f"SELECT {_COLUMNS}, acked_ms FROM outbox NOT INDEXED ORDER BY seq {order}"  # noqa: S608
            for *row, acked_ms in damaged.execute(sql):
                if row[0] in seen:
                    break
                seen.add(row[0])
                if acked_ms is None and _is_event(row):
                    yield tuple(row)


def _audit_told_in(aside: Path) -> list[tuple[str, int]]:
    with suppress(StoreError), reading(aside) as damaged:
        sql = "SELECT name, value FROM counter WHERE name IN (?, ?)"
        return [
            (name, n) for name, n in damaged.execute(sql, (BEGAN, MIRRORED)).fetchall() if isinstance(n, int)
        ]
    return []


def _is_event(row: list[Any]) -> bool:
    """Whether a row is what it was: a bad page can hold anything."""
    seq, created_ms, prio, topic, body, size = row
    if not (all(isinstance(number, int) for number in (created_ms, prio, size)) and isinstance(topic, str)):
        return False
    with suppress(StoreError):
        return bool(Entry(seq, topic, body, None).payload())
    return False
