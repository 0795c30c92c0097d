"""The calibration record that holds for the active bundle."""

from __future__ import annotations

from kenpin.record import CalibrationRecord, load_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder


def record_in_force(folder: StationFolder) -> CalibrationRecord | None:
    """The newest record of the active bundle; `None` where nothing is active or it was never calibrated.

    Raises:
        CalibrationError: The records do not verify.
        ConfigError: The station's public key cannot be read.
    """
    if not folder.records.exists() or not folder.active.exists():
        return None
    active = folder.active.resolve().name
    records = load_records(folder.records, PublicKey.load(folder.key.with_suffix(".pub")))
    return next((record for record in reversed(records) if record.bundle_sha256 == active), None)
