"""Folders of pictures: MVTec style or plain good and bad, with groups of pictures of the same part."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from kenpin.errors import DataError
from kenpin.folder_names import (
    GOOD,
    GROUND_TRUTH,
    check_good_only,
    check_kind,
    check_no_twins,
    good_in,
    is_like_good,
)
from kenpin.mask_labels import read_mask_labels
from kenpin.part_groups import MANIFEST, read_groups, read_groups_beside
from kenpin.picture_files import (
    contents_of,
    files_below,
    is_picture,
    list_pictures,
    name_below,
    subfolders,
)
from kenpin.sight import Sight
from kenpin.strips import WHOLE, Strips
from kenpin.view import REFERENCE

_MASK_END = re.compile("_mask$", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """One picture file.

    Attributes:
        path: The file.
        label: `good` or the name of the defect.
        group: The physical part; pictures of one group never end up on both sides of a split.
        mask: Mask of the defect (non-zero = defect), where there is one; a folder where there are several.
        sight: What of it is looked at; `None` = all of it.
        strips: Into how many strips that is cut for the model.
    """

    path: Path
    label: str
    group: str
    mask: Path | None = None
    sight: Sight | None = None
    strips: Strips = WHOLE


@dataclass(frozen=True)
class PictureSet:
    """Pictures for training (good parts only) and for testing.

    Attributes:
        train: Good parts to learn from.
        test: Other parts, good and bad.
        copies: How many are copies: another picture has the same content. They have one group with it.
        left_out: Test pictures left out because a part to learn from has a copy of them, or of their part.
        misfits: Pictures that are neither, as their view does not find the part: a station makes no decision.
        by_masks: Whether good and bad parts lay together, and their masks told them apart.
    """

    train: tuple[Picture, ...]
    test: tuple[Picture, ...]
    copies: int = 0
    left_out: int = 0
    misfits: tuple[Picture, ...] = ()
    by_masks: bool = False

    def through(self, sight: Sight | None) -> PictureSet:
        """The same pictures, looked at through a view."""
        return self._each(lambda picture: replace(picture, sight=sight))

    def in_strips(self, strips: Strips) -> PictureSet:
        """The same pictures, cut into strips."""
        return self._each(lambda picture: replace(picture, strips=strips))

    def _each(self, changed: Callable[[Picture], Picture]) -> PictureSet:
        return replace(self, train=tuple(map(changed, self.train)), test=tuple(map(changed, self.test)))


def read_data(folder: Path, *, seed: int = 0) -> PictureSet:
    """Read a data folder: MVTec style, `good/` beside folders of defects, good parts alone, or masked ones.

    `good` may be called `OK` or `Normal`, too, where no other folder beside it is named so.
    Masks are looked for in `ground_truth/<defect>/`, several of one picture in a folder of its name.
    A `manifest.csv` with the columns `file` and `group` in
    the folder, in one of the two above it, or in one of pictures below it, is honoured.
    Where good and bad parts lie together, in the folder or its `train` and `test`, their masks tell them apart.
    Where the folder has no test part of its own, a fifth of the good groups is held back for testing.

    Args:
        folder: The data folder.
        seed: Decides which groups are held back.

    Raises:
        DataError: No picture of a good part was found, or it is not clear which ones are good.
    """
    groups = _groups_below(folder)
    if good := good_in(folder / "train"):
        return _read_mvtec(folder, good, groups, seed)
    if good := good_in(folder):
        bad_dirs = [d for d in subfolders(folder) if d != good and d.name != GROUND_TRUTH]
        bad = _label_kinds(bad_dirs, folder, groups)
        return _hold_back(_label(_parts_below(good), GOOD, folder, groups), bad, seed)
    pictures = list_pictures(folder)
    if masked := _read_masked(folder, groups, seed, read_mask_labels(pictures)):
        return masked
    check_no_twins(pictures)
    nested = sorted({p.relative_to(folder).parts[0] for p in pictures if p.parent != folder})
    if nested:
        raise DataError(
            f"the folder has subfolders ({', '.join(nested)}) but none is named {GOOD}",
            where=folder,
            cure=_cure_of(folder, pictures),
        )
    return _hold_back(_label(pictures, GOOD, folder, groups), [], seed)


def passed_over(folder: Path) -> list[Path]:
    """Pictures below a data folder that `read_data` leaves out by their place; masks, views' pictures apart.

    Beside `train/good`, defects lie in `test/DEFECT`; those in `train/DEFECT` or `DEFECT` are not read.
    """
    learned = good_in(folder / "train")
    by_sides = learned is not None
    if not by_sides and not good_in(folder):
        return []

    def is_read(parts: tuple[str, ...]) -> bool:
        if not by_sides or parts[0] == "test":
            return len(parts) > 1 + by_sides
        return learned is not None and parts[:2] == ("train", learned.name)

    places = [(p, p.relative_to(folder).parts) for p in sorted(folder.rglob("*")) if is_picture(p, folder)]
    apart = (GROUND_TRUTH, REFERENCE)
    return [p for p, parts in places if not {parts[0], parts[-1]}.intersection(apart) and not is_read(parts)]


def read_measured(folder: Path) -> list[Picture]:
    """Pictures to measure a finished model on: the test part of a folder, or all of it where it has none.

    Raises:
        DataError: As `read_data`.
    """
    found = read_data(folder)
    has_own = {d.name.casefold() for d in subfolders(folder)} >= {"train", "test"}
    return [*(() if has_own else found.train), *found.test]


def read_good_bad(good: Path, bad: Path | None, *, seed: int = 0) -> PictureSet:
    """Read a folder of good parts and, where given, one of bad parts (subfolders name the defects).

    A fifth of the good groups is held back for testing. A `manifest.csv` in a folder, in one of the two above
    it, or in one of pictures below it, is honoured.

    Raises:
        DataError: A folder is missing or empty, one lies in the other, bad parts may lie among the good, or a
            subfolder of the bad is none of defects by its name.
    """
    if bad is not None:
        _refuse_nested(good.resolve(), bad.resolve())
    good_pictures = read_folder(good, label=GOOD)
    bad_pictures: list[Picture] = []
    if bad is not None:
        found, root, here = _parts_below(bad.resolve()), _manifest_root(bad), bad.resolve()
        # Where both folders are called alike, 1.png of one is still not the same part as 1.png of the other.
        own = {name: f"bad {root.name}/{name}" for name in (name_below(p, root) for p in found)}
        groups = own | read_groups_beside(found, root) | read_groups(root)
        for kind in sorted({here / p.relative_to(here).parts[0] for p in found if p.parent != here}):
            check_kind(kind)
        for path in found:
            label = path.relative_to(here).parts[0] if path.parent != here else "bad"
            bad_pictures += _label([path], label, root, groups)
    return _hold_back(good_pictures, bad_pictures, seed)


def read_folder(folder: Path, *, label: str) -> list[Picture]:
    """All pictures below one folder, under one label.

    A `manifest.csv` in the folder, in one of the two above it (`DATA/test/good`), or in one of pictures below
    it, is honoured.

    Raises:
        DataError: The folder is missing or empty, or bad parts may lie among those that shall be good.
    """
    here, root = folder.resolve(), _manifest_root(folder)
    found = _parts_below(here)
    if label == GOOD:
        check_good_only(here, found)
    return _label(found, label, root, read_groups(root))


def split_groups(
    pictures: Sequence[Picture], share: float, *, seed: int, last: Collection[str] = (), least: int = 1
) -> tuple[list[Picture], list[Picture]]:
    """Split pictures in two by group.

    A group that holds most of the pictures goes to the first part, whatever the lot says: taken for the second,
    it would leave next to nothing to learn from.

    Args:
        pictures: Pictures of any label.
        share: Share of the pictures that the second part should get, 0 to 1.
        seed: Decides which groups go where.
        last: Groups that go to the second part only where all others do not fill it.
        least: Groups that the first part keeps where it can: more than one go to the second only from others.

    Returns:
        The rest and the part of about `share`, each in the given order. With two groups or more neither is
        empty.
    """
    size = Counter(p.group for p in pictures)
    names = sorted(size)
    random.Random(seed).shuffle(names)
    names.sort(key=last.__contains__)
    second: set[str] = set()
    taken = 0
    for name in names:
        if taken >= share * len(pictures) or (second and len(names) - len(second) <= least):
            break
        # Half of the way from the share to all there is.
        if taken + size[name] <= (1 + share) / 2 * len(pictures):
            second.add(name)
            taken += size[name]
    return [p for p in pictures if p.group not in second], [p for p in pictures if p.group in second]


def join_copies(pictures: Sequence[Picture]) -> tuple[list[Picture], int]:
    """Give pictures of equal content one group: the same picture under two names is the same part.

    Returns:
        The pictures in the given order, and how many of them are copies of another one.

    Raises:
        DataError: The same picture is of a good part under one name and of a bad one under another.
    """
    contents = contents_of([p.path for p in pictures])
    joined: dict[str, str] = {}

    def group_of(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    first: dict[str, Picture] = {}
    for picture, content in zip(pictures, contents, strict=True):
        other = first.setdefault(content, picture)
        if (picture.label == GOOD) != (other.label == GOOD):
            kinds = {(c, p.label == GOOD) for c, p in zip(contents, pictures, strict=True)}
            more = len(kinds) - len(set(contents)) - 1
            raise DataError(
                f"the same picture is there as {other.label} and as {picture.label}"
                + (f", and so are {more} more" if more else ""),
                where=f"{other.path} and {picture.path}",
                cure="look at it and remove the wrong one of the two"
                + ("; is a whole folder the wrong one?" if more else ""),
            )
        names = {group_of(picture.group), group_of(other.group)}
        if len(names) == 2:
            joined[max(names)] = min(names)
    return [replace(p, group=group_of(p.group)) for p in pictures], len(contents) - len(first)


def _cure_of(folder: Path, pictures: Sequence[Path]) -> str:
    """What to do with a folder that has none of good parts by its name: it is named `ok_front`, or deeper."""
    named = Counter(path.parent for path in pictures if is_like_good(path.parent.name))
    if named:
        likely = max(named, key=named.__getitem__)
        root = likely.parents[1] if likely.parent.name == "train" else likely.parent
        if root != folder and good_in(likely.parent) == likely:
            return f"give --data {quote(str(root))}"
        others = [d for d in subfolders(likely.parent) if d != likely]
        bad = f" --bad {quote(str(others[0]))}" if len(others) == 1 else ", and bad parts with --bad"
        return f"train with --good {quote(str(likely))}{bad}; or rename it to {GOOD}"
    return f"name the folder of good parts {GOOD}, or train with --good {quote(str(folder))}/NAME"


def _refuse_nested(good: Path, bad: Path) -> None:
    if good == bad:
        raise DataError("one folder is given for good and for bad parts", where=bad, cure="correct --bad")
    for inner, outer, names in ((bad, good, ("bad", "good")), (good, bad, ("good", "bad"))):
        if outer in (inner, *inner.parents):
            raise DataError(
                f"the folder of {names[0]} parts lies in the folder of {names[1]} ones",
                where=inner,
                cure="put them side by side, or all below one folder and use --data",
            )


def _parts_below(folder: Path) -> list[Path]:
    """All pictures below a folder, each of a part."""
    found = list_pictures(folder)
    check_no_twins(found)
    return found


def _manifest_root(folder: Path) -> Path:
    """The folder, or one of the two above it (`DATA/test/good`), that has a `manifest.csv`; else the folder."""
    here = folder.resolve()
    return next((d for d in (here, *here.parents[:2]) if (d / MANIFEST).is_file()), here)


def _groups_below(folder: Path) -> dict[str, str]:
    """Groups by names below a folder; its `manifest.csv` may lie in one of the two above it."""
    here, root = folder.resolve(), _manifest_root(folder)
    groups = read_groups(root)
    if root == here:
        return groups
    above = f"{name_below(here, root)}/"
    return {name.removeprefix(above): group for name, group in groups.items() if name.startswith(above)}


def _read_masked(
    folder: Path, groups: dict[str, str], seed: int, masks: Mapping[Path, Path | None]
) -> PictureSet | None:
    """Parts of which masks tell which are bad, in one folder or two sides; `None` where there are none such."""
    side = {path: path.parent.relative_to(folder).as_posix().casefold() for path in masks}
    sides = {*side.values()}
    if sides not in ({"."}, {"train"}, {"train", "test"}):
        return None
    good = _label([path for path in masks if masks[path] is None], GOOD, folder, groups)
    bad = _label([path for path, mask in masks.items() if mask], "bad", folder, groups)
    bad = [replace(picture, mask=masks[picture.path]) for picture in bad]
    if good and "test" not in sides:
        found = _hold_back(good, bad, seed)
    else:  # bad parts of either side measure
        train, test = ([p for p in good if (side[p.path] == "test") is is_test] for is_test in (False, True))
        found = _by_sides(folder, train, test + bad)
    return replace(found, by_masks=True)


def _read_mvtec(folder: Path, good: Path, groups: dict[str, str], seed: int) -> PictureSet:
    train = _label(_parts_below(good), GOOD, folder, groups)
    test_dir = folder / "test"
    if not test_dir.is_dir():
        return _hold_back(train, [], seed)
    test = _label_kinds(subfolders(test_dir), folder, groups, good=good_in(test_dir))
    if not test:
        raise DataError(
            "the test folder has no subfolders",
            where=test_dir,
            cure=f"sort its pictures into {GOOD}/ and one folder for each defect, or remove it",
        )
    return _by_sides(folder, train, test)


def _by_sides(folder: Path, train: list[Picture], test: list[Picture]) -> PictureSet:
    """Two sides as they are, but for copies in the test of what is learned from."""
    shared = sorted({p.group for p in train} & {p.group for p in test})
    if shared:
        manifest = _manifest_root(folder) / MANIFEST
        raise DataError(
            f"pictures of the same part are in train and in test: group {shared[0]}",
            where=manifest if manifest.is_file() else folder,
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
    # Of what is left one more part is held back, to set the scale.
    train, _ = split_groups(free, 0.2, seed=seed, least=2)
    kept = {p.path for p in train}
    return PictureSet(tuple(train), tuple([p for p in good if p.path not in kept] + bad), copies)


def _label_kinds(
    kinds: list[Path], root: Path, groups: dict[str, str], *, good: Path | None = None
) -> list[Picture]:
    """Label the pictures of folders that are named after a kind of defect each, but for one of good parts.

    Raises:
        DataError: A folder holds something else by its name, or there are masks and none belongs to a picture.
    """
    pictures = []
    for folder in kinds:
        if folder == good:
            pictures += _label(_parts_below(folder), GOOD, root, groups)
        else:
            check_kind(folder)
            pictures += _label_with_masks(folder, root, groups)
    bad, truth = [p for p in pictures if p.label != GOOD], root / GROUND_TRUTH
    # Some may be left of a kind that was taken out; where all are, they lie in the wrong place.
    if bad and truth.is_dir() and any(is_picture(p, truth) for p in files_below(truth)):
        _check_masked(bad, truth)
    return pictures


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
    """Label the pictures of one folder by its name, which is that of a defect, with their masks."""
    pictures = _label(_parts_below(folder), folder.name, root, groups)
    truth = root / GROUND_TRUTH / folder.name
    if not truth.is_dir():
        return pictures
    # With their subfolders: lots are often numbered alike.
    masks = {_MASK_END.sub("", name_below(m.with_suffix(""), truth)): m for m in list_pictures(truth)}
    # Of several masks of one picture, as MVTec LOCO has them, each lies in a folder of the picture's name.
    several = {name_below(m.parent, truth): m.parent for m in masks.values()}
    masked = []
    for picture in pictures:
        name = name_below(picture.path.with_suffix(""), folder)
        own = several.get(name) if not (folder / name).is_dir() else None
        masked.append(replace(picture, mask=masks.get(name, own)))
    _check_masked(masked, truth)
    return masked


def _label(paths: list[Path], label: str, root: Path, groups: dict[str, str]) -> list[Picture]:
    """Label pictures. One that no manifest names is a part of its own."""
    groups = read_groups_beside(paths, root) | groups
    # With the folder's own name, given as `.` or not: good/1.png and bad/1.png are not the same part.
    labelled, name = [], root.resolve().name
    for path in paths:
        relative = name_below(path, root)
        labelled.append(Picture(path, label, groups.get(relative, f"{name}/{relative}")))
    return labelled
