"""The store: one record per part, its event in the same transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from kenpin.edge_runtime.database import (
    begin_anew,
    explained,
    file_id,
    forget_journal,
    lease_numbers,
    open_database,
    transaction,
    write_back,
)
from kenpin.edge_runtime.outbox import Depth, Outbox
from kenpin.edge_runtime.part import Part, part_row
from kenpin.edge_runtime.part_news import PartNews
from kenpin.edge_runtime.rescue import rescue_events
from kenpin.edge_runtime.room import Room
from kenpin.errors import StoreDamaged, StoreError
from kenpin.events import Anomaly


class Store:
    """The station's database, written by one thread.

    Args:
        path: The file.
        news: What is told of every part; default: nothing but the events that are given.

    Attributes:
        damage: What was found damaged and moved aside, in words; empty = nothing.
        file: Which file it is.

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, path: Path, *, news: PartNews | None = None) -> None:
        self.path = path
        self.damage = ""
        self._room = Room.on_disk_of(path)
        self._news = news
        self._open()
        # Not when it begins anew under a running station: the line would wait for it.
        self.damage = "; ".join(filter(None, (self.damage, rescue_events(path, self._connection))))

    def _open(self) -> None:
        self._connection = open_database(self.path, self._note_damage)
        self.file = file_id(self.path)
        self._found = ""  # damage that showed since
        self._outbox = Outbox(self._connection, self._room)
        self._newest_parts: dict[int, Part] = {}
        self._withheld: list[tuple[int, Part]] = []
        self._next_lease = lease_numbers(self.path, self._newest())
        self._notes: list[tuple[str, tuple[object, ...]]] = []

    def _note_damage(self, damage: str) -> None:
        self.damage = damage

    def require_file(self) -> None:
        """Make sure that what is written lands in the file that has the name, and can be read there.

        Raises:
            StoreError: Somebody has removed or replaced it; `close` saves what was written. Or it was found
                damaged, and a fresh one takes what still waits; all others have to open that one, too.
        """
        if self._found:
            self._begin_anew()
            raise StoreError(
                "the database was damaged while the station runs",
                where=self.path,
                cure="the station starts again by itself, with a fresh one; keep the damaged file",
            )
        if self._is_nameless():
            forget_journal(self.path)
            raise StoreError(
                "the database was removed or replaced while the station runs",
                where=self.path,
                cure="the station starts again by itself; stop it before you touch its files",
            )

    def found_damaged(self, damage: str) -> None:
        """Say that somebody else has found the file damaged; `require_file` then begins anew.

        Args:
            damage: What is wrong with it.
        """
        self._found = damage

    def commit(self, entries: Sequence[tuple[Part, Anomaly | None]]) -> list[int]:
        """Write parts and their events; all are on disk when this returns.

        Args:
            entries: Parts in their order, each with its event.

        Returns:
            The parts' numbers.

        Raises:
            StoreError: Nothing was written.
        """
        news = self._news.written_or_forgotten() if self._news is not None else nullcontext()
        with self._watched(), news, transaction(self._connection):
            self._write_notes()
            seqs = [self._write(part, event) for part, event in entries]
            self._tell(zip(seqs, (part for part, _ in entries), strict=True))
            self._renew_lease()
        self._notes.clear()
        self._withheld.clear()
        self._newest_parts = dict(zip(seqs, (part for part, _ in entries), strict=True))
        return seqs

    def change(self, step: Callable[[sqlite3.Connection, Outbox], None]) -> None:
        """Do something else in one transaction, such as an alarm's state together with the event of it.

        Args:
            step: Gets the connection and the outbox of the transaction.

        Raises:
            StoreError: Nothing was written.
        """
        with transaction(self._connection):
            step(self._connection, self._outbox)
            self._renew_lease()

    def flush(self) -> None:
        """Write what waits for the next commit.

        Raises:
            StoreError: It was not written, and still waits.
        """
        if self._notes or (self._news is not None and self._news.is_due):
            self.commit([])

    def note_image(self, image_ref: str, sha256: str) -> None:
        """Remember that a part's picture is on disk; written with the next commit.

        Args:
            image_ref: As in `Part.image_ref`.
            sha256: Of the file.
        """
        # The second condition is true, and lets SQLite use the index of parts with a picture.
        sql = "UPDATE part SET image_sha256 = ? WHERE image_ref = ? AND image_ref <> ''"
        self._notes.append((sql, (sha256, image_ref)))

    def note_released(self, seq: int) -> None:
        """Remember that the part was released; written with the next commit, which costs no extra time."""
        self._notes.append(("UPDATE part SET released = 1 WHERE seq = ?", (seq,)))

    def note_withheld(self, seq: int, reason: str, cause: str) -> None:
        """Remember that a part judged OK was not released after all; written with the next commit."""
        sql = "UPDATE part SET verdict = 'NO_DECISION', reason = ?, cause = ? WHERE seq = ?"
        self._notes.append((sql, (reason, cause, seq)))
        if seq in self._newest_parts:
            self._withheld.append((seq, self._newest_parts[seq].withheld(reason, cause)))

    def last_trigger(self) -> int | None:
        """Number of the trigger of the newest part that has one.

        Raises:
            StoreError: The database cannot be read.
        """
        sql = "SELECT trigger_id FROM part WHERE trigger_id IS NOT NULL ORDER BY seq DESC LIMIT 1"
        with explained(self.path):
            row = self._connection.execute(sql).fetchone()
        return int(row[0]) if row else None

    def acked_since(self, ts_ms: int, topic: str) -> int:
        """Number of events of a topic that the broker acknowledged since a moment, UTC in ms since 1970."""
        return self._outbox.acked_since(ts_ms, topic)

    def depth(self) -> Depth:
        """How full the outbox is."""
        return self._outbox.depth()

    def close(self) -> None:
        """Write what is left and close; a file that was removed is put back.

        Raises:
            StoreError: The last notes could not be written, or the file not be put back.
        """
        try:
            with transaction(self._connection):
                self._write_notes()
                self._tell(())
        finally:
            with closing(self._connection):
                if self._is_nameless():
                    write_back(self._connection, self.path)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Remember damage: no other try with this file will work."""
        try:
            yield
        except StoreDamaged as error:
            self.found_damaged(error.what)
            raise

    def _begin_anew(self) -> None:
        """Replace the damaged file. SQLite itself has said so; a check that finds nothing would not help."""
        with closing(self._connection):
            self.damage = begin_anew(self.path, self._found)
            self._open()

    def _is_nameless(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the disk is in trouble, and the next commit says so
        return (found.st_dev, found.st_ino) != self.file

    def _write_notes(self) -> None:
        for sql, values in self._notes:
            self._connection.execute(sql, values)

    def _tell(self, parts: Iterable[tuple[int, Part]]) -> None:
        if self._news is None:
            return
        for seq, part in self._withheld:
            self._news.tell(self._outbox, seq, part)
        self._news.tell_last(self._outbox)  # not of the new ones: an OK among them can still be held back
        for seq, part in parts:
            self._news.tell(self._outbox, seq, part)

    def _write(self, part: Part, event: Anomaly | None) -> int:
        seq = self._insert(part)
        if event is not None:
            self._outbox.append(event.topic, event.to_json().decode(), part_seq=seq)
        return seq

    def _renew_lease(self) -> None:
        """Before the numbers are on disk: of parts and of events, which may be far more."""
        newest = self._newest()
        if newest >= self._next_lease:
            self._next_lease = lease_numbers(self.path, newest)

    def _newest(self) -> int:
        (seq,) = self._connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
        return int(seq or 0)

    def _insert(self, part: Part) -> int:
        row = part_row(part)
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        cursor = self._connection.execute(
            f"INSERT INTO part ({names}) VALUES ({marks})",  # noqa: S608 our own column names
            tuple(row.values()),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid
