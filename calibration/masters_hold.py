"""The station during `kenpin masters check`: it releases nothing, and its parts are known as shown ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kenpin.calibrating import begin_calibrating, end_calibrating, read_calibrating
from kenpin.calibration.masters_check import Seen
from kenpin.edge_runtime.database import explained, reading
from kenpin.errors import CalibrationError, SourceError, StoreError
from kenpin.hold import Hold
from kenpin.sole_use import sole_use
from kenpin.station_folder import StationFolder

_POLL_S = 0.1
_MARK = " (kenpin masters check)"


@contextmanager
def held_for_check(folder: StationFolder, by: str) -> Iterator[Hold]:
    """Let the station release nothing meanwhile; gives the note that says so.

    The note of a check that was killed is taken over. Where what was seen could not be written down, the note
    stays: else a known bad part could have passed, and nobody would know.

    Args:
        folder: The station's folder.
        by: Who checks.

    Raises:
        CalibrationError: Somebody calibrates or checks already.
        ConfigError: This is root, who could not write down what was seen in somebody else's folder.
        StoreError: The note cannot be written.
    """
    folder.refuse_root()
    with explained(folder.calibrating):
        try:
            lock = sole_use(folder.root / "masters-check.lock")
        except BlockingIOError:
            raise CalibrationError(
                "another check of the masters is going on", where=folder.root, cure="wait until it is ended"
            ) from None
        with lock:
            note = read_calibrating(folder)
            gone = note if note is not None and note.by.endswith(_MARK) else None
            yield from _let_go_after(folder, begin_calibrating(folder, by + _MARK, instead_of=gone))


def _let_go_after(folder: StationFolder, note: Hold) -> Iterator[Hold]:
    """Of whoever has ended it on the page, and begun there, the note stays."""
    try:
        yield note
    except StoreError:
        raise
    except BaseException:
        end_calibrating(folder, note)
        raise
    end_calibrating(folder, note)


class PartWatch:
    """Waits for the parts that a running station judges, from the first one that is known as a shown one on.

    Args:
        folder: The station's folder; the check is held.
        wait_s: Longest time to wait for one part.
    """

    def __init__(self, folder: StationFolder, *, wait_s: float) -> None:
        self._folder = folder
        self._path = folder.database
        self._wait_s = wait_s
        self._newest: int = self._ask("SELECT coalesce(max(seq), 0) FROM part")[0]
        self._has_begun = False

    def next(self, note: Hold) -> Seen:
        """The next part. Those that were under way when the check began count for nothing.

        Args:
            note: What holds the station for the check.

        Raises:
            CalibrationError: The note is gone: what comes now may be a part of the line.
            SourceError: None came.
            StoreError: The database cannot be read.
        """
        deadline = time.monotonic() + self._wait_s
        sql = """SELECT seq, score, coalesce(bundle_sha256, '') FROM part
            WHERE seq > ? AND (? OR cause = 'calibrating') ORDER BY seq LIMIT 1"""
        while not (row := self._ask(sql, self._newest, int(self._has_begun))):
            self._require(note)
            if time.monotonic() > deadline:
                raise SourceError(
                    f"the station saw no part for {self._wait_s:g} s; the check is broken off",
                    where=self._path,
                    cure="start the station, show the part again, and begin anew",
                )
            time.sleep(_POLL_S)
        self._require(note)
        self._newest, score, bundle_sha256 = row
        self._has_begun = True
        return Seen(self._newest, score, bundle_sha256)

    def _require(self, note: Hold) -> None:
        if read_calibrating(self._folder) != note:
            raise CalibrationError(
                "somebody has ended this check on the page",
                where=self._folder.calibrating,
                cure="ask who it was, and begin anew",
            )

    def _ask(self, sql: str, *values: int) -> tuple[Any, ...]:
        with reading(self._path) as connection:
            return connection.execute(sql, values).fetchone() or ()
