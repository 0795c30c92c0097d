"""Folders of pictures: MVTec style or plain good and bad, with groups of pictures of the same part."""

from __future__ import annotations

import csv
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kenpin.errors import DataError
from kenpin.frame import PICTURE_SUFFIXES

GOOD = "good"


@dataclass(frozen=True)
class Picture:
    """One picture file.

    Attributes:
        path: The file.
        label: `good` or the name of the defect.
        group: The physical part; pictures of one group never end up on both sides of a split.
        mask: Mask of the defect (non-zero = defect), where there is one.
    """

    path: Path
    label: str
    group: str
    mask: Path | None = None


@dataclass(frozen=True)
class PictureSet:
    """Pictures for training (good parts only) and for testing."""

    train: tuple[Picture, ...]
    test: tuple[Picture, ...]


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, sorted by path.

    Raises:
        DataError: The folder is missing or holds no picture.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"the picture folder {what}", where=folder, cure="give a folder of PNG or JPEG files")
    found = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")
    )
    if not found:
        kinds = " ".join(sorted(PICTURE_SUFFIXES))
        raise DataError("the folder holds no picture", where=folder, cure=f"put pictures there ({kinds})")
    return found


def read_data(folder: Path, *, seed: int = 0) -> PictureSet:
    """Read a data folder: MVTec style, or `good/` beside folders of defects, or pictures of good parts.

    A `manifest.csv` with the columns `file` and `group` in the folder is honoured. Where the folder has no
    test part of its own, a fifth of the good groups is held back for testing.

    Args:
        folder: The data folder.
        seed: Decides which groups are held back.

    Raises:
        DataError: No picture of a good part was found.
    """
    if not folder.is_dir():
        raise DataError("the data folder does not exist", where=folder, cure="check the path given with --data")
    groups = _read_groups(folder)
    if (folder / "train" / GOOD).is_dir():
        train = _label(list_pictures(folder / "train" / GOOD), GOOD, folder, groups)
        test_dir = folder / "test"
        if not test_dir.is_dir():
            return _hold_back(train, [], seed)
        test = [p for d in _subfolders(test_dir) for p in _mvtec_label(d, folder, groups)]
        return PictureSet(tuple(train), tuple(test))
    if (folder / GOOD).is_dir():
        bad_dirs = [d for d in _subfolders(folder) if d.name != GOOD]
        bad = [p for d in bad_dirs for p in _label(list_pictures(d), d.name, folder, groups)]
        return _hold_back(_label(list_pictures(folder / GOOD), GOOD, folder, groups), bad, seed)
    return _hold_back(_label(list_pictures(folder), GOOD, folder, groups), [], seed)


def read_good_bad(good: Path, bad: Path | None, *, seed: int = 0) -> PictureSet:
    """Read a folder of good parts and, where given, one of bad parts (subfolders name the defects).

    A fifth of the good groups is held back for testing. `manifest.csv` is looked for in each folder.
    """
    good_pictures = _label(list_pictures(good), GOOD, good, _read_groups(good))
    bad_pictures: list[Picture] = []
    if bad is not None:
        groups = _read_groups(bad)
        for path in list_pictures(bad):
            label = path.relative_to(bad).parts[0] if path.parent != bad else "bad"
            bad_pictures += _label([path], label, bad, groups)
    return _hold_back(good_pictures, bad_pictures, seed)


def split_groups(
    pictures: Sequence[Picture], share: float, *, seed: int
) -> tuple[list[Picture], list[Picture]]:
    """Split pictures in two by group.

    Args:
        pictures: Pictures of any label.
        share: Share of the pictures that the second part should get, 0 to 1.
        seed: Decides which groups go where.

    Returns:
        The larger rest and the part of about `share`, each in the given order. With two groups or more
        neither is empty.
    """
    names = sorted({p.group for p in pictures})
    random.Random(seed).shuffle(names)
    size = {name: sum(p.group == name for p in pictures) for name in names}
    second: set[str] = set()
    taken = 0
    for name in names[:-1]:
        if taken >= share * len(pictures):
            break
        second.add(name)
        taken += size[name]
    return [p for p in pictures if p.group not in second], [p for p in pictures if p.group in second]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hold_back(good: list[Picture], bad: list[Picture], seed: int) -> PictureSet:
    train, test = split_groups(good, 0.2, seed=seed)
    return PictureSet(tuple(train), tuple(test + bad))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def _mvtec_label(folder: Path, root: Path, groups: dict[str, str]) -> list[Picture]:
    pictures = _label(list_pictures(folder), folder.name, root, groups)
    if folder.name == GOOD:
        return pictures
    truth = root / "ground_truth" / folder.name
    masks = {m.stem.removesuffix("_mask"): m for m in truth.glob("*")} if truth.is_dir() else {}
    return [Picture(p.path, p.label, p.group, masks.get(p.path.stem)) for p in pictures]


def _label(paths: list[Path], label: str, root: Path, groups: dict[str, str]) -> list[Picture]:
    relative = [p.relative_to(root).as_posix() for p in paths]
    return [Picture(p, label, groups.get(r, r)) for p, r in zip(paths, relative, strict=True)]


def _read_groups(folder: Path) -> dict[str, str]:
    """Read `manifest.csv`: relative path -> group."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return {}
    with manifest.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        if not {"file", "group"} <= set(rows.fieldnames or ()):
            raise DataError(
                "manifest.csv needs the columns file and group",
                where=manifest,
                cure="add them, or remove the file",
            )
        return {row["file"]: row["group"] for row in rows}
