"""The outbox: events that wait for the broker, first in, first out, on disk.

An acknowledgement of the broker does not make an event durable (brokers keep messages in memory, and drop
them beyond a limit), so acknowledged events stay for a while and can be read again by their number.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kenpin.edge_runtime.database import explained, transaction
from kenpin.events import now_ms

DEFAULT_MAX_BYTES = 256 << 20
KEEP_ACKED_MS = 7 * 24 * 3600 * 1000
# What SQLite needs for a row beside its text, measured: pages are not full, the indexes take their share.
_ROW_BYTES = 160


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        seq: Its number, never reused.
        topic: Below the station's prefix.
        body: JSON without the number, as it was committed.
        acked_ms: UTC when the broker acknowledged it; `None` while it waits.
    """

    seq: int
    topic: str
    body: str
    acked_ms: int | None

    def payload(self, **changes: object) -> dict[str, Any]:
        """The event as it is published: its number and what is known only when it is sent are filled in."""
        return {**json.loads(self.body), "seq": self.seq, **changes}


@dataclass(frozen=True)
class Depth:
    """How full the outbox is.

    Attributes:
        waiting: Number of events not yet acknowledged.
        bytes: Size of all events, acknowledged ones as well.
        oldest_s: Age of the oldest one that waits.
        dropped: Events that were evicted before they were acknowledged, ever.
    """

    waiting: int
    bytes: int
    oldest_s: float
    dropped: int


class Outbox:
    """The events of one database, through one connection.

    Args:
        connection: From `kenpin.edge_runtime.database`; its thread must be the only one to use it.
        max_bytes: Above this size the oldest events go, acknowledged ones first; what goes unacknowledged is
            counted.
    """

    def __init__(self, connection: sqlite3.Connection, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._connection = connection
        self._max_bytes = max_bytes

    def append(self, topic: str, body: str, *, part_seq: int) -> int:
        """Add an event to the caller's transaction and return its number."""
        size = len(topic) + len(body.encode()) + _ROW_BYTES
        self._make_room(size)
        cursor = self._connection.execute(
            "INSERT INTO outbox (part_seq, created_ms, topic, body, bytes) VALUES (?, ?, ?, ?, ?)",
            (part_seq, now_ms(), topic, body, size),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def waiting(self, *, after: int, limit: int) -> list[Entry]:
        """The oldest events not yet acknowledged whose number is above `after`.

        Raises:
            StoreError: The database cannot be read.
        """
        return self._read("acked_ms IS NULL AND seq > ? ORDER BY seq LIMIT ?", after, limit)

    def replay(self, *, since: int, limit: int) -> list[Entry]:
        """All events from a number on, acknowledged or not.

        Raises:
            StoreError: The database cannot be read.
        """
        return self._read("seq >= ? ORDER BY seq LIMIT ?", since, limit)

    def mark_acked(self, seqs: Iterable[int]) -> None:
        """Note that the broker has them.

        Raises:
            StoreError: The note cannot be written; the events still wait.
        """
        now = now_ms()
        with transaction(self._connection):
            self._connection.executemany(
                "UPDATE outbox SET acked_ms = ? WHERE seq = ? AND acked_ms IS NULL", [(now, s) for s in seqs]
            )

    def prune(self) -> None:
        """Remove events that were acknowledged more than seven days ago."""
        with transaction(self._connection):
            self._connection.execute("DELETE FROM outbox WHERE acked_ms < ?", (now_ms() - KEEP_ACKED_MS,))

    def newest(self) -> int:
        """The last number that was given, 0 before the first."""
        with explained("the station's database"):
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return int(row[0]) if row else 0

    def acked_since(self, ts_ms: int) -> int:
        """Number of events that the broker acknowledged since a moment, UTC in milliseconds since 1970.

        Raises:
            StoreError: The database cannot be read.
        """
        with explained("the station's database"):
            sql = "SELECT count(*) FROM outbox WHERE acked_ms >= ?"
            (count,) = self._connection.execute(sql, (ts_ms,)).fetchone()
        return int(count)

    def depth(self) -> Depth:
        """How full it is.

        Raises:
            StoreError: The database cannot be read.
        """
        execute = self._connection.execute
        with explained("the station's database"):
            waiting, oldest_ms = execute(
                "SELECT count(*), min(created_ms) FROM outbox WHERE acked_ms IS NULL"
            ).fetchone()
            counters = dict(execute("SELECT name, value FROM counter").fetchall())
        oldest_s = max(0.0, (now_ms() - oldest_ms) / 1000) if waiting else 0.0
        return Depth(waiting, counters["outbox_bytes"], oldest_s, counters["outbox_dropped"])

    def _read(self, condition: str, *values: int) -> list[Entry]:
        with explained("the station's database"):
            rows = self._connection.execute(
                f"SELECT seq, topic, body, acked_ms FROM outbox WHERE {condition}",  # noqa: S608 our own text
                values,
            )
            return [Entry(*row) for row in rows]

    def _make_room(self, size: int) -> None:
        while self._bytes() + size > self._max_bytes:
            if self._evict("acked_ms IS NOT NULL"):
                continue
            if not self._evict("acked_ms IS NULL"):
                return
            self._connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'outbox_dropped'")

    def _evict(self, condition: str) -> bool:
        cursor = self._connection.execute(
            f"DELETE FROM outbox WHERE seq = (SELECT min(seq) FROM outbox WHERE {condition})"  # noqa: S608
        )
        return cursor.rowcount > 0

    def _bytes(self) -> int:
        (used,) = self._connection.execute("SELECT value FROM counter WHERE name = 'outbox_bytes'").fetchone()
        return int(used)
