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
    active = folder.active_sha256
    return newest_for(station_records(folder), active) if active else None
