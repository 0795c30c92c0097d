"""The outbox: what waits for the broker, on disk: each event, and the latest value of each retained topic.

An acknowledgement of the broker does not make an event durable (brokers keep messages in memory, and drop
them beyond a limit), so acknowledged events stay for a while and can be read again by their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kenpin.edge_runtime.clock import FIRST_MS, clock_is_synchronised
from kenpin.edge_runtime.database import explained, transaction
from kenpin.edge_runtime.room import Gap, Room, throw_away
from kenpin.edge_runtime.stored_body import fill_in, shorten
from kenpin.errors import StoreError
from kenpin.events import CameraLast, Payload, now_ms

KEEP_ACKED_MS = 7 * 24 * 3600 * 1000
NO_END = 2**63 - 1
# What SQLite needs for a row beside its text, measured: pages are not full, the indexes take their share.
_ROW_BYTES = 160
# Removed in one transaction; the line's thread waits for it when it has a part to commit.
_BITE_ROWS, _BITE_PAGES = 500, 256
# When the room is used up, results go first, then anomalies; alarms, audit and replies last.
_PRIORITY = {"event/result": 0, "event/anomaly": 1}
_LAST_PRIORITY = 2


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        seq: Its number, never reused.
        topic: Below the station's prefix.
        body: JSON without the number and what its schema says by default, as it was committed.
        acked_ms: UTC when the broker acknowledged it; `None` while it waits.
    """

    seq: int
    topic: str
    body: str
    acked_ms: int | None

    def payload(self, **changes: object) -> dict[str, Any]:
        """The event as it is published: its number and what is known only when it is sent are filled in.

        Raises:
            StoreError: Its text was damaged on the disk, which SQLite does not notice.
        """
        try:
            return {**fill_in(self.body), "seq": self.seq, **changes}
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                f"event {self.seq} ({self.topic}) cannot be read any more: {error}",
                where="the station's database",
                cure="check the health of the disk",
            ) from None


@dataclass(frozen=True)
class Retained:
    """The latest value of a retained topic.

    Attributes:
        topic: Below the station's prefix.
        body: JSON; empty = the broker shall forget it.
        version: Higher than that of every value, of any topic, that was written before.
    """

    topic: str
    body: str
    version: int


@dataclass(frozen=True)
class Depth:
    """How full the outbox is.

    Attributes:
        waiting: Number of events not yet acknowledged.
        bytes: Size of all events, acknowledged ones as well.
        oldest_s: Age of the oldest one that waits.
        dropped: Events that were evicted before they were acknowledged, ever.
        waiting_bytes: Size of the events not yet acknowledged.
    """

    waiting: int
    bytes: int
    oldest_s: float
    dropped: int
    waiting_bytes: int = 0


