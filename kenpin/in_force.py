"""The calibration record that holds for the active bundle."""

from __future__ import annotations

from kenpin.record import CalibrationRecord, newest_for, station_records
from kenpin.station_folder import StationFolder


def record_in_force(folder: StationFolder) -> CalibrationRecord | None:
    """The newest record of the active bundle; `None` where nothing is active or it was never calibrated.

    Raises:
        CalibrationError: The records do not verify.
        ConfigError: The station's public key cannot be read.
    """
    if not folder.active.exists():
        return None
    return newest_for(station_records(folder), folder.active.resolve().name)
