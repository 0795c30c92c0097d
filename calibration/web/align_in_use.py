"""How the view of the bundle in use follows the part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kenpin.calibration.web.bundle_manifest import bundle_manifest
from kenpin.station_folder import StationFolder


def align_in_use(folder: StationFolder) -> Mapping[str, Any]:
    """`align` of the view of the bundle in use, whose manifest the station has verified; empty without.

    Raises:
        FileNotFoundError: There is no bundle.
        BundleError: Its manifest is damaged.
    """
    view = bundle_manifest(folder.active).get("view") or {}
    return view.get("align") or {}
