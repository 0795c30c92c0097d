"""A calibration that is going on, as the page's database keeps it: it outlives the page's process."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from kenpin.calibration.web.page_database import page_database
from kenpin.precision import Precision

Step = Literal["good", "masters", "limits", "sign"]
STEPS: tuple[Step, ...] = get_args(Step)
Kind = Literal["good", "left", "master"]


@dataclass(frozen=True)
class Label:
    """What the technician says of a part that was shown.

    Attributes:
        kind: `good` although it was doubted, `left` out, or `master`.
        name: Of the master.
        type: What is wrong with the master.
    """

    kind: Kind
    name: str = ""
    type: str = ""


@dataclass(frozen=True)
class Start:
    """What a calibration begins with.

    Attributes:
        by: Who calibrates.
        bundle_sha256: The bundle that scores.
        precision: Which of its models.
        first_seq: Number of the last part before it.
        cameras: How each camera is set, JSON, as the station tells it; empty = not known.
    """

    by: str
    bundle_sha256: str
    precision: Precision
    first_seq: int
    cameras: str = ""


@dataclass(frozen=True)
class Run:
    """A calibration that is going on.

    Attributes:
        start: What it began with.
        last_seq: Number of the last part that was shown as good; `None` while good parts are shown.
        step: Where the technician is.
        t1: Placed by hand; `None` = as suggested.
        t2: Placed by hand; `None` = as suggested.
        labels: What was said of parts, by number.
    """

    start: Start
    last_seq: int | None
    step: Step
    t1: float | None
    t2: float | None
    labels: Mapping[int, Label] = field(default_factory=dict)


class Runs:
    """The calibration of one station; there is at most one.

    Every method raises StoreError where the database cannot be used.

    Args:
        path: The page's database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Run | None:
        """The one that is going on; `None` = none is."""
        with page_database(self._path) as connection:
            row = connection.execute(
                "SELECT by, bundle_sha256, precision, first_seq, cameras, last_seq, step, t1, t2 "
                "FROM calibration_run"
            ).fetchone()
            labels = connection.execute("SELECT seq, kind, name, type FROM calibration_label").fetchall()
        if row is None:
            return None
        start, (last_seq, step, t1, t2) = Start(*row[:5]), row[5:]
        return Run(start, last_seq, step, t1, t2, {seq: Label(*said) for seq, *said in labels})

    def begin(self, start: Start) -> None:
        """Begin anew; what was there before is forgotten."""
        sql = "INSERT INTO calibration_run VALUES (1, ?, ?, ?, ?, NULL, 'good', NULL, NULL, ?)"
        row = (start.by, start.bundle_sha256, start.precision, start.first_seq, start.cameras)
        with page_database(self._path) as connection:
            _forget(connection)
            connection.execute(sql, row)

    def end(self) -> None:
        """Forget it, signed or given up."""
        with page_database(self._path) as connection:
            _forget(connection)

    def go(self, step: Step, *, newest_seq: int) -> None:
        """Go to a step. Good parts are those up to the moment in which the technician first goes on.

        Args:
            step: Where to.
            newest_seq: Number of the newest part.
        """
        with page_database(self._path) as connection:
            connection.execute("UPDATE calibration_run SET step = ?", (step,))
            if step != "good":
                connection.execute(
                    "UPDATE calibration_run SET last_seq = ? WHERE last_seq IS NULL", (newest_seq,)
                )

    def place(self, t1: float | None, t2: float | None) -> None:
        """Place T1 and T2 by hand; `None` = as suggested."""
        with page_database(self._path) as connection:
            connection.execute("UPDATE calibration_run SET t1 = ?, t2 = ?", (t1, t2))

    def label(self, seq: int, label: Label) -> None:
        """Say what a part is. T1 and T2 are as suggested again: they were placed in view of other parts."""
        with page_database(self._path) as connection:
            row = (seq, label.kind, label.name, label.type)
            connection.execute("INSERT OR REPLACE INTO calibration_label VALUES (?, ?, ?, ?)", row)
            connection.execute("UPDATE calibration_run SET t1 = NULL, t2 = NULL")

    def unlabel(self, seq: int) -> None:
        """Take it back."""
        with page_database(self._path) as connection:
            connection.execute("DELETE FROM calibration_label WHERE seq = ?", (seq,))
            connection.execute("UPDATE calibration_run SET t1 = NULL, t2 = NULL")


def _forget(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM calibration_run")
    connection.execute("DELETE FROM calibration_label")
