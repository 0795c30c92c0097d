"""The page's own SQLite file, `page.db`: who is logged in, and what else people enter here."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kenpin.edge_runtime.database import explained
from kenpin.station_folder import StationFolder

# Each script runs once; `user_version` counts them. Never change one that was released.
_MIGRATIONS = (
    """
    CREATE TABLE session (
        id_sha256 TEXT PRIMARY KEY,  -- of the cookie: who reads this file cannot act as anybody
        name TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        seen_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE calibration_run (
        only INTEGER PRIMARY KEY CHECK (only = 1),  -- there is one station
        by TEXT NOT NULL,
        bundle_sha256 TEXT NOT NULL,
        precision TEXT NOT NULL,
        first_seq INTEGER NOT NULL,  -- numbers of parts: good ones come after this one
        last_seq INTEGER,            -- and end with this one; NULL while they are shown
        step TEXT NOT NULL,
        t1 REAL, t2 REAL             -- placed by hand; NULL = as suggested
    );
    CREATE TABLE calibration_label (
        seq INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('good', 'left', 'master')),
        name TEXT NOT NULL,
        type TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE shift_check (
        id INTEGER PRIMARY KEY CHECK (id = 1),  -- there is at most one
        name TEXT NOT NULL,
        begun_ms INTEGER NOT NULL,
        after_seq INTEGER NOT NULL,
        plan TEXT NOT NULL
    );
    """,
    # Which setting of the user somebody has logged in by; logins from before do not count.
    "ALTER TABLE session ADD COLUMN user_since_ms INTEGER NOT NULL DEFAULT -1;",
    # How the cameras were set when it began; empty where that was before there was this column.
    "ALTER TABLE calibration_run ADD COLUMN cameras TEXT NOT NULL DEFAULT '';",
)


def page_file(folder: StationFolder) -> Path:
    """Where it lies."""
    return folder.root / "page.db"


def prepare_page_database(path: Path) -> None:
    """Make the file, or bring an older one up to date; once, before anybody else uses it.

    Of several processes that begin at once each waits for the one before: SQLite's own locks would not do, as
    they do not wait where a new file is told to keep a write-ahead log.

    Args:
        path: The file; its folder exists.

    Raises:
        StoreError: It cannot be opened or written.
    """
    with (
        explained(path),
        path.with_suffix(".lock").open("a") as lock,
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection.execute("PRAGMA journal_mode = WAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


@contextmanager
def page_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one transaction: all of it is written when this ends, or nothing.

    Args:
        path: The file, prepared.

    Raises:
        StoreError: It cannot be opened or written.
    """
    with explained(path), closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        try:
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
