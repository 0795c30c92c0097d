"""How the cameras are set while a calibration is signed: it holds for these settings only."""

from __future__ import annotations

import json
import re

from kenpin.edge_runtime.vitals import Vitals, read_vitals
from kenpin.station_folder import StationFolder

_CAMERA_UP = re.compile(r'camera_up\{camera="(.*)"\}')


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
    alive = (vitals.numbers for vitals in read_vitals(folder.run).values() if vitals.is_alive)
    told = (item for numbers in alive for item in numbers.items())
    return {name[1] for text, is_up in told if not is_up and (name := _CAMERA_UP.fullmatch(text))}


def _running_station(folder: StationFolder) -> Vitals | None:
    station = read_vitals(folder.run).get("station")
    return station if station is not None and station.is_alive else None
