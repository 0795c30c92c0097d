"""The scores of the last days, kept in memory: reading them takes a second, a move of T1 must not."""

from __future__ import annotations

import time
from threading import Lock

from kenpin.calibration.stored import WEEK_MS
from kenpin.calibration.what_if import History, read_history
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder


class Histories:
    """May be used from any thread.

    Args:
        folder: The station's folder.
    """

    def __init__(self, folder: StationFolder) -> None:
        self._folder = folder
        self._lock = Lock()
        self._history: History | None = None
        self._bundle_sha256 = ""
        self._read_s = 0.0

    def get(self, bundle_sha256: str, *, max_age_s: float) -> History:
        """The scores that a bundle gave in the last 7 days.

        Args:
            bundle_sha256: The bundle.
            max_age_s: How old what is in memory may be.

        Raises:
            StoreError: The database cannot be read.
        """
        with self._lock:
            is_old = time.monotonic() - self._read_s > max_age_s or bundle_sha256 != self._bundle_sha256
            if self._history is None or is_old:
                since_ms = now_ms() - WEEK_MS
                self._history = None  # not two of them at a time
                self._history = read_history(self._folder.database, bundle_sha256, since_ms=since_ms)
                self._bundle_sha256, self._read_s = bundle_sha256, time.monotonic()
            return self._history