class Outbox:
    """The events and retained topics of one database, through one connection.

    Args:
        connection: From `kenpin.edge_runtime.database`; its thread must be the only one to use it.
        room: How much of the disk events may take.
    """

    def __init__(self, connection: sqlite3.Connection, room: Room | None = None) -> None:
        self._connection = connection
        self._room = room or Room()
        self._doubtful: tuple[int, int] | None = None  # acknowledged while nobody had set the clock: from, to

    def put(self, event: Payload, *, part_seq: int | None = None) -> int:
        """Add an event to the caller's transaction and return its number.

        Args:
            event: The event, without its number.
            part_seq: Number of the part that it is about.
        """
        return self.append(event.address, event.to_json().decode(), part_seq=part_seq)

    def append(self, topic: str, body: str, *, part_seq: int | None = None) -> int:
        """The same for an event that is JSON text already."""
        body = shorten(body)
        size = len(topic) + len(body.encode()) + _ROW_BYTES
        self._room.make(size, self._connection)
        cursor = self._connection.execute(
            "INSERT INTO outbox (part_seq, created_ms, prio, topic, body, bytes) VALUES (?, ?, ?, ?, ?, ?)",
            (part_seq, now_ms(), _PRIORITY.get(topic, _LAST_PRIORITY), topic, body, size),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def set_state(self, state: Payload) -> None:
        """Set a retained topic in the caller's transaction; only its latest value will be sent."""
        self._connection.execute(
            "INSERT INTO state SELECT ?, ?, coalesce(max(ver), 0) + 1 FROM state WHERE true "
            "ON CONFLICT (topic) DO UPDATE SET body = excluded.body, ver = excluded.ver",
            (state.address, state.to_json().decode()),
        )

    def keep_cameras(self, cameras: Sequence[str]) -> None:
        """Let the broker forget the last parts of all other cameras, in the caller's transaction.

        Args:
            cameras: Levels of their topics.
        """
        topics = [CameraLast.topic.format(camera=camera) for camera in cameras]
        others = f"topic LIKE ? AND body <> '' AND topic NOT IN ({', '.join('?' * len(topics))})"
        self._connection.execute(
            f"UPDATE state SET body = '', ver = (SELECT max(ver) + 1 FROM state) WHERE {others}",  # noqa: S608 our own text
            (CameraLast.topic.format(camera="%"), *topics),
        )

    def forget(self, value: Retained) -> None:
        """Remove a retained topic that the broker has forgotten, unless it has a value again.

        The newest one stays until the next connection: its version would be given once more, to a value that
        nobody looks for then.

        Raises:
            StoreError: It cannot be written; the broker is told once more on the next connection.
        """
        with transaction(self._connection):
            self._connection.execute(
                "DELETE FROM state WHERE topic = ? AND ver = ? AND ver < (SELECT max(ver) FROM state)",
                (value.topic, value.version),
            )

    def retained(self, *, after: int) -> list[Retained]:
        """The retained topics that were set later than a version, in that order.

        Raises:
            StoreError: The database cannot be read.
        """
        with explained("the station's database"):
            sql = "SELECT topic, body, ver FROM state WHERE ver > ? ORDER BY ver"
            return [Retained(*row) for row in self._connection.execute(sql, (after,))]

    def waiting(
        self, *, after: int, limit: int, up_to: int = NO_END, without: Collection[str] = ()
    ) -> list[Entry]:
        """The oldest events not yet acknowledged whose number is above `after`, and not above `up_to`.

        Args:
            after: See above.
            limit: How many at most.
            up_to: See above.
            without: Topics that are passed over.

        Raises:
            StoreError: The database cannot be read.
        """
        others = f"topic NOT IN ({', '.join('?' * len(without))})"
        condition = f"acked_ms IS NULL AND seq > ? AND seq <= ? AND {others} ORDER BY seq LIMIT ?"
        return self._read(condition, after, up_to, *without, limit)

    def replay(self, *, since: int, limit: int) -> list[Entry]:
        """All events from a number on, acknowledged or not.

        Raises:
            StoreError: The database cannot be read.
        """
        return self._read("seq >= ? ORDER BY seq LIMIT ?", since, limit)

    def send_again(self, *, since: int, count: int) -> int:
        """Let acknowledged events wait once more, in the caller's transaction; how many.

        Args:
            since: Number of the first one.
            count: How many at most.
        """
        first = "SELECT seq FROM outbox WHERE seq >= ? ORDER BY seq LIMIT ?"
        return self._connection.execute(
            f"UPDATE outbox SET acked_ms = NULL WHERE acked_ms IS NOT NULL AND seq IN ({first})",  # noqa: S608
            (since, count),
        ).rowcount

    def mark_acked(self, seqs: Iterable[int]) -> None:
        """Note that the broker has them.

        Raises:
            StoreError: The note cannot be written; the events still wait.
        """
        now, noted = now_ms(), list(seqs)
        with transaction(self._connection):
            self._connection.executemany(
                "UPDATE outbox SET acked_ms = ? WHERE seq = ? AND acked_ms IS NULL", [(now, s) for s in noted]
            )
        if noted and not clock_is_synchronised():
            known = (*noted, *(self._doubtful or ()))
            self._doubtful = min(known), max(known)

    def give_up(self, entry: Entry) -> None:
        """Remove one that cannot be read, as its text was damaged on the disk, and note that it is missing.

        Raises:
            StoreError: It cannot be written.
        """
        with transaction(self._connection):
            throw_away(self._connection, entry.seq, entry.topic)

    def prune(self) -> bool:
        """Remove some events that were acknowledged more than seven days ago; whether more may be left.

        A clock that nobody sets may be years ahead, so by such a one nothing grows old: the room for events is
        limited all the same. What was acknowledged before the clock was set begins its seven days now.

        Raises:
            StoreError: It cannot be written.
        """
        found: list[tuple[int, int]] = []
        if clock_is_synchronised():
            now = now_ms()
            old = f"SELECT seq, acked_ms FROM outbox WHERE acked_ms < ? ORDER BY acked_ms LIMIT {_BITE_ROWS}"  # noqa: S608 our own text
            with transaction(self._connection):
                found = self._connection.execute(old, (now - KEEP_ACKED_MS,)).fetchall()
                undated = {seq for seq, acked_ms in found if acked_ms < FIRST_MS or self._is_doubtful(seq)}
                self._connection.executemany(
                    "UPDATE outbox SET acked_ms = ? WHERE seq = ?", [(now, seq) for seq in undated]
                )
                self._connection.executemany(
                    "DELETE FROM outbox WHERE seq = ?", [(seq,) for seq, _ in found if seq not in undated]
                )
        with explained("the station's database"):
            # Each step gives one page back to the disk, and `execute` makes only one.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_BITE_PAGES})")
        return len(found) == _BITE_ROWS

    def _is_doubtful(self, seq: int) -> bool:
        return self._doubtful is not None and self._doubtful[0] <= seq <= self._doubtful[1]

    def report_gaps(self, make: Callable[[Gap], Payload]) -> None:
        """Turn what is known of events thrown away into events, so that subscribers see what they miss.

        Args:
            make: Makes the event of a gap.

        Raises:
            StoreError: It cannot be written; it is tried again with the next call.
        """
        sql = "SELECT topic, first_seq, last_seq, count FROM gap"
        with explained("the station's database"):
            if not self._connection.execute(sql).fetchall():
                return
        with transaction(self._connection):
            gaps = [Gap(*row) for row in self._connection.execute(sql).fetchall()]
            self._connection.execute("DELETE FROM gap")
            for gap in gaps:
                self.put(make(gap))

    def newest(self) -> int:
        """The last number that was given, 0 before the first.

        Raises:
            StoreError: The database cannot be read.
        """
        with explained("the station's database"):
            row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return int(row[0]) if row else 0

    def acked_since(self, ts_ms: int, topic: str) -> int:
        """Number of events of a topic that the broker acknowledged.

        Args:
            ts_ms: Since when, UTC in milliseconds since 1970.
            topic: Below the station's prefix.

        Raises:
            StoreError: The database cannot be read.
        """
        with explained("the station's database"):
            sql = "SELECT count(*) FROM outbox WHERE acked_ms >= ? AND topic = ?"
            (count,) = self._connection.execute(sql, (ts_ms, topic)).fetchone()
        return int(count)

    def depth(self) -> Depth:
        """How full it is.

        Raises:
            StoreError: The database cannot be read.
        """
        execute = self._connection.execute
        with explained("the station's database"):
            (waiting,) = execute("SELECT count(*) FROM outbox WHERE acked_ms IS NULL").fetchone()
            oldest = execute(
                "SELECT created_ms FROM outbox WHERE acked_ms IS NULL ORDER BY seq LIMIT 1"
            ).fetchone()
            counters = dict(execute("SELECT name, value FROM counter").fetchall())
        return Depth(
            waiting,
            counters["outbox_bytes"],
            max(0.0, (now_ms() - oldest[0]) / 1000) if oldest else 0.0,
            counters["outbox_dropped"],
            counters.get("outbox_waiting_bytes", 0),  # not there before the first start of this version
        )

    def _read(self, condition: str, *values: int | str) -> list[Entry]:
        with explained("the station's database"):
            rows = self._connection.execute(
                f"SELECT seq, topic, body, acked_ms FROM outbox WHERE {condition}",  # noqa: S608 our own text
                values,
            )
            return [Entry(*row) for row in rows]
