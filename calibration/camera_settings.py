"""How the cameras are set while a calibration is signed: it holds for these settings only."""

from __future__ import annotations

import json

from kenpin.edge_runtime.vitals import read_vitals
from kenpin.station_folder import StationFolder


def camera_settings(folder: StationFolder) -> dict[str, dict[str, float | str]]:
    """Settings of each camera by its name, as the running station tells them; empty where none runs.

    Args:
        folder: The station's folder.
    """
    station = read_vitals(folder.run).get("station")
    if station is None or not station.is_alive:
        return {}
    told: dict[str, dict[str, float | str]] = json.loads(station.texts.get("cameras", "{}"))
    return told
