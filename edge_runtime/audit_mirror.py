"""The audit's mirror: each new row of the station's audit as an event, a witness of it off the station."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

from kenpin.audit import audit_file, checkpoint
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import explained, transaction
from kenpin.edge_runtime.file_stamp import file_stamp
from kenpin.edge_runtime.outbox import Outbox
from kenpin.events import Audit
from kenpin.ledger import Line, lines_of
from kenpin.station_folder import StationFolder

Kind = Literal["command", "model", "threshold", "config", "user", "security"]

_KINDS: Mapping[str, Kind] = {
    "thresholds": "threshold",
    "bundle": "model",
    "command": "command",
    "alarm": "command",
    "users": "user",
    "login": "security",
    "sparkplug": "security",
}
# Room for each text in an event, in bytes of its JSON, where a character of Japanese takes six: together with
# the other fields always less than `kenpin.events.MAX_BYTES`, or a long row would hide those after it.
_ROOM: Mapping[str, int] = {"what": 600, "by": 600, "old": 1800, "new": 1800, "why": 1800}
_CUT = "..."
_BITE_ROWS = 100  # told in one transaction; the line's thread waits for it when it has a part to commit
MIRRORED = "audit_mirrored"
BEGAN = "audit_began"  # when the file that was mirrored begins; one that was moved away has a follower


class AuditMirror:
    """Tells what was written to the audit since it was told last, each row once and in order.

    Two processes may have one each: the station's watchman tells every row, the publisher those of commands
    together with its answers. The note in the database says how far they are.

    Args:
        folder: The station's folder.
        connection: From `kenpin.edge_runtime.database`; its thread must be the only one to use it.
        identity: Who speaks.
    """

    def __init__(self, folder: StationFolder, connection: sqlite3.Connection, identity: Identity) -> None:
        self._folder = folder
        self._connection = connection
        self._identity = identity
        self._outbox = Outbox(connection)
        self._seen: tuple[int, ...] = ()
        self._began_ms = 0
        self._known: Line | None = None  # told, as are all before it

    def come_round(self) -> None:
        """Vouch for the audit where it is time, and tell the new rows.

        Raises:
            KenpinError: The audit or the store cannot be written; it is tried again with the next round.
        """
        path = audit_file(self._folder)
        if not path.exists():
            return
        try:
            checkpoint(self._folder, by="station")
        finally:  # where it cannot be continued, as its end was damaged, that most of all
            self._tell_new(path)

    def _tell_new(self, path: Path) -> None:
        seen = file_stamp(path)
        if seen == self._seen:
            return
        lines = self.untold()
        for start in range(0, len(lines), _BITE_ROWS):  # all the years of it, where the database was lost
            with transaction(self._connection):
                self.tell(lines[start : start + _BITE_ROWS])
        self._seen = seen

    def untold(self) -> list[Line]:
        """The rows that nobody has told yet; to be read before a transaction, as a long audit takes its time.

        Raises:
            StoreError: The database cannot be read.
            OSError: The audit cannot be read.
        """
        path = audit_file(self._folder)
        first = next(lines_of(path), None)
        if first is not None:
            self._follow(first.row.get("ts_ms", 0))
        told = self._told()
        found = []
        for line in lines_of(path, after=self._known):
            if line.number > told:
                found.append(line)
            else:
                self._known = line
        return found

    def tell(self, lines: Sequence[Line]) -> None:
        """Tell rows in the caller's transaction, but for those that somebody has told since they were read.

        Args:
            lines: From `untold`.

        Raises:
            StoreError: The database cannot be read.
        """
        told = self._told()
        for line in lines:
            if line.number > told:
                told = line.number
                self._outbox.put(self._event(line))
        self._note(MIRRORED, told)

    def _follow(self, began_ms: int) -> None:
        """Begin anew with another file: the one before was damaged, and was moved away as it should be."""
        if began_ms == self._began_ms:
            return
        self._began_ms, self._known = began_ms, None
        with transaction(self._connection):
            noted = self._counter(BEGAN)
            if noted == began_ms:
                return
            self._note(BEGAN, began_ms)
            if noted:
                self._note(MIRRORED, 0)

    def _told(self) -> int:
        return self._counter(MIRRORED)

    def _counter(self, name: str) -> int:
        with explained("the station's database"):
            row = self._connection.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _note(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))

    def _event(self, line: Line) -> Audit:
        row = {name: _cut(str(line.row.get(name, "")), room) for name, room in _ROOM.items()}
        return Audit(
            **self._identity.common(line.row.get("ts_ms", 0)),
            kind=_KINDS.get(row["what"], "config"),
            actor=row["by"] or "unknown",
            subject=row["what"] or "a damaged row",
            old=row["old"],
            new=row["new"],
            reason=_cut(line.fault, _ROOM["why"]) or row["why"],
            entry=line.number,
            head_sha256=line.sha256,
        )


def _cut(text: str, room: int) -> str:
    """As much of a text as has room in an event; the row's hash still vouches for all of it."""
    if len(json.dumps(text)) <= room:
        return text
    sizes = accumulate(len(json.dumps(character)) - 2 for character in text)
    return text[: sum(size <= room - len(_CUT) - 2 for size in sizes)] + _CUT
