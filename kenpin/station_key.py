"""The station's own key, which signs what the station states: its calibration records and engine reports."""

from __future__ import annotations

from contextlib import suppress

from kenpin.errors import CalibrationError
from kenpin.signing import SecretKey
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced


def station_key(folder: StationFolder) -> SecretKey:
    """The station's own key; made on first use.

    Raises:
        CalibrationError: The key is gone, but records are there that were signed with it.
        ConfigError: The key is damaged, can be read by others, or cannot be made.
    """
    if not folder.key.exists():
        if folder.records.exists():
            raise CalibrationError(
                "the station's key is gone, so its calibration records cannot be verified",
                where=folder.key,
                cure=f"restore it, or move {folder.records} away and calibrate again",
            )
        SecretKey.generate().save(folder.key)
    key, public = SecretKey.load(folder.key), folder.public_key
    if not public.exists():  # the power failed between the two
        with suppress(OSError):  # a full disk; whoever needs the public one says so
            replace_synced(public, key.public.dumps().encode())
    return key
