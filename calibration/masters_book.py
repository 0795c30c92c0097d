"""The masters' ledger, opened to write in: every change stands in the audit first."""

from __future__ import annotations

import hashlib

from pydantic import ValidationError

from kenpin import audit, ledger
from kenpin.errors import ConfigError, DataError, StoreError
from kenpin.masters import Check, Expected, Interval, Master, Masters, Removal, Row, masters_file, read_masters
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key
from kenpin.synced_file import replace_synced


def make_master(name: str, kind: str, expected: Expected, *, picture: bytes, suffix: str) -> Master:
    """A master, checked. It is of whatever product the station judges when it is registered.

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


def add_master(folder: StationFolder, master: Master, picture: bytes, *, by: str, why: str) -> Master:
    """Register a master, with its picture. One of the same name and product is replaced.

    Returns:
        The master, with its product.

    Raises:
        StoreError: It cannot be written.
    """
    known = _known(folder)
    master = master.model_copy(update={"product": master.product or known.product})
    target = folder.root / master.picture
    try:
        target.parent.mkdir(exist_ok=True)
        replace_synced(target, picture)
    except OSError as error:
        raise StoreError(
            f"the picture cannot be stored: {error.strerror}",
            where=target,
            cure="make room on the disk, or do it as the user that owns the folder",
        ) from None
    replaced = read_masters(folder, master.product).registered.get(master.id)
    old = _in_words(replaced) if replaced else ""
    _append(folder, master, audit.Entry("masters", by, old, _in_words(master), why))
    return master


def remove_master(
    folder: StationFolder, master_id: str, *, by: str, why: str, product: str | None = None
) -> None:
    """Take a master off the list. Its picture stays, as evidence.

    Args:
        folder: The station's folder.
        master_id: Its name.
        by: Who does so.
        why: The reason.
        product: Whose master; default: of the product that the station judges.

    Raises:
        DataError: There is no such master.
        StoreError: It cannot be written.
    """
    known = _known(folder, product)
    if master_id not in known.registered:
        names = ", ".join(sorted(known.registered)) or "none"
        of = f" of {known.product}" if known.product else ""
        raise DataError(
            f"there is no master {master_id!r}{of}", where=folder.root, cure=f"registered here: {names}"
        )
    gone = known.registered[master_id]
    entry = audit.Entry("masters", by, _in_words(gone), "", why)
    _append(folder, Removal(id=master_id, product=gone.product), entry)


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
    result = "passed" if check.passed else f"FAILED, {wrong} of {len(check.showings)} showings wrong"
    _append(folder, check, audit.Entry("masters check", by, "", result))


def _known(folder: StationFolder, product: str | None = None) -> Masters:
    folder.create()
    return read_masters(folder, product)


def _append(folder: StationFolder, row: Row, entry: audit.Entry) -> None:
    """First into the audit: what is not written down there is not done."""
    audit.append(folder, entry)
    said = {"schema": "kenpin.masters.v1", **row.model_dump(exclude={"ts_ms"})}
    ledger.append_row(masters_file(folder), said, station_key(folder))


def _in_words(master: Master) -> str:
    of = f"{master.product}, " if master.product else ""
    return f"{master.id}, {of}{master.type}, expected {master.expected}"
