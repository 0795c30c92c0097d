"""Folders of pictures: MVTec style or plain good and bad, with groups of pictures of the same part."""

from __future__ import annotations

import csv
import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kenpin.errors import DataError
from kenpin.frame import PICTURE_SUFFIXES
from kenpin.good_folder import check_good_only
from kenpin.sight import Sight

GOOD = "good"
GROUND_TRUTH = "ground_truth"
MANIFEST = "manifest.csv"
# Names of folders that hold anything but one kind of defect: taken for one, they would make up the figures.
_GOOD_NAMES = frozenset({"good", "io", "normal", "ok", "gut", "良品", "正常"})
_MASK_NAMES = frozenset({GROUND_TRUTH, "groundtruth", "ground-truth", "mask", "masks"})
_SIDE_NAMES = frozenset({"test", "train", "val", "validation"})


@dataclass(frozen=True)
class Picture:
    """One picture file.

    Attributes:
        path: The file.
        label: `good` or the name of the defect.
        group: The physical part; pictures of one group never end up on both sides of a split.
        mask: Mask of the defect (non-zero = defect), where there is one.
        sight: What of it is looked at; `None` = all of it.
    """

    path: Path
    label: str
    group: str
    mask: Path | None = None
    sight: Sight | None = None


@dataclass(frozen=True)
class PictureSet:
    """Pictures for training (good parts only) and for testing.

    Attributes:
        train: Good parts to learn from.
        test: Other parts, good and bad.
        copies: How many are copies: another picture has the same content. They have one group with it.
        left_out: Test pictures left out because a part to learn from has a copy of them, or of their part.
    """

    train: tuple[Picture, ...]
    test: tuple[Picture, ...]
    copies: int = 0
    left_out: int = 0

    def through(self, sight: Sight | None) -> PictureSet:
        """The same pictures, looked at through a view."""
        train, test = (
            tuple(replace(picture, sight=sight) for picture in part) for part in (self.train, self.test)
        )
        return replace(self, train=train, test=test)


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, sorted by path.

    Raises:
        DataError: The folder is missing or holds no picture, or one below it cannot be read.
    """
    _check_folder(folder)
    found = sorted(p for p in _files_below(folder) if _is_picture(p, folder))
    if not found:
        kinds = " ".join(sorted(PICTURE_SUFFIXES))
        raise DataError("the folder holds no picture", where=folder, cure=f"put pictures there ({kinds})")
    return found


def read_data(folder: Path, *, seed: int = 0) -> PictureSet:
    """Read a data folder: MVTec style, or `good/` beside folders of defects, or pictures of good parts.

    Masks are looked for in `ground_truth/<defect>/`. A `manifest.csv` with the columns `file` and `group` in
    the folder is honoured. Where the folder has no test part of its own, a fifth of the good groups is held
    back for testing.

    Args:
        folder: The data folder.
        seed: Decides which groups are held back.

    Raises:
        DataError: No picture of a good part was found, or it is not clear which ones are good.
    """
    _check_folder(folder)
    groups = _read_groups(folder)
    if (folder / "train" / GOOD).is_dir():
        return _read_mvtec(folder, groups, seed)
    if (folder / GOOD).is_dir():
        bad_dirs = [d for d in _subfolders(folder) if d.name not in (GOOD, GROUND_TRUTH)]
        bad = _label_kinds(bad_dirs, folder, groups)
        return _hold_back(_label(list_pictures(folder / GOOD), GOOD, folder, groups), bad, seed)
    pictures = list_pictures(folder)
    nested = sorted({p.relative_to(folder).parts[0] for p in pictures if p.parent != folder})
    if nested:
        raise DataError(
            f"the folder has subfolders ({', '.join(nested)}) but none is named {GOOD}",
            where=folder,
            cure=f"name the folder of good parts {GOOD!r}, or give that one alone: --good {folder}/NAME",
        )
    return _hold_back(_label(pictures, GOOD, folder, groups), [], seed)


def read_measured(folder: Path) -> list[Picture]:
    """Pictures to measure a finished model on: the test part of a folder, or all of it where it has none.

    Raises:
        DataError: As `read_data`.
    """
    found = read_data(folder)
    has_own = (folder / "train" / GOOD).is_dir() and (folder / "test").is_dir()
    return [*(() if has_own else found.train), *found.test]


def read_good_bad(good: Path, bad: Path | None, *, seed: int = 0) -> PictureSet:
    """Read a folder of good parts and, where given, one of bad parts (subfolders name the defects).

    A fifth of the good groups is held back for testing. `manifest.csv` is looked for in each folder.

    Raises:
        DataError: A folder is missing or empty, one lies in the other, bad parts may lie among the good, or a
            subfolder of the bad is none of defects by its name.
    """
    if bad is not None and good.resolve() in (bad.resolve(), *bad.resolve().parents):
        raise DataError(
            "the folder of bad parts lies in the folder of good ones",
            where=bad,
            cure="put them side by side, or all below one folder and use --data",
        )
    found = list_pictures(good)
    check_good_only(good, found)
    good_pictures = _label(found, GOOD, good, _read_groups(good))
    bad_pictures: list[Picture] = []
    if bad is not None:
        groups = _read_groups(bad)
        found = list_pictures(bad)
        for kind in sorted({bad / p.relative_to(bad).parts[0] for p in found if p.parent != bad}):
            _check_kind(kind)
        for path in found:
            label = path.relative_to(bad).parts[0] if path.parent != bad else "bad"
            bad_pictures += _label([path], label, bad, groups)
    return _hold_back(good_pictures, bad_pictures, seed)


def read_folder(folder: Path, *, label: str) -> list[Picture]:
    """All pictures below one folder, under one label.

    A `manifest.csv` in the folder, or in one of the two above it (`DATA/test/good`), is honoured.

    Raises:
        DataError: The folder is missing or empty, or bad parts may lie among those that shall be good.
    """
    here = folder.resolve()
    root = next((d for d in (here, *here.parents[:2]) if (d / MANIFEST).is_file()), here)
    found = list_pictures(here)
    if label == GOOD:
        check_good_only(here, found)
    return _label(found, label, root, _read_groups(root))


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
    size = Counter(p.group for p in pictures)
    names = sorted(size)
    random.Random(seed).shuffle(names)
    second: set[str] = set()
    taken = 0
    for name in names[:-1]:
        if taken >= share * len(pictures):
            break
        second.add(name)
        taken += size[name]
    return [p for p in pictures if p.group not in second], [p for p in pictures if p.group in second]


def join_copies(pictures: Sequence[Picture]) -> tuple[list[Picture], int]:
    """Give pictures of equal content one group: the same picture under two names is the same part.

    Returns:
        The pictures in the given order, and how many of them are copies of another one.
    """
    contents = _contents([p.path for p in pictures])
    joined: dict[str, str] = {}

    def group_of(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    first: dict[str, str] = {}
    for picture, content in zip(pictures, contents, strict=True):
        names = {group_of(picture.group), group_of(first.setdefault(content, picture.group))}
        if len(names) == 2:
            joined[max(names)] = min(names)
    return [replace(p, group=group_of(p.group)) for p in pictures], len(contents) - len(first)


def _contents(paths: Sequence[Path]) -> list[str]:
    """A name for what each file holds: its SHA-256 where another file is as long, else its own path.

    A file that cannot be read has its path, too: reading the picture names it.
    """

    def content(path: Path, size: int) -> str:
        try:
            return sha256_of(path) if counts[size] > 1 else str(path)
        except OSError:
            return str(path)

    sizes = [path.stat().st_size if path.exists() else -1 for path in paths]
    counts = Counter(sizes)
    return [content(path, size) for path, size in zip(paths, sizes, strict=True)]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"the picture folder {what}", where=folder, cure="give a folder of PNG or JPEG files")


def _files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder; `Path.rglob` passes over linked folders and those that it may not read."""

    def refuse(error: OSError) -> None:
        cure = "check its permissions, or where the links below it lead"
        raise DataError(f"cannot read the folder: {error.strerror}", where=error.filename, cure=cure) from None

    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = Path(here)
        folders[:] = [n for n in folders if not n.startswith(".") and not _leads_back(inside / n)]
        yield from (inside / name for name in files)


