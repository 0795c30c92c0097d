"""The note that a station is being calibrated.

The page writes it when a technician begins and removes it when all is signed or given up. A technician who was
called away has not finished.
"""

from __future__ import annotations

from kenpin.hold import Hold, hold, let_go, read_hold
from kenpin.station_folder import StationFolder


def begin_calibrating(folder: StationFolder, by: str) -> None:
    """Let the station release nothing; it still scores each part and keeps its picture.

    Raises:
        OSError: It cannot be written.
    """
    hold(folder.calibrating, by)


def end_calibrating(folder: StationFolder) -> None:
    """Let the station go on by its calibration record.

    Raises:
        OSError: The note cannot be removed.
    """
    let_go(folder.calibrating)


def read_calibrating(folder: StationFolder) -> Hold | None:
    """Who calibrates; `None` when nobody does."""
    return read_hold(folder.calibrating)
