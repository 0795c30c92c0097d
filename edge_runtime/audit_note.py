"""Rows of the audit that a running station writes: no part, alarm or bundle waits for them."""

from __future__ import annotations

import logging

from kenpin.audit import Entry, append
from kenpin.errors import KenpinError, reason_and_file
from kenpin.station_folder import StationFolder

_log = logging.getLogger(__name__)


def note(folder: StationFolder, entry: Entry) -> bool:
    """Write a row; where that fails, as on a full disk, the log says so. Whether it is written."""
    try:
        append(folder, entry)
    except (KenpinError, OSError) as error:
        _log.warning("A row on %s is not in the audit: %s", entry.what, reason_and_file(error))
        return False
    return True
