"""The retention: records of parts that are old enough go, a few at a time, so that the line need not wait."""

from __future__ import annotations

import sqlite3
import time

from kenpin.edge_runtime.database import transaction
from kenpin.events import now_ms

_BITE_ROWS = 500
_EVERY_S = 3600.0
_DAY_MS = 24 * 3600 * 1000


class Retention:
    """Removes what is older than it is to be kept. A part whose event still lies in the outbox stays with it.

    Args:
        connection: From `kenpin.edge_runtime.database`; its thread must be the only one to use it.
        keep_days: Age of the oldest record that is kept.
    """

    def __init__(self, connection: sqlite3.Connection, *, keep_days: int) -> None:
        self._connection = connection
        self._keep_ms = keep_days * _DAY_MS
        self._due_s = 0.0

    def come_round(self) -> None:
        """Remove a bite, or wait an hour where nothing is old.

        Raises:
            StoreError: It cannot be written; it is tried again with the next call.
        """
        if time.monotonic() < self._due_s:
            return
        # The oldest ones only: the clock may have been wrong for some, but numbers rise with time.
        oldest = f"SELECT seq, ts_ms FROM part ORDER BY seq LIMIT {_BITE_ROWS}"  # noqa: S608 our own text
        told = "SELECT 1 FROM outbox WHERE part_seq = old.seq"
        with transaction(self._connection):
            removed = self._connection.execute(
                f"DELETE FROM part WHERE seq IN (SELECT seq FROM ({oldest}) AS old "  # noqa: S608 our own text
                f"WHERE ts_ms < ? AND NOT EXISTS ({told}))",
                (now_ms() - self._keep_ms,),
            ).rowcount
        if removed < _BITE_ROWS:
            self._due_s = time.monotonic() + _EVERY_S
