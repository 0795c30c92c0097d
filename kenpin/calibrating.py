"""The note that a station is being calibrated.

The page writes it when a technician begins and removes it when all is signed or given up. A technician who was
called away has not finished.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from kenpin.errors import CalibrationError
from kenpin.hold import Hold, hold, let_go, read_hold
from kenpin.station_folder import StationFolder


def begin_calibrating(folder: StationFolder, by: str, *, instead_of: Hold | None = None) -> Hold:
    """Let the station release nothing; it still scores each part and keeps its picture.

    Of two who begin at once one is refused: the end of the first would let the parts of the other be released.

    Args:
        folder: The station's folder.
        by: Who begins.
        instead_of: The note of somebody who is gone, which is taken over.

    Returns:
        The note.

    Raises:
        CalibrationError: Somebody calibrates or checks.
        OSError: It cannot be written.
    """
    with _alone(folder):
        if read_calibrating(folder) != instead_of:
            refuse_while_calibrating(folder)
        return hold(folder.calibrating, by)


def end_calibrating(folder: StationFolder, note: Hold | None = None) -> None:
    """Let the station go on by its calibration record.

    Args:
        folder: The station's folder.
        note: The one to remove; that of somebody who has begun since stays. Default: whichever is there.

    Raises:
        OSError: The note cannot be removed.
    """
    with _alone(folder):
        if note in (None, read_calibrating(folder)):
            let_go(folder.calibrating)


def read_calibrating(folder: StationFolder) -> Hold | None:
    """Who calibrates; `None` when nobody does."""
    return read_hold(folder.calibrating)


def refuse_while_calibrating(folder: StationFolder) -> None:
    """What is shown for a calibration, or a check of the masters, is of one bundle and one list of masters.

    Else nobody could tell afterwards what was to be seen.

    Raises:
        CalibrationError: Somebody calibrates or checks.
    """
    note = read_calibrating(folder)
    if note is not None:
        raise CalibrationError(
            f"{note.by} calibrates or checks this station",
            where=folder.calibrating,
            cure="wait until that is ended, or end it on the page",
        )


@contextmanager
def _alone(folder: StationFolder) -> Iterator[None]:
    """Nobody else writes or removes the note meanwhile."""
    with folder.calibrating.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
