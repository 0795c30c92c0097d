"""What was shown for a calibration, and which pictures of it the model knows already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kenpin.bundle import MANIFEST
from kenpin.calibration.web.calibrate_parts import Shown, ShownPart, read_shown
from kenpin.calibration.web.calibrate_run import Run
from kenpin.station_folder import StationFolder


def shown_for(folder: StationFolder, run: Run) -> Shown:
    """What was shown so far.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    shown = read_shown(folder.database, run)
    known = learned_from(folder, run.start.bundle_sha256)
    return replace(
        shown,
        learned=[part for part in shown.good if part.image_sha256 in known],
        # These were left out for another reason than their scores.
        left_good=[part for part in shown.left_good if part.image_sha256 not in known],
    )


def good_pictures(folder: StationFolder, good: Sequence[ShownPart]) -> Sequence[Path]:
    """The pictures of good parts that are there: others gave way to newer ones, or the line outran its disk."""
    paths = [folder.images / part.image_ref for part in good if part.image_ref]
    return [path for path in paths if path.is_file()]


def learned_from(folder: StationFolder, bundle_sha256: str) -> frozenset[str]:
    """SHA-256 of every picture that a bundle was trained on; the station has verified what says so.

    A picture is known again by its content. A part that was trained on and is shown anew has another picture.
    """
    try:
        manifest = json.loads((folder.bundles / bundle_sha256 / MANIFEST).read_bytes())
    except OSError:
        return frozenset()  # removed meanwhile: then nothing is signed for it either
    return frozenset(manifest.get("learned_from", ()))
