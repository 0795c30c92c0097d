"""The hold: while the page calibrates, or checks the masters, the station releases nothing."""

from __future__ import annotations

from collections.abc import Callable

from kenpin.calibrating import end_calibrating
from kenpin.edge_runtime.database import explained
from kenpin.station_folder import StationFolder


def end_hold(folder: StationFolder, forget: Callable[[], None]) -> None:
    """End what the station is held for, done or given up.

    The note goes last: without it the station releases what is shown for a run that is still there.

    Args:
        folder: The station's folder.
        forget: Forgets the run.

    Raises:
        StoreError: The run cannot be forgotten, or the note not be removed.
    """
    forget()
    with explained(folder.calibrating):
        end_calibrating(folder)
