"""The masters' ledger, opened to write in: every change stands in the audit first."""

from __future__ import annotations

import hashlib

from pydantic import ValidationError

from kenpin import audit, ledger
from kenpin.errors import ConfigError, DataError, StoreError
from kenpin.masters import (
    Check,
    Expected,
    Interval,
    Master,
    Masters,
    Removal,
    Row,
    masters_file,
    read_masters,
)
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key
from kenpin.synced_file import replace_synced


def make_master(name: str, kind: str, expected: Expected, *, picture: bytes, suffix: str) -> Master:
    """A master, checked.

    Raises:
        ConfigError: Name or type are not usable.
    """
    sha256 = hashlib.sha256(picture).hexdigest()
    place = f"masters/{sha256[:16]}{suffix}"
    try:
        return Master(id=name, type=kind, expected=expected, picture=place, picture_sha256=sha256)
    except ValidationError as error:
        field_name = error.errors()[0]["loc"][0]
        raise ConfigError(
            f"the {field_name} of the master is not usable",
            where=name,
            cure="use 1 to 64 characters, in the id only A-Z a-z 0-9 _ . -",
        ) from None


def add_master(folder: StationFolder, master: Master, picture: bytes, *, by: str, why: str) -> None:
    """Register a master, with its picture. One of the same name is replaced.

    Raises:
        StoreError: It cannot be written.
    """
    _known(folder)
    target = folder.root / master.picture
    try:
        target.parent.mkdir(exist_ok=True)
        replace_synced(target, picture)
    except OSError as error:
        raise StoreError(
            f"the picture cannot be stored: {error.strerror}", where=target, cure="make room on the disk"
        ) from None
    _append(folder, master, audit.Entry("masters", by, "", _in_words(master), why))


def remove_master(folder: StationFolder, master_id: str, *, by: str, why: str) -> None:
    """Take a master off the list. Its picture stays, as evidence.

    Raises:
        DataError: There is no such master.
        StoreError: It cannot be written.
    """
    known = _known(folder)
    if master_id not in known.registered:
        names = ", ".join(sorted(known.registered)) or "none"
        raise DataError(
            f"there is no master {master_id!r}", where=folder.root, cure=f"registered here: {names}"
        )
    gone = _in_words(known.registered[master_id])
    _append(folder, Removal(id=master_id), audit.Entry("masters", by, gone, "", why))


def set_interval(folder: StationFolder, hours: float, *, by: str, why: str) -> None:
    """Set after how many hours the masters must be shown again; 0 = no demand.

    Raises:
        StoreError: It cannot be written.
    """
    before = _known(folder).interval_h
    entry = audit.Entry("masters interval", by, f"{before:g} h", f"{hours:g} h", why)
    _append(folder, Interval(hours=hours), entry)


def append_check(folder: StationFolder, check: Check, *, by: str) -> None:
    """Write a check down.

    Raises:
        StoreError: It cannot be written.
    """
    wrong = sum(not s.is_right for s in check.showings)
    result = "passed" if check.passed else f"FAILED, {wrong} of {len(check.showings)} showings"
    _append(folder, check, audit.Entry("masters check", by, "", result))


def _known(folder: StationFolder) -> Masters:
    folder.create()
    return read_masters(folder)


def _append(folder: StationFolder, row: Row, entry: audit.Entry) -> None:
    """First into the audit: what is not written down there is not done."""
    audit.append(folder, entry)
    said = {"schema": "kenpin.masters.v1", **row.model_dump(exclude={"ts_ms"})}
    ledger.append_row(masters_file(folder), said, station_key(folder))


def _in_words(master: Master) -> str:
    return f"{master.id}, {master.type}, expected {master.expected}"
