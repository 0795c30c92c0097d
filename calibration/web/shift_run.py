"""A shift check that is going on, as the page's database keeps it: it outlives the page's process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kenpin.calibration.masters_check import Seen
from kenpin.calibration.web.page_database import page_database, page_file
from kenpin.edge_runtime.database import reading
from kenpin.events import now_ms
from kenpin.masters import Masters
from kenpin.station_folder import StationFolder


@dataclass(frozen=True)
class ShiftRun:
    """A shift check that is going on.

    Attributes:
        by: Who shows the parts.
        after_seq: Number of the last part before it.
        plan: Which masters are shown, as in `plan_of`.
    """

    by: str
    after_seq: int
    plan: str


class ShiftRuns:
    """The shift check of one station; there is at most one.

    Every method raises StoreError where the database cannot be used.

    Args:
        path: The page's database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, run: ShiftRun) -> None:
        """Remember that a check goes on."""
        row = (run.by, now_ms(), run.after_seq, run.plan)
        with page_database(self._path) as connection:
            connection.execute("INSERT OR REPLACE INTO shift_check VALUES (1, ?, ?, ?, ?)", row)

    def read(self) -> ShiftRun | None:
        """The check that goes on; `None` = none."""
        with page_database(self._path) as connection:
            row = connection.execute("SELECT name, after_seq, plan FROM shift_check").fetchone()
        return ShiftRun(*row) if row else None

    def end(self) -> None:
        """Forget it."""
        with page_database(self._path) as connection:
            connection.execute("DELETE FROM shift_check")


def plan_of(masters: Masters) -> str:
    """Which masters are to be shown: when they change meanwhile, what was shown cannot be told any more."""
    return " ".join(f"{m.id}:{m.expected}:{m.picture_sha256}" for _, m in sorted(masters.registered.items()))


def shown_parts(database: Path, run: ShiftRun, *, limit: int) -> Sequence[Seen]:
    """The parts that were shown so far, in their order.

    They begin with the first one that the station judged with the note that a check goes on: parts that were
    already under way count for nothing.

    Args:
        database: The station's database.
        run: The check.
        limit: How many are to be shown.

    Raises:
        StoreError: The database cannot be read.
    """
    sql = """SELECT seq, score, coalesce(bundle_sha256, '') FROM part
        WHERE seq >= (SELECT min(seq) FROM part WHERE seq > ? AND cause = 'calibrating')
        ORDER BY seq LIMIT ?"""
    with reading(database) as connection:
        return [Seen(*row) for row in connection.execute(sql, (run.after_seq, limit))]


def shift_under_way(folder: StationFolder) -> ShiftRun | None:
    """The check of the masters that goes on at a station; `None` without one.

    Raises:
        StoreError: The page's database cannot be read.
    """
    return ShiftRuns(page_file(folder)).read()
