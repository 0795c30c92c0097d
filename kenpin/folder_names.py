"""Names of folders: whether what lies in a folder can be what it is taken for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from kenpin.errors import DataError
from kenpin.picture_files import subfolders

GOOD = "good"
GROUND_TRUTH = "ground_truth"
# Names of folders that hold anything but one kind of defect: taken for one, they would make up the figures.
_GOOD_NAMES = frozenset({"good", "io", "normal", "ok", "gut", "良品", "正常"})
_MASK_NAMES = frozenset({GROUND_TRUTH, "groundtruth", "ground-truth", "mask", "masks"})
_SIDE_NAMES = frozenset({"test", "train", "val", "validation"})
# Folders of data sets: beside or below them lie others, with bad parts or none.
_SIDES = frozenset({"good", "ok", "bad", "ng", "defects", "ground_truth", "masters", "test", "train"})
_LOTS = frozenset(
    {"batch", "box", "cam", "camera", "day", "lot", "part", "shift", "sn", "tray"}
    | {"charge", "kamera", "los", "schicht", "tag", "teil", "ロット", "部品", "年", "月", "日"}
)
# As of photometric stereo: beside one of these, `normal` holds directions of the surface.
_MAP_NAMES = frozenset({"albedo", "depth", "roughness", "specular"})
# What masks beside their pictures end with.
_MASK_END = re.compile("[_-](mask|gt|label|seg)$", re.IGNORECASE)
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
    inner = good_in(folder) or good_in(folder / "train")
    raise DataError(
        f"it is not clear that all pictures below the folder are of good parts: it has subfolders ({shown})",
        where=folder,
        cure=(f"give --good {quote(str(inner))}" if inner else "give the one folder of good parts")
        + "; subfolders of good parts are named by a number, like lot-12, 2026-11-03 or part7",
    )


def check_no_twins(pictures: Sequence[Path]) -> None:
    """Refuse a mask beside its picture, and a picture that is there in two formats.

    Each would count as a part of its own: among good parts a mask lifts the thresholds, among bad ones and
    masters it is found for sure and makes up the figures.

    Raises:
        DataError: One is there.
    """
    masks, by_stem = masks_beside(pictures), _by_stem(pictures)
    for path in pictures:
        twin = masks.get(path, by_stem[path.with_suffix("")])
        if twin != path:
            raise DataError(
                f"a mask beside its picture {twin.name}, or the same part twice: each would count as a part",
                where=path,
                cure=f"take masks out, for --data to {GROUND_TRUTH}/DEFECT, and the pictures they mark to "
                "DEFECT: these are not good; keep one file of each picture",
            )


def masks_beside(pictures: Sequence[Path]) -> dict[Path, Path]:
    """Masks beside their pictures, or in a folder of their own beside these, with the picture of each."""
    by_stem, found = _by_stem(pictures), {}
    for path in pictures:
        own = _MASK_END.sub("", path.stem)
        twin = by_stem.get(path.parent / own) or by_stem.get(path.parent.parent / own)
        if own != path.stem and twin is not None:
            found[path] = twin
    return found


def _by_stem(pictures: Sequence[Path]) -> dict[Path, Path]:
    """The first picture of each name without its suffix."""
    return {path.with_suffix(""): path for path in reversed(pictures)}


def good_in(folder: Path) -> Path | None:
    """The folder of good parts in a folder: `good`, or the only one with a name like `OK` or `Normal`."""
    if (folder / GOOD).is_dir():
        return folder / GOOD
    named = [d for d in subfolders(folder) if is_name_of_good(d.name)] if folder.is_dir() else []
    return named[0] if len(named) == 1 else None


def is_like_good(name: str) -> bool:
    """Whether a name begins like one of good parts: `ok_front`, `Good parts`. That is only worth a question."""
    return is_name_of_good(re.split(r"[\W\d_]", name, maxsplit=1)[0])


def check_kind(folder: Path) -> None:
    """Refuse a folder that by its name is none of defects, as all in it would count as bad parts."""
    name = folder.name.casefold()
    is_map = name in _MAP_NAMES and (folder.parent / "normal").is_dir()
    if folder.name == GOOD or not (is_map or name in _GOOD_NAMES | _MASK_NAMES | _SIDE_NAMES):
        return
    cure = f"take it out; defects lie in folders of their own beside {GOOD}"
    if is_name_of_good(name):
        cure = f"rename it to {GOOD}, or after the defect if these parts are bad"
    elif is_map:
        cure = f"rename normal to {GOOD} if these parts are good; maps of the surface are no pictures of parts"
    elif name in _MASK_NAMES:
        cure = f"move its masks to {GROUND_TRUTH}/DEFECT, named like their pictures"
    raise DataError(
        f"all pictures of the folder {folder.name} would count as bad parts", where=folder, cure=cure
    )


def is_name_of_good(name: str) -> bool:
    """Whether a folder of good parts may be named so, in one of several languages."""
    return name.casefold() in _GOOD_NAMES


def _is_lot(name: str) -> bool:
    """Whether a name is a number, with nothing beside it but single letters and words like lot."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return any(map(str.isdigit, name)) and all(
        word in _LOTS or (len(word) == 1 and word.isascii()) for word in words
    )
