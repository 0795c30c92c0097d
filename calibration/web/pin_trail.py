"""Wrong PINs in the audit: they are counted, and a row is written each time the count has doubled.

So there is a row for the first wrong PIN and for the first try that was refused as too early, and guessing day
and night makes about twenty more, not one each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from kenpin import audit
from kenpin.calibration.web.attempts import FORGET_S
from kenpin.station_folder import StationFolder

WHAT = "login"


@dataclass(frozen=True)
class _Series:
    """Tries for one account without a right one, and without a quarter of an hour between two of them."""

    name: str
    address: str
    last_s: float
    wrong: int = 0
    early: int = 0
    told: int = 0

    @property
    def count(self) -> int:
        return self.wrong + self.early

    @property
    def has_doubled(self) -> bool:
        return self.count >= 2 * self.told


class PinTrail:
    """Writes down who did not get in.

    Every method raises StoreError, CalibrationError or ConfigError where the audit cannot be written.

    Args:
        folder: The station's folder.
        clock_s: Monotonic clock in seconds.
    """

    def __init__(self, folder: StationFolder, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock_s = clock_s
        self._series: dict[str, _Series] = {}
        self._lock = threading.Lock()

    def refused(self, account: str, name: str, address: str, *, is_early: bool) -> None:
        """A try failed.

        Args:
            account: Whose PIN it was to be; there are as many as users, and one more, here and in the network.
            name: Of the user; empty = nobody's. What somebody typed as a name may well be a PIN.
            address: Where the browser is.
            is_early: Whether it came too early, and was not looked at.
        """
        with self._lock:
            now_s = self._clock_s()
            known = self._series.get(account)
            if known is not None and now_s - known.last_s > FORGET_S:
                self._close(account)
                known = None
            series = replace(known or _Series(name, address, now_s), address=address, last_s=now_s)
            series = replace(series, wrong=series.wrong + (not is_early), early=series.early + is_early)
            self._series[account] = series
            if series.has_doubled or (is_early and series.early == 1):
                self._tell(account)

    def right(self, account: str) -> None:
        """The PIN was right: what has not been told yet of the tries before is told now."""
        with self._lock:
            self._close(account)

    def _close(self, account: str) -> None:
        series = self._series.get(account)
        if series is not None and series.count > series.told:
            self._tell(account)
        self._series.pop(account, None)

    def _tell(self, account: str) -> None:
        series = self._series[account]
        said = f"wrong PIN: {series.wrong}"
        if series.early:
            said += f"; limit reached, refused as too early: {series.early}"
        entry = audit.Entry(WHAT, series.name or "unknown name", "", said, f"from {series.address}")
        audit.append(self._folder, entry)
        self._series[account] = replace(series, told=series.count)
