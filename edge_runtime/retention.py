"""The retention: records of parts that are old enough go, a few at a time, so that the line need not wait.

Dates are only as good as the clock was: a board without a battery starts in the past, and a clock that nobody
sets can be years ahead. Neither may take records away that somebody asks for after an incident.
"""

from __future__ import annotations

import sqlite3
import time

from kenpin.edge_runtime.clock import FIRST_MS, clock_is_synchronised
from kenpin.edge_runtime.database import explained, transaction
from kenpin.events import now_ms

_BITE_ROWS = 500
_EVERY_S = 3600.0
_DAY_MS = 24 * 3600 * 1000


class Retention:
    """Removes what is older than it is to be kept. A part whose event still lies in the outbox stays with it.

    Args:
        connection: From `kenpin.edge_runtime.database`; its thread must be the only one to use it.
        keep_days: Age of the oldest record that is kept.

    Raises:
        StoreError: The database cannot be read.
    """

    def __init__(self, connection: sqlite3.Connection, *, keep_days: int) -> None:
        self._connection = connection
        self._keep_ms = keep_days * _DAY_MS
        self._passed = 0  # number of the last part that was looked at
        self._latest_ms: int | None = None  # highest date of the parts up to that one
        self._due_s = 0.0
        self._start_s = time.monotonic()
        with explained("the station's database"):
            last = connection.execute("SELECT ts_ms FROM part ORDER BY seq DESC LIMIT 1").fetchone()
        self._last_ms = last[0] if last else 0  # before this start

    def come_round(self) -> None:
        """Look at a bite and remove what is old in it; after the newest part wait an hour and begin again.

        Raises:
            StoreError: It cannot be read or written; it is tried again with the next call.
        """
        if time.monotonic() < self._due_s:
            return
        # On from the last bite, whatever became of it: parts that must stay, as their events wait or as a wrong
        # clock gave them a date to come, do not keep those behind them. Reading holds nobody up.
        bite = f"SELECT seq, ts_ms FROM part WHERE seq > ? ORDER BY seq LIMIT {_BITE_ROWS}"  # noqa: S608 our own text
        with explained("the station's database"):
            seen = self._connection.execute(bite, (self._passed,)).fetchall()
        now = self._now_ms()
        if self._latest_ms is None:
            self._latest_ms = self._first_date(now)
        self._remove([(seq,) for seq, ts_ms in seen if self._date(ts_ms, now) < now - self._keep_ms])
        if len(seen) == _BITE_ROWS:
            self._passed = seen[-1][0]
        else:
            self._passed, self._latest_ms, self._due_s = 0, None, time.monotonic() + _EVERY_S

    def _now_ms(self) -> int:
        """UTC; of a clock that nobody sets, no later than what has passed since the part before this start."""
        now = now_ms()
        if clock_is_synchronised() or not self._last_ms:
            return now
        return min(now, self._last_ms + round((time.monotonic() - self._start_s) * 1000))

    def _first_date(self, now: int) -> int:
        """The first date that can be one: what a station judged before its clock was ever set was earlier."""
        sql = "SELECT ts_ms FROM part WHERE ts_ms BETWEEN ? AND ? ORDER BY seq LIMIT 1"
        with explained("the station's database"):
            first = self._connection.execute(sql, (FIRST_MS, now)).fetchone()
        return int(first[0]) if first else now

    def _date(self, ts_ms: int, now: int) -> int:
        """When a part was, by its own date or by those before it: it cannot have come earlier."""
        if ts_ms > now:
            return ts_ms
        self._latest_ms = max(self._latest_ms or 0, ts_ms)
        return self._latest_ms

    def _remove(self, seqs: list[tuple[int]]) -> None:
        if not seqs:
            return
        told = "SELECT 1 FROM outbox WHERE part_seq = part.seq"
        with transaction(self._connection):
            self._connection.executemany(
                f"DELETE FROM part WHERE seq = ? AND NOT EXISTS ({told})",  # noqa: S608 our own text
                seqs,
            )
