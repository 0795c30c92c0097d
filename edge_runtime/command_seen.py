"""Which commands were carried out: none is carried out twice, not even over a restart.

The functions take the caller's connection, so that what a command does, its record, its reply and this note
are one transaction.
"""

from __future__ import annotations

import sqlite3

from kenpin.edge_runtime.command_action import Header
from kenpin.edge_runtime.database import explained

# An expired command is refused for its time. The note stays much longer: who can speak as the plant's time
# server can set the clock back, and send once more what was heard on the network then.
KEEP_MS = 31 * 86_400_000


def is_seen(connection: sqlite3.Connection, cmd_id: str) -> bool:
    """Whether a command of this id was carried out.

    Raises:
        StoreError: The database cannot be read.
    """
    with explained("the station's database"):
        found = connection.execute("SELECT 1 FROM cmd_seen WHERE cmd_id = ?", (cmd_id,)).fetchone()
    return found is not None


def note_seen(connection: sqlite3.Connection, command: Header, *, now_ms: int) -> None:
    """Note a command in the caller's transaction, and forget those that expired long ago.

    Args:
        connection: In a transaction.
        command: What is carried out in it.
        now_ms: UTC, milliseconds since 1970.

    Raises:
        sqlite3.IntegrityError: It was carried out already. The caller's transaction fails, and does nothing.
    """
    connection.execute("DELETE FROM cmd_seen WHERE expires_ms < ?", (now_ms - KEEP_MS,))
    connection.execute("INSERT INTO cmd_seen VALUES (?, ?)", (command.cmd_id, command.expires_ms))
