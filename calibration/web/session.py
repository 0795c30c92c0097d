"""Sessions: who is logged in at which browser. They outlive the page's process, but not a shift."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from kenpin.calibration.web.page_database import page_database
from kenpin.calibration.web.role import Role
from kenpin.events import now_ms

LONGEST_MS = 12 * 3_600_000
IDLE_MS = 30 * 60_000  # for those who may change something; pages count, a picture that renews itself does not
_SEEN_EVERY_MS = 60_000


@dataclass(frozen=True)
class Session:
    """A login.

    Attributes:
        name: Who.
        started_ms: UTC of the login, milliseconds since 1970.
        seen_ms: UTC of the last page.
        user_since_ms: `User.since_ms` then. The login is of that setting only, and the two are never compared
            with a clock: that of a Jetson without a battery starts in the past.
    """

    name: str
    started_ms: int
    seen_ms: int
    user_since_ms: int

    def is_over(self, role: Role) -> bool:
        """Whether it has ended by itself; a clock that was set is no reason to go on."""
        now = now_ms()
        idle = role > Role.VIEWER and abs(now - self.seen_ms) >= IDLE_MS
        return idle or abs(now - self.started_ms) >= LONGEST_MS


def new_session_id() -> str:
    """What the cookie of a browser says that has none yet."""
    return secrets.token_urlsafe(32)


class Sessions:
    """The sessions of one station.

    Args:
        path: The page's database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, name: str, *, user_since_ms: int) -> str:
        """Log somebody in.

        Args:
            name: Who.
            user_since_ms: `User.since_ms`.

        Returns:
            What the cookie says from now on: what it said before, a stranger might have set.

        Raises:
            StoreError: It cannot be written.
        """
        session_id, now = new_session_id(), now_ms()
        with page_database(self._path) as connection:
            connection.execute("DELETE FROM session WHERE abs(? - started_ms) >= ?", (now, LONGEST_MS))
            row = (_key(session_id), name, now, now, user_since_ms)
            connection.execute("INSERT INTO session VALUES (?, ?, ?, ?, ?)", row)
        return session_id

    def find(self, session_id: str) -> Session | None:
        """The session of a cookie.

        Raises:
            StoreError: It cannot be read.
        """
        sql = "SELECT name, started_ms, seen_ms, user_since_ms FROM session WHERE id_sha256 = ?"
        with page_database(self._path) as connection:
            row = connection.execute(sql, (_key(session_id),)).fetchone()
        return Session(*row) if row else None

    def touch(self, session_id: str) -> None:
        """A page was looked at.

        Raises:
            StoreError: It cannot be written.
        """
        now = now_ms()
        sql = "UPDATE session SET seen_ms = ? WHERE id_sha256 = ? AND abs(? - seen_ms) >= ?"
        with page_database(self._path) as connection:
            connection.execute(sql, (now, _key(session_id), now, _SEEN_EVERY_MS))

    def end(self, session_id: str) -> None:
        """Log out.

        Raises:
            StoreError: It cannot be written.
        """
        with page_database(self._path) as connection:
            connection.execute("DELETE FROM session WHERE id_sha256 = ?", (_key(session_id),))


def _key(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()
