"""The station's SQLite file: opening, migrations, transactions, and what happens when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kenpin.edge_runtime.damage import find_damage, is_damage
from kenpin.edge_runtime.migrations import MIGRATIONS
from kenpin.edge_runtime.notify import Notifier
from kenpin.errors import StoreDamaged, StoreError, reason_of
from kenpin.events import now_ms
from kenpin.synced_file import replace_synced, sync_folder

APPLICATION_ID = 0x6B656E70  # "kenp"
# A fresh database after damage starts its numbers this far on: no number is ever given twice.
SEQ_JUMP = 1_000_000
# A bit that flips on the disk can make a text of one row no UTF-8, and reading it would fail for all rows.
_TEXT = partial(str, encoding="utf-8", errors="replace")
_HIGHEST = 1 << 53  # beyond it JSON's numbers are no longer exact

_log = logging.getLogger(__name__)


def connect(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """Open a connection to a database that `open_database` has prepared; use it from one thread.

    Args:
        path: The file.
        durable: Whether a commit survives a power cut. The publisher does without: what it loses is the note
            that an event was acknowledged, and the event is sent once more.

    Raises:
        StoreError: It cannot be opened.
    """
    with explained(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.text_factory = _TEXT
        connection.execute("PRAGMA busy_timeout = 5000")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; before anything is in it
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        return connection


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a station's database beside the running station, to read only.

    Raises:
        StoreError: There is none, it cannot be opened, or SQLite fails meanwhile.
    """
    if not path.is_file():
        raise StoreError(
            "there is no station database", where=path, cure="give the --state folder of a station"
        )
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with explained(path), contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.text_factory = _TEXT
        connection.execute("PRAGMA busy_timeout = 5000")
        yield connection


