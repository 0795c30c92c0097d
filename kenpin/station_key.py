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
        CalibrationError: The key is gone, but what it signed is there.
        ConfigError: The key is damaged, can be read by others, or cannot be made.
    """
    require_key(folder)
    if not folder.key.exists():
        SecretKey.generate().save(folder.key)
    key, public = SecretKey.load(folder.key), folder.public_key
    if not public.exists():  # the power failed between the two
        with suppress(OSError):  # a full disk; whoever needs the public one says so
            replace_synced(public, key.public.dumps().encode())
    return key


def require_key(folder: StationFolder) -> None:
    """Make sure that the key is not gone, as after a copy by a user who could not read it.

    Raises:
        CalibrationError: It is. Another one would not have signed what is there.
    """
    if not folder.key.exists() and (folder.public_key.exists() or folder.records.exists()):
        raise CalibrationError(
            "the station's key is gone: nothing can be signed any more, and no change be made",
            where=folder.key,
            cure="put it back from a copy of the folder; without one move station.pub, calibration.jsonl, "
            "audit.jsonl and masters.jsonl away, calibrate, and register the masters again",
        )
