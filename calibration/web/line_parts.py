"""The last parts of the line, read from the station's database without writing a byte to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kenpin.calibration.stored import HOUR_MS, first_since
from kenpin.edge_runtime.database import reading
from kenpin.events import now_ms

HOURS = 8
_LAST = 60
_LATENCIES = 500


@dataclass(frozen=True)
class PartRow:
    """One part.

    Attributes:
        seq: Its number.
        part_id: Its identity.
        ts_ms: UTC of the exposure, milliseconds since 1970.
        verdict: As in the database.
        reason: Why there is none of OK, REVIEW and NG, in words.
        cause: The same as one word of a fixed list.
        score: `None` where nothing was scored.
        t1: Threshold it was judged by; `None` where there was none.
        t2: Threshold it was judged by.
        released: Whether it is known that it was released; of the newest part that may come with the next one.
    """

    seq: int
    part_id: str
    ts_ms: int
    verdict: str
    reason: str
    cause: str
    score: float | None
    t1: float | None
    t2: float | None
    released: bool


@dataclass(frozen=True)
class Counted:
    """Parts of the last hours.

    Attributes:
        verdicts: Number of parts by verdict.
        p50_ms: From the exposure to the verdict, half of the last parts, milliseconds; 0 without parts.
        p99_ms: The same for all but a hundredth.
    """

    verdicts: Mapping[str, int] = field(default_factory=dict)
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def total(self) -> int:
        """Number of parts."""
        return sum(self.verdicts.values())


def last_parts(database: Path) -> Sequence[PartRow]:
    """The newest parts, newest first.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    sql = (
        "SELECT seq, part_id, ts_ms, verdict, reason, cause, score, t1, t2, released <> 0 FROM part "
        "ORDER BY seq DESC LIMIT ?"
    )
    with reading(database) as connection:
        return [PartRow(*row) for row in connection.execute(sql, (_LAST,))]


def count_parts(database: Path) -> Counted:
    """Count the parts of the last hours; on a fast line this takes a while.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    with reading(database) as connection:
        return _count(connection)


def _count(connection: sqlite3.Connection) -> Counted:
    first = first_since(connection, now_ms() - HOURS * HOUR_MS)
    found = connection.execute("SELECT verdict, count(*) FROM part WHERE seq >= ? GROUP BY verdict", (first,))
    verdicts = dict(found.fetchall())
    sql = "SELECT latency_ms FROM part ORDER BY seq DESC LIMIT ?"
    latencies = sorted(row[0] for row in connection.execute(sql, (_LATENCIES,)))
    if not latencies:
        return Counted(verdicts)
    last = len(latencies) - 1
    return Counted(verdicts, latencies[last // 2], latencies[round(last * 0.99)])
