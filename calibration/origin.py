"""Where good parts came from: how many lots, over how long a time. A bound holds for parts like these only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kenpin.part_groups import MANIFEST, read_rows
from kenpin.picture_files import one_spelling
from kenpin.pictures import Picture
from kenpin.record import Origin

_ENOUGH_MINUTES = 120


def origin_of(pictures: Sequence[Picture]) -> Origin:
    """Lots, from the column `lot` of `manifest.csv`, and the time between the first and the last file.

    Args:
        pictures: Of good parts, as `kenpin.pictures.read_folder` gave them; at least one.
    """
    lots = _lots({p.path.parent for p in pictures})
    times = [p.path.stat().st_mtime for p in pictures]
    named = {lots.get(one_spelling(str(p.path)), "") for p in pictures}
    return Origin(lots=0 if "" in named else len(named), minutes=(max(times) - min(times)) / 60)


def is_narrow(origin: Origin) -> bool:
    """Whether all parts are of one lot, as far as is known, and of one time of day."""
    return origin.lots <= 1 and origin.minutes < _ENOUGH_MINUTES


def joined(one: Origin | None, other: Origin | None) -> Origin | None:
    """What holds of parts that were shown at two times, at the least; `None` where one of them is not known."""
    if one is None or other is None:
        return None
    return Origin(lots=max(one.lots, other.lots), minutes=max(one.minutes, other.minutes))


def _lots(folders: set[Path]) -> dict[str, str]:
    """Picture -> lot. The manifest lies beside the pictures or above; `read_folder` has found it readable."""
    found: dict[str, str] = {}
    for root in {root for folder in folders for root in (folder, *folder.parents[:3])}:
        if (root / MANIFEST).is_file():
            rows = read_rows(root / MANIFEST)
            found |= {one_spelling(str(root / row["file"])): row.get("lot", "") for row in rows}
    return found
