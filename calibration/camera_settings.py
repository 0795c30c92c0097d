"""How the cameras are set while a calibration is signed: it holds for these settings only."""

from __future__ import annotations

import json

from kenpin.edge_runtime.vitals import Vitals, read_vitals
from kenpin.station_folder import StationFolder


def camera_settings(folder: StationFolder) -> dict[str, dict[str, float | str]]:
    """Settings of each camera by its name, as the running station tells them; empty where none runs.

    Args:
        folder: The station's folder.
    """
    station = _running_station(folder)
    told: dict[str, dict[str, float | str]] = json.loads(station.texts.get("cameras", "{}")) if station else {}
    return told


def unknown_settings(folder: StationFolder) -> str:
    """Why a record that is signed now is not bound to the settings of the cameras; empty where one could be."""
    if _running_station(folder):
        away = sorted(_away(folder) - camera_settings(folder).keys())
        if not away:
            return ""
        return (
            f"{', '.join(away)} does not answer now, so it is not known how it is set: the record holds for "
            "any exposure and gain of it; see to it and calibrate again, and it holds for its own only"
        )
    return (
        "no station runs on this folder, so it is not known how its cameras are set: the record holds for any "
        "exposure and gain; start the station (kenpin run) and calibrate again, and it holds for its own only"
    )


def _away(folder: StationFolder) -> set[str]:
    """Cameras that deliver nothing now, as their processes say."""
    # What is left of an earlier configuration is not alive.
    alive = (vitals for vitals in read_vitals(folder.run).values() if vitals.is_alive)
    return {camera for vitals in alive for camera, is_up in vitals.cameras_up.items() if not is_up}


def _running_station(folder: StationFolder) -> Vitals | None:
    station = read_vitals(folder.run).get("station")
    return station if station is not None and station.is_alive else None
