"""The station's own key, which signs what the station states: its calibration records and engine reports."""

from __future__ import annotations

from contextlib import suppress

from kenpin.errors import CalibrationError, ConfigError
from kenpin.signing import PublicKey, SecretKey
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


def station_public_key(folder: StationFolder) -> PublicKey:
    """What the station's signatures are checked with; made of the secret key where its own file is gone.

    Raises:
        CalibrationError: Both keys are gone, but what they signed is there.
        ConfigError: No key is there, as where no station is, or it is damaged.
    """
    if not folder.public_key.exists():
        require_key(folder)
        if not folder.key.exists():
            cure = f"give the station's folder: --state DIR; or put {folder.public_key.name} back from a copy"
            raise ConfigError("no station's key is there", where=folder.root, cure=cure)
        return SecretKey.load(folder.key).public
    try:
        return PublicKey.load(folder.public_key)
    except ConfigError as error:
        cure = f"put it back from a copy, or remove it: it is made anew of {folder.key.name}"
        raise ConfigError(error.what, where=folder.public_key, cure=cure) from None


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
