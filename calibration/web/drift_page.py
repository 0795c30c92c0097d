"""The Drift page: whether parts still score like those that the thresholds rest on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response

from kenpin.calibration.drift import Drift, read_drift
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.drift_plot import draw_level, draw_measure, draw_psi, draw_stopped
from kenpin.calibration.web.page import page
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of
from kenpin.events import now_ms
from kenpin.record import CalibrationRecord, record_in_force
from kenpin.station_folder import StationFolder

MENU = Page("drift", "/drift")
router = APIRouter()

_FRESH_S = 30.0


@router.get(MENU.path, dependencies=needs(Role.VIEWER))
def drift(request: Request, show: Literal["score", "coarse", "mid", "fine", "picture"] = "score") -> Response:
    """The last 24 hours against the calibration: one level of the scores, or light and focus."""
    folder = site_of(request).folder
    record = record_in_force(folder)
    if record is None:
        return page(request, "drift.html", {"record": None})
    readings: Readings = request.app.state.readings
    read = readings.get(record)
    now = now_ms()
    told = {"record": record, "drift": read, "show": show, "stopped": draw_stopped(read, now_ms=now)}
    if show == "picture":
        told["measures"] = [(m.name, draw_measure(read, m, now_ms=now)) for m in read.measures]
    else:
        level = next(level for level in read.levels if level.name == show)
        told |= {"level": level, "psi": draw_psi(read, show, now_ms=now), "shares": draw_level(level)}
    return page(request, "drift.html", told)


@dataclass
class _Reading:
    rev: int
    read_s: float
    drift: Drift


class Readings:
    """Keeps what was read for a while: on a fast line a day is a million parts. May be used from any thread.

    Args:
        folder: The station's folder.
    """

    def __init__(self, folder: StationFolder) -> None:
        self._folder = folder
        self._lock = Lock()
        self._last: _Reading | None = None

    def get(self, record: CalibrationRecord) -> Drift:
        """How the last hours compare with a calibration.

        Raises:
            StoreError: The database cannot be read.
        """
        with self._lock:
            last = self._last
            if last is None or last.rev != record.rev or time.monotonic() - last.read_s > _FRESH_S:
                found = read_drift(self._folder, record, now_ms=now_ms())
                last = self._last = _Reading(record.rev, time.monotonic(), found)
            return last.drift
