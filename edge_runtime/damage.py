"""Damage of a database: what is wrong in the file, and which of SQLite's errors tell of it."""

from __future__ import annotations

import logging
import sqlite3
import threading

# A whole check reads the whole file, minutes of it on the disk of a station that has run for a year; whoever
# starts a station gives it two.
_CHECK_S = 10.0
_NEWEST_PARTS = 10_000

_log = logging.getLogger(__name__)


def find_damage(connection: sqlite3.Connection, *, limit_s: float = _CHECK_S) -> str:
    """What is damaged in a database, in words; empty where nothing was found.

    Where the whole takes longer than the limit, old records of parts are passed over: what a start goes on with
    are the newest ones and all other tables, and those are looked at however long it takes.

    Args:
        connection: To the database.
        limit_s: Longest time for the whole, in seconds.

    Raises:
        sqlite3.OperationalError: It cannot be read for another reason.
    """
    try:
        return _look_at_all(connection, limit_s)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return str(error)


def _look_at_all(connection: sqlite3.Connection, limit_s: float) -> str:
    timer = threading.Timer(limit_s, connection.interrupt)
    timer.start()
    try:
        return _fault(connection, "PRAGMA quick_check(1)")
    except sqlite3.OperationalError as error:
        if str(error) != "interrupted":
            raise
    finally:
        timer.cancel()
        timer.join()
    _log.info("The database is too large to check all of it at a start; old records of parts are passed over.")
    connection.execute(f"SELECT * FROM part ORDER BY seq DESC LIMIT {_NEWEST_PARTS}").fetchall()  # noqa: S608 our own text
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'part'"
    ).fetchall()
    found = (_fault(connection, f"PRAGMA quick_check({name})") for (name,) in tables)
    return next(filter(None, found), "")


def _fault(connection: sqlite3.Connection, check: str) -> str:
    (finding,) = connection.execute(check).fetchone()
    return "" if finding == "ok" else str(finding)


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is bad, and not the disk full, a permission missing or a script wrong.

    SQLITE_CORRUPT and SQLITE_NOTADB are the class itself, all others that happen to a file one of its heirs;
    their codes come with Python 3.11 only.
    """
    return type(error) is sqlite3.DatabaseError