def require_current(path: Path) -> None:
    """Make sure that the station has prepared the database, for a process that only uses it.

    Raises:
        StoreError: There is none, it is of another version, or it cannot be read.
    """
    with reading(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != len(MIGRATIONS):
        raise StoreError(
            "the station has not prepared the database for this version of kenpin",
            where=path,
            cure="start the station's process; it does so by itself",
        )


def file_id(path: Path) -> tuple[int, int] | None:
    """Which file has the name now; `None` while none can be found."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def forget_journal(path: Path) -> None:
    """Remove the journal that a removed or replaced database has left.

    SQLite would take it for that of whatever file has the name next, and mix the two.
    """
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def write_back(connection: sqlite3.Connection, path: Path) -> None:
    """Save a database that was removed or replaced while it was open; the file that has its name stays.

    Raises:
        StoreError: It cannot be written.
    """
    target = path.with_name(f"{path.name}.was-{now_ms()}") if path.exists() else path
    partial = target.with_name(target.name + ".part")
    with explained(target):
        partial.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(partial)) as copy:
            connection.backup(copy)
        partial.replace(target)
        sync_folder(target.parent)
    if target == path:
        _log.warning("The station's database was removed while it was in use, and is put back whole.")
    else:
        _log.warning(
            "The station's database was replaced while it was in use. What the station had written is in %s; "
            "events that still waited there are not sent.",
            target.name,
        )


def open_database(path: Path, on_damage: Callable[[str], None] = lambda _damage: None) -> sqlite3.Connection:
    """Open the station's database, make it, or replace a damaged one as `begin_anew` does.

    Args:
        path: The file.
        on_damage: Called with what `begin_anew` says, where it came to that.

    Raises:
        StoreError: It cannot be opened, or was made by another program or a newer kenpin.
    """
    with explained(path):
        try:
            return _prepare(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            damage = str(error)
    on_damage(begin_anew(path, damage))
    with explained(path):
        return _prepare(path)


def begin_anew(path: Path, damage: str) -> str:
    """Move a damaged database aside, so that the next one to be opened is a fresh one whose numbers jump.

    Only who holds the station's lock may do so: others would go on writing into the file that was moved.

    Args:
        path: The file.
        damage: What is wrong with it.

    Returns:
        The same, and where it is now, in words.

    Raises:
        StoreError: The disk does not let it.
    """
    with explained(path):
        aside = _move_aside(path, damage)
        _write_lease(path, max(_read_lease(path), SEQ_JUMP))
    return f"{damage}; the damaged file is {aside}"


def moved_aside(path: Path) -> dict[int, Path]:
    """Damaged files that were moved aside, by the number in their names; the highest is the newest."""
    name = re.compile(re.escape(path.name) + r"\.corrupt-(\d+)")
    return {int(found[1]): aside for aside in path.parent.iterdir() if (found := name.fullmatch(aside.name))}


@contextlib.contextmanager
def explained(where: object) -> Iterator[None]:
    """Turn what SQLite and the file system raise into a StoreError, of damage into a StoreDamaged."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        damaged = isinstance(error, sqlite3.DatabaseError) and is_damage(error)
        kind = StoreDamaged if damaged else StoreError
        raise kind(
            f"the store does not work: {reason_of(error)}",
            where=getattr(error, "filename2", None) or where,  # of a file that cannot be replaced
            cure="check the free space, the permissions and the health of the disk",
        ) from None


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, written when this ends.

    Raises:
        StoreError: The disk is full, broken or read-only; nothing was written.
    """
    with explained("the station's database"), _at_once(connection):
        yield


@contextlib.contextmanager
def _at_once(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself when the disk is full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def lease_numbers(path: Path, seq: int) -> int:
    """Promise on disk, outside the database, that numbers may be in use up to some way above `seq`.

    Args:
        path: The database.
        seq: The newest number in it.

    Returns:
        The number that needs the next lease.

    Raises:
        StoreError: The promise cannot be written.
    """
    with explained(path):
        if _read_lease(path) < seq + SEQ_JUMP // 2:
            _write_lease(path, seq + SEQ_JUMP)
        return _read_lease(path) - SEQ_JUMP // 2


def _prepare(path: Path) -> sqlite3.Connection:
    with contextlib.closing(sqlite3.connect(path)) as plain:
        _check_owner(plain, path)
        if finding := find_damage(plain):
            raise sqlite3.DatabaseError(finding)
    connection = connect(path)
    try:
        # A year of parts takes longer than a start may; who is killed in the middle begins again, for ever.
        with Notifier.from_environment().asking_for_time():
            while _migrate(connection, path):
                pass
    except BaseException:
        connection.close()
        raise
    return connection


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    # The tables first: the owner is written with them, and another process may do so right now.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and owner != APPLICATION_ID:
        raise StoreError(
            "the database belongs to another program", where=path, cure="give another state folder"
        )
    if version > len(MIGRATIONS):
        raise StoreError("the database was written by a newer kenpin", where=path, cure="update kenpin here")
    if 0 < version < len(MIGRATIONS):
        _log.warning("The database is brought to the form of this kenpin; a year of parts takes minutes.")


def _migrate(connection: sqlite3.Connection, path: Path) -> bool:
    """Run the next script; whether there was one. Asked under the lock, as another process may be at it too."""
    with _at_once(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version >= len(MIGRATIONS):
            return False
        for statement in _statements(MIGRATIONS[version]):
            connection.execute(statement)
        if version == 0:
            # A lease without a database: it was moved aside, or somebody removed it. Its numbers stay used.
            used = _read_lease(path)
            if _lease_file(path).exists() and not 0 < used <= _HIGHEST:
                raise StoreError(
                    "it cannot be read which numbers were used before",
                    where=_lease_file(path),
                    cure="write a whole number into it, above the highest seq that SCADA has seen",
                )
            sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ('part', ?), ('outbox', ?)"
            connection.execute(sql, (used, used))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version + 1}")
    return True


def _statements(script: str) -> Iterator[str]:
    """One by one, as `executescript` would end the transaction. Each begins on a line of its own."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _move_aside(path: Path, why: str) -> str:
    """Give the file and its journal another name, and return that."""
    # Above those that lie there already, whatever the clock says: the highest is the newest.
    suffix = f".corrupt-{max((now_ms(), *(moment + 1 for moment in moved_aside(path))))}"
    for name in (path.name, path.name + "-wal", path.name + "-shm"):
        part = path.with_name(name)
        if part.exists():
            part.rename(part.with_name(name.replace(path.name, path.name + suffix, 1)))
    _log.warning(
        "The station's database was damaged (%s) and moved aside to %s%s. A fresh one is started; its numbers "
        "jump so that none is used twice. Events that still waited there and can be read are sent later. "
        "Keep the file: much of it can usually be recovered.",
        why,
        path.name,
        suffix,
    )
    return f"{path.name}{suffix}"


def _lease_file(path: Path) -> Path:
    return path.with_suffix(".seq")


def _read_lease(path: Path) -> int:
    try:
        return int(_lease_file(path).read_text())
    except (OSError, ValueError):
        return 0


def _write_lease(path: Path, seq: int) -> None:
    replace_synced(_lease_file(path), f"{seq}\n".encode())
