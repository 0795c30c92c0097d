"""How the view of the bundle in use follows the part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kenpin.bundle import MANIFEST
from kenpin.station_folder import StationFolder


def align_in_use(folder: StationFolder) -> Mapping[str, Any]:
    """`align` of the view of the bundle in use, whose manifest the station has verified; empty without.

    Raises:
        OSError: There is no bundle.
    """
    view = json.loads((folder.active / MANIFEST).read_bytes()).get("view") or {}
    return view.get("align") or {}
