"""Where the parts of the last days begin in the station's database."""

from __future__ import annotations

import sqlite3

from kenpin.edge_runtime.clock import FIRST_MS

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS


def first_since(connection: sqlite3.Connection, since_ms: int) -> int:
    """Number of the first part since then: numbers grow with time, so half of them fall away with each look.

    Parts of a board that began in the past, until its clock was set, say nothing of those before them.

    Args:
        connection: To the station's database.
        since_ms: UTC, milliseconds since 1970.
    """
    (low, high) = connection.execute(
        "SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) + 1 FROM part"
    ).fetchone()
    dated = "SELECT seq, ts_ms FROM part WHERE seq >= ? AND ts_ms >= ? ORDER BY seq LIMIT 1"
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(dated, (middle, min(FIRST_MS, since_ms))).fetchone()
        if found is None or found[1] >= since_ms:
            high = middle
        else:
            low = found[0] + 1
    return int(low)