def _leads_back(path: Path) -> bool:
    """Whether a path is a link to the folder that it lies in, or to one above that."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _is_picture(path: Path, root: Path) -> bool:
    """Tell whether a path below `root` is a picture file. A broken link is one: reading it names it."""
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in PICTURE_SUFFIXES and not hidden and not path.is_dir()


def _subfolders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def _read_mvtec(folder: Path, groups: dict[str, str], seed: int) -> PictureSet:
    train = _label(list_pictures(folder / "train" / GOOD), GOOD, folder, groups)
    test_dir = folder / "test"
    if not test_dir.is_dir():
        return _hold_back(train, [], seed)
    test = _label_kinds(_subfolders(test_dir), folder, groups)
    if not test:
        raise DataError(
            "the test folder has no subfolders",
            where=test_dir,
            cure=f"sort its pictures into {GOOD}/ and one folder for each defect, or remove it",
        )
    shared = sorted({p.group for p in train} & {p.group for p in test})
    if shared:
        raise DataError(
            f"pictures of the same part are in train and in test: group {shared[0]}",
            where=folder / MANIFEST,
            cure="move all pictures of a group to one side; results would be too good otherwise",
        )
    joined, copies = join_copies(train + test)
    known = {p.group for p in joined[: len(train)]}
    kept = tuple(p for p in joined[len(train) :] if p.group not in known)
    return PictureSet(tuple(joined[: len(train)]), kept, copies, len(test) - len(kept))


def _hold_back(good: list[Picture], bad: list[Picture], seed: int) -> PictureSet:
    """Hold a fifth of the good groups back, and every good picture of a part that also has bad ones."""
    joined, copies = join_copies(good + bad)
    good, bad = joined[: len(good)], joined[len(good) :]
    tied = {p.group for p in bad}
    free = [p for p in good if p.group not in tied]
    if not free:
        raise DataError(
            "every good picture is in one group with a bad one, so none is left to learn from",
            where=good[0].path.parent,
            cure=f"add pictures of parts that have no defect, or correct the groups in {MANIFEST}",
        )
    train, _ = split_groups(free, 0.2, seed=seed)
    kept = {p.path for p in train}
    return PictureSet(tuple(train), tuple([p for p in good if p.path not in kept] + bad), copies)


def _label_kinds(kinds: list[Path], root: Path, groups: dict[str, str]) -> list[Picture]:
    """Label the pictures of folders that are named after a kind of defect each, or `good`.

    Raises:
        DataError: A folder holds something else by its name, or there are masks and none belongs to a picture.
    """
    for folder in kinds:
        _check_kind(folder)
    pictures = [p for folder in kinds for p in _label_with_masks(folder, root, groups)]
    bad, truth = [p for p in pictures if p.label != GOOD], root / GROUND_TRUTH
    # Some may be left of a kind that was taken out; where all are, they lie in the wrong place.
    if bad and truth.is_dir() and any(_is_picture(p, truth) for p in _files_below(truth)):
        _check_masked(bad, truth)
    return pictures


def _check_kind(folder: Path) -> None:
    """Refuse a folder that by its name is none of defects, as all in it would count as bad parts."""
    name = folder.name.casefold()
    if folder.name == GOOD or name not in _GOOD_NAMES | _MASK_NAMES | _SIDE_NAMES:
        return
    cure = f"take it out; defects lie in folders of their own beside {GOOD}"
    if name in _GOOD_NAMES:
        cure = f"rename it to {GOOD}, or after the defect if these parts are bad"
    elif name in _MASK_NAMES:
        cure = f"move its masks to {GROUND_TRUTH}/DEFECT, named like their pictures"
    raise DataError(
        f"all pictures of the folder {folder.name} would count as bad parts", where=folder, cure=cure
    )


def _check_masked(pictures: list[Picture], truth: Path) -> None:
    """Refuse masks of which none belongs to a picture: the figures of pixels would only be missing."""
    if not any(p.mask for p in pictures):
        label, name = pictures[0].label, pictures[0].path.stem
        raise DataError(
            "none of the masks belongs to a picture",
            where=truth,
            cure=f"name each after its picture: {GROUND_TRUTH}/{label}/{name}_mask.png or {name}.png",
        )


def _label_with_masks(folder: Path, root: Path, groups: dict[str, str]) -> list[Picture]:
    """Label the pictures of one folder by its name, with their masks where it names a defect."""
    pictures = _label(list_pictures(folder), folder.name, root, groups)
    truth = root / GROUND_TRUTH / folder.name
    if folder.name == GOOD or not truth.is_dir():
        return pictures
    # With their subfolders: lots are often numbered alike.
    masks = {m.relative_to(truth).with_name(m.stem.removesuffix("_mask")): m for m in list_pictures(truth)}
    masked = [replace(p, mask=masks.get(p.path.relative_to(folder).with_name(p.path.stem))) for p in pictures]
    _check_masked(masked, truth)
    return masked


def _label(paths: list[Path], label: str, root: Path, groups: dict[str, str]) -> list[Picture]:
    """Label pictures. One that the manifest does not name is a part of its own."""
    labelled = []
    for path in paths:
        relative = path.relative_to(root).as_posix()
        # With the folder's name: good/1.png and bad/1.png are not the same part.
        labelled.append(Picture(path, label, groups.get(relative, f"{root.name}/{relative}")))
    return labelled


def _read_groups(folder: Path) -> dict[str, str]:
    """Read `manifest.csv`: relative path -> group."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        # Spreadsheets write a byte order mark and, on Windows, backslashes.
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{MANIFEST} cannot be read: {error}", where=path, cure="save it as CSV in UTF-8, or remove it"
        ) from None
    groups: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if not row.get("file") or not row.get("group"):
            raise DataError(
                f"{MANIFEST} needs a file and a group in every row",
                where=f"{path}, line {number}",
                cure="add the columns file and group and fill them, or remove the file",
            )
        groups[row["file"].replace("\\", "/")] = row["group"]
    if not any((folder / name).is_file() for name in groups):
        raise DataError(
            f"{MANIFEST} names no file of this folder",
            where=path,
            cure="write paths relative to the folder, like good/part1.png, or remove the file",
        )
    return groups
