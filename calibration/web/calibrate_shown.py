"""What was shown for a calibration, and which pictures of it the model knows already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isclose
from typing import Any

from kenpin.calibration.likeness import unlike
from kenpin.calibration.web.bundle_manifest import bundle_manifest
from kenpin.calibration.web.calibrate_parts import Shown, ShownPart, read_shown
from kenpin.calibration.web.calibrate_run import Run
from kenpin.errors import DataError, KenpinError
from kenpin.frame import read_picture
from kenpin.masters import read_masters
from kenpin.quality import Quality, measure
from kenpin.station_folder import StationFolder

_PICTURES = 100  # are enough to learn the limits of light and focus from


def shown_for(folder: StationFolder, run: Run) -> Shown:
    """What was shown so far.

    Raises:
        StoreError: The database is missing or cannot be read.
        BundleError: The manifest of the bundle is damaged.
    """
    shown = read_shown(folder.database, run)
    manifest = _manifest(folder, run.start.bundle_sha256)
    known = _learned_from(manifest)
    return replace(
        shown,
        learned=[part for part in shown.good if part.image_sha256 in known],
        # These were left out for another reason than their scores.
        left_good=[part for part in shown.left_good if part.image_sha256 not in known],
        model="-".join(manifest[key] for key in ("product", "version") if key in manifest),
        unlike=unlike([part.score for part in shown.good], manifest.get("score_stats", {})),
    )


def measured_pictures(folder: StationFolder, good: Sequence[ShownPart]) -> Iterator[Quality]:
    """Light, focus and position of good parts, of at most 200 of the pictures that are there and can be read.

    Others gave way to newer ones, the line outran its disk, or they are damaged. Of several cameras the picture
    of the one that decides is kept, and the limits are the first one's, as is the light that is kept.
    """
    there = [part for part in good if part.image_ref and (folder.images / part.image_ref).is_file()]
    for part in there[:: max(1, len(there) // _PICTURES)]:
        try:
            seen = measure(read_picture(folder.images / part.image_ref))
        except DataError:
            continue  # is damaged, or gave way just now
        if part.light is None or isclose(seen.light, part.light, abs_tol=1e-6):
            yield seen


def registered_types(folder: StationFolder) -> Mapping[str, str]:
    """What is wrong with each master of the shift check, by its name; none where they cannot be read."""
    try:
        known = read_masters(folder).registered
    except KenpinError:
        return {}
    return {name: known[name].type for name in sorted(known)}


def learned_from(folder: StationFolder, bundle_sha256: str) -> frozenset[str]:
    """SHA-256 of every picture that a bundle was trained on; the station has verified what says so.

    A picture is known again by its content. A part that was trained on and is shown anew has another picture.

    Raises:
        BundleError: Its manifest is damaged.
    """
    return _learned_from(_manifest(folder, bundle_sha256))


def _learned_from(manifest: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(manifest.get("learned_from", ()))


def _manifest(folder: StationFolder, bundle_sha256: str) -> dict[str, Any]:
    try:
        return bundle_manifest(folder.bundles / bundle_sha256)
    except FileNotFoundError:
        return {}  # removed meanwhile: then nothing is signed for it either
