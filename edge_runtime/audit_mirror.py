"""The audit's mirror: each new row of the station's audit as an event, a witness of it off the station."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Literal

from kenpin.audit import audit_file, checkpoint
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import explained, transaction
from kenpin.edge_runtime.outbox import Outbox
from kenpin.events import Audit
from kenpin.ledger import Line, lines_of
from kenpin.station_folder import StationFolder

Kind = Literal["command", "model", "threshold", "config", "user", "security"]

_KINDS: Mapping[str, Kind] = {
    "thresholds": "threshold",
    "bundle": "model",
    "command": "command",
    "user": "user",
    "login": "security",
}
_MIRRORED = "audit_mirrored"


class AuditMirror:
    """Tells what was written to the audit since it was told last.

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
        self._seen_ns = 0

    def come_round(self) -> None:
        """Vouch for the audit where it is time, and tell the new rows.

        Raises:
            KenpinError: The audit or the store cannot be written; it is tried again with the next round.
        """
        path = audit_file(self._folder)
        if not path.exists():
            return
        checkpoint(self._folder, by="station")
        written_ns = path.stat().st_mtime_ns
        if written_ns == self._seen_ns:
            return
        told = self._told()
        lines = [line for line in lines_of(path) if line.number > told]
        if lines:
            with transaction(self._connection):
                for line in lines:
                    self._outbox.put(self._event(line))
                self._connection.execute(
                    "INSERT OR REPLACE INTO counter VALUES (?, ?)", (_MIRRORED, lines[-1].number)
                )
        self._seen_ns = written_ns

    def _told(self) -> int:
        with explained("the station's database"):
            row = self._connection.execute("SELECT value FROM counter WHERE name = ?", (_MIRRORED,)).fetchone()
        return int(row[0]) if row else 0

    def _event(self, line: Line) -> Audit:
        row = {name: str(line.row.get(name, "")) for name in ("what", "by", "old", "new", "why")}
        return Audit(
            **self._identity.common(int(line.row.get("ts_ms", 0))),
            kind=_KINDS.get(row["what"], "config"),
            actor=row["by"] or "unknown",
            subject=row["what"] or "a damaged row",
            old=row["old"],
            new=row["new"],
            reason=line.fault or row["why"],
            entry=line.number,
            head_sha256=line.sha256,
        )
