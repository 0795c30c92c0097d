"""The room that events may take on the station's disk, and which of them go when it is used up.

Acknowledged ones go first, then those that can be spared most, the oldest of them first. What goes
unacknowledged is counted and noted, so that subscribers can be told what they miss.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEFAULT_MAX_BYTES = 256 << 20
DEFAULT_MIN_FREE_BYTES = 512 << 20
# So much is always there: without it a disk that others have filled would cost every event that waits.
_SMALL_BYTES = 4 << 20
# Where the disk is short, events go on in pages that older ones leave. A transaction takes a few of them.
_SPARE_PAGES = 8


def _endless() -> int:
    return 1 << 62


@dataclass(frozen=True)
class Gap:
    """Events of one topic that were thrown away unsent.

    Attributes:
        topic: Below the station's prefix.
        first_seq: The lowest of their numbers.
        last_seq: The highest.
        count: How many they are.
    """

    topic: str
    first_seq: int
    last_seq: int
    count: int


@dataclass(frozen=True)
class Room:
    """How much events may take.

    Attributes:
        max_bytes: Size of all events.
        min_free_bytes: Free space on the disk below which the file must not grow for them.
        small_bytes: Size of all events up to which nothing has to go for the disk's sake.
        free_bytes: Tells the free space; default: there is no end of it.
    """

    max_bytes: int = DEFAULT_MAX_BYTES
    min_free_bytes: int = DEFAULT_MIN_FREE_BYTES
    small_bytes: int = _SMALL_BYTES
    free_bytes: Callable[[], int] = _endless

    @classmethod
    def on_disk_of(cls, path: Path) -> Room:
        """The usual room on the disk of a database."""
        return cls(free_bytes=lambda: shutil.disk_usage(path.parent).free)

    def pressure(self, waiting_bytes: int) -> float:
        """Share of the room that waiting events take, 1 where some of them go.

        Args:
            waiting_bytes: Their size.
        """
        is_short = self.free_bytes() < self.min_free_bytes
        return min(1.0, waiting_bytes / (self.small_bytes if is_short else self.max_bytes))

    def make(self, size: int, connection: sqlite3.Connection) -> None:
        """Let events go until there is room for another one, in the caller's transaction.

        Args:
            size: Of the event, in bytes.
            connection: To the database.
        """
        while self._is_short_of(size, connection) and (_forget_sent(connection) or _evict(connection)):
            pass

    def _is_short_of(self, size: int, connection: sqlite3.Connection) -> bool:
        (used,) = connection.execute("SELECT value FROM counter WHERE name = 'outbox_bytes'").fetchone()
        if used + size > self.max_bytes:
            return True
        if used <= self.small_bytes or self.free_bytes() >= self.min_free_bytes:
            return False
        (spare,) = connection.execute("PRAGMA freelist_count").fetchone()
        return int(spare) < _SPARE_PAGES


def _forget_sent(connection: sqlite3.Connection) -> bool:
    oldest = "SELECT seq FROM outbox WHERE acked_ms IS NOT NULL ORDER BY acked_ms, seq LIMIT 1"
    return connection.execute(f"DELETE FROM outbox WHERE seq = ({oldest})").rowcount > 0  # noqa: S608 our own text


def _evict(connection: sqlite3.Connection) -> bool:
    """Evict the event that can be spared most, and note it."""
    sql = "SELECT seq, topic FROM outbox WHERE acked_ms IS NULL ORDER BY prio, seq LIMIT 1"
    spare = connection.execute(sql).fetchone()
    if spare is None:
        return False
    throw_away(connection, *spare)
    return True


def throw_away(connection: sqlite3.Connection, seq: int, topic: str) -> None:
    """Remove an event that nobody has had, and note that it is missing, in the caller's transaction.

    Args:
        connection: To the database.
        seq: Its number.
        topic: Below the station's prefix.
    """
    connection.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
    connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'outbox_dropped'")
    connection.execute(
        "INSERT INTO gap VALUES (?, ?, ?, 1) ON CONFLICT (topic) DO UPDATE SET count = count + 1, "
        "first_seq = min(first_seq, excluded.first_seq), last_seq = max(last_seq, excluded.last_seq)",
        (topic, seq, seq),
    )
