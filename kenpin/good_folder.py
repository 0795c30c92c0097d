"""A folder that is said to hold good parts only: whether its subfolders may be what they are said to be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kenpin.errors import DataError

# Folders of data sets: beside or below them lie others, with bad parts or none.
_SIDES = frozenset({"good", "ok", "bad", "ng", "defects", "ground_truth", "masters", "test", "train"})
_LOTS = frozenset(
    {"batch", "box", "cam", "camera", "day", "lot", "part", "shift", "sn", "tray"}
    | {"charge", "kamera", "los", "schicht", "tag", "teil", "ロット", "部品", "年", "月", "日"}
)
_SHOWN = 6


def check_good_only(folder: Path, pictures: Sequence[Path]) -> None:
    """Refuse a folder of good parts below which bad ones may lie.

    All below it counts as good, and a defect that is taken for good lifts the thresholds above itself. So
    subfolders must look like lots, days or parts.

    Args:
        folder: The folder.
        pictures: All pictures below it.

    Raises:
        DataError: Its subfolders are those of a data set, or it has several that may be kinds of defects.
    """
    places = {path.parent.relative_to(folder).parts for path in pictures}
    names = sorted({name for place in places for name in place})
    odd = [name for name in names if not _is_lot(name)]
    if not any(name.casefold() in _SIDES for name in names) and not (odd and len(places) > 1):
        return
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    inner = next((folder / name for name in ("good", "train/good") if (folder / name).is_dir()), None)
    raise DataError(
        f"it is not clear that all pictures below the folder are of good parts: it has subfolders ({shown})",
        where=folder,
        cure=(f"give --good {inner}" if inner else "give the one folder of good parts")
        + "; subfolders of good parts are named by a number, like lot-12, 2026-11-03 or part7",
    )


def _is_lot(name: str) -> bool:
    """Whether a name is a number, with nothing beside it but single letters and words like lot."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return any(map(str.isdigit, name)) and all(
        word in _LOTS or (len(word) == 1 and word.isascii()) for word in words
    )
