"""Which view the pictures of a training get, and what a command line tells of them."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from kenpin.console import human_console
from kenpin.counted import counted
from kenpin.errors import DataError, OutOfView
from kenpin.folder_names import GOOD
from kenpin.frame import lost_of
from kenpin.pictures import Picture, PictureSet, passed_over
from kenpin.sight import Sight
from kenpin.strips import Strips
from kenpin.train.data import MIN_HELD_BACK, Roles, some_of
from kenpin.train.intake import Looked, Masked, check_pictures, set_apart
from kenpin.train.learn import progress_bar
from kenpin.train.loose import Loose, follow_loose
from kenpin.view import REFERENCE

_LOOKED_AT = 8  # for what reading loses, which is alike in all pictures of a source
_FEW_PARTS = 5
_VIEWS = 8  # of a part in a folder of its own; a lot has more pictures
_NAMED = 3  # of those in doubt
_OF_14_BITS = 2**14
_OF_5_BITS = 2**5
# Of several processes that train together, as torchrun starts them, one speaks.
console = human_console(quiet=os.environ.get("RANK", "0") != "0")


def through(
    found: PictureSet, sight: Sight | None, *, side: int, strips: Strips | int | None = None
) -> PictureSet:
    """Pictures through a view, in strips; those in which it finds no part are set apart.

    Those far too small are told.

    Args:
        found: Pictures as they are.
        sight: The view; `None` for whole pictures.
        side: Of the square that the model sees, pixels.
        strips: The strips, or into how many each is cut; by the proportions where that is not given.

    Raises:
        DataError: Some cannot be read or do not fit the view.
    """
    seen = found.through(sight)
    looked = look_with_bar((*seen.train, *seen.test))
    kept = set_apart(seen, looked.misfits)
    tell_misfits(looked.misfits)
    _tell_enlarged(looked, side)
    cut = strips if isinstance(strips, Strips) else Strips.of(looked.proportion, strips)
    if cut.number > 1:
        _tell_strips(cut, looked.proportion, side)
    return kept.in_strips(cut)


def through_own_view(found: PictureSet, *, side: int, strips: int | None) -> PictureSet:
    """Pictures of parts that do not lie still through a view that is drawn for them; others whole.

    Args:
        found: Pictures as they are.
        side: Of the square that the model sees, pixels.
        strips: As `through` has it.

    Raises:
        DataError: Some cannot be read.
    """
    loose = follow_loose([picture.path for picture in found.train])
    drawn = _through_drawn(found, loose, side=side, strips=strips) if loose else None
    return drawn or through(found, None, side=side, strips=strips)


def tell_unfollowed(found: PictureSet, sight: Sight) -> None:
    """Say that parts do not lie still and that the view which was given does not follow them."""
    if sight.view.align is None and (loose := follow_loose([picture.path for picture in found.train])):
        told = f"{_how_they_lie(loose)}, and the view that is given does not follow them: "
        told += "leave --view out, or " if loose.sight else ""
        console.print(told + "let it follow a part with [align]: docs/view.md", soft_wrap=True)


def _through_drawn(found: PictureSet, loose: Loose, *, side: int, strips: int | None) -> PictureSet | None:
    """Loose parts through a view that follows them all; `None` where there is no such view."""
    console.print(_how_they_lie(loose), soft_wrap=True)
    worse = "whole pictures are looked at, which is worse for such parts: docs/view.md"
    if loose.sight is None:
        told = "but no view shows all of them: a part lacks room in its picture, or something lies beside it; "
        console.print(told + worse, soft_wrap=True)
        return None
    try:
        seen = through(found, loose.sight, side=side, strips=strips)
    except DataError as error:
        told = f"but no view follows all of them: {error.what} ({error.where}); "
        console.print(told + worse, soft_wrap=True)
        return None
    width, height = loose.sight.view.roi[2:]
    told = f"a view was drawn ({REFERENCE} in the run folder) that shows each as the others lie, and"
    told += f" {width} x {height} pixels around it, nothing else; --whole looks at all"
    console.print(told, soft_wrap=True)
    return seen


def _how_they_lie(loose: Loose) -> str:
    off = f"a tenth of them {counted(round(loose.shift_px), 'pixel')} or more off"
    return f"parts do not lie still, {off}, {loose.turned:.0%} turned"


def look_with_bar(pictures: Sequence[Picture]) -> Looked:
    """Look at pictures and show how far it is; say where they have several sizes."""
    with progress_bar(console) as progress:
        bar = progress.add_task("read the pictures", total=len(pictures))
        looked = check_pictures(pictures, advance=lambda: progress.advance(bar))
    _tell_lost(pictures)
    if len(looked.sizes) > 1:
        ((wide, high), usual), ((width, height), others) = list(looked.sizes.items())[:2]
        told = f"the pictures have {len(looked.sizes)} sizes: {len(usual)} are {wide} x {high}, {len(others)} "
        told += f"{width} x {height}, like {others[0].path}; all are stretched to the same one, "
        told += "and a camera has one size"
        console.print(told, soft_wrap=True)
    return looked


def _tell_lost(pictures: Sequence[Picture]) -> None:
    """Say, of some pictures, where transparency is left away and where there are but a few levels of grey."""
    some = [picture.path for picture in some_of(pictures, _LOOKED_AT)]
    lost = {path: lost_of(path) for path in some}
    if clear := [path for path, (is_clear, _, _) in lost.items() if is_clear]:
        told = f"transparency is left away, as in {clear[0]}: what lies under it is seen, often black; "
        console.print(f"{told}save cut-out parts on the background that the camera sees", soft_wrap=True)
    white = max(white for _, _, white in lost.values())
    deep = {path: brightest for path, (_, brightest, own) in lost.items() if own == white}
    brightest, is_deep = max(deep.values()), white > _OF_14_BITS
    if brightest < (_OF_14_BITS if is_deep else _OF_5_BITS):
        told = "pictures of 16 bits are dark, as of a 14-bit camera" if is_deep else "pictures are dark"
        told += f": at most {brightest} of {white}, as in {next(iter(deep))}, which leaves "
        told += f"{brightest * 256 // (white + 1) + 1} levels of grey; "
        cure = "multiply them all so that white is near 65535, or save them with 8 bits"
        console.print(told + (cure if is_deep else "expose longer or give more light"), soft_wrap=True)


def tell_misfits(misfits: Mapping[Path, OutOfView]) -> None:
    """Say how many pictures the view cannot use."""
    if misfits:
        path, why = next(iter(misfits.items()))
        told = (
            f"{counted(len(misfits), 'picture')} only counted, as a station would make no decision there, like "
        )
        console.print(f"{told}{path}: {why.what}", soft_wrap=True)


def _tell_strips(strips: Strips, proportion: float, side: int) -> None:
    """Say that long pictures are cut, as their proportions are kept so."""
    longer, way = (proportion, "wide as high") if proportion >= 1 else (1 / proportion, "high as wide")
    height, width = strips.shape(side)
    told = f"the pictures are {longer:.1f} times as {way}: the model sees each at {width} x {height} pixels, "
    console.print(f"{told}in {strips.number} strips; --strips 1 squeezes it into a square", soft_wrap=True)


def _tell_enlarged(looked: Looked, side: int) -> None:
    """Say which pictures have fewer than a quarter of the pixels that the model is shown."""
    small = [p for (width, height), few in looked.sizes.items() if 4 * width * height < side**2 for p in few]
    if small:
        told = f"{counted(len(small), 'picture')} far smaller than the {side} x {side} pixels of --size, like "
        told += f"{small[0].path}: blown up, they show no more; train with a smaller --size, or on pictures, "
        console.print(f"{told}or a roi, with more pixels of the part", soft_wrap=True)


def tell_passed_over(data: Path) -> None:
    """Say which pictures of a data folder nobody reads, as they lie in the wrong place."""
    if left := passed_over(data):
        told = f"{counted(len(left), 'picture')} left out by their place, like {left[0]}: defects lie in "
        console.print(f"{told}test/DEFECT where there is train/good, in DEFECT beside good", soft_wrap=True)


def tell_by_masks(found: PictureSet) -> None:
    """Say how many parts are good and bad where only masks tell them apart."""
    if found.by_masks:
        good = sum(picture.label == GOOD for picture in (*found.train, *found.test))
        told = f"good and bad parts lie together: by their masks {counted(good, 'picture')} of good ones, "
        console.print(f"{told}{len(found.test) + len(found.train) - good} of bad ones", soft_wrap=True)


def tell_copies(found: PictureSet, new: PictureSet) -> None:
    """Say what was left out or kept together because it is there twice."""
    known, tested = len(found.train) - len(new.train), len(found.test) - len(new.test)
    for count, what in (
        (found.copies, "with the content of another one: kept together with it, as one part"),
        (found.left_out, "of the test left out: the same pictures or parts are learned from"),
        (known, "of good parts left out, as the model knows them already"),
        (tested, "of the test left out, as the model learned from them before"),
    ):
        if count:
            console.print(f"{counted(count, 'picture')} {what}", soft_wrap=True)


def tell_doubts(pictures: Sequence[Picture]) -> None:
    """Say which good parts are most unlike the others, as a defect among them is learned as good."""
    told = ", ".join(str(picture.path) for picture in pictures[:_NAMED])
    told = f"the good parts most unlike the others, as the report shows them: {told}"
    console.print(f"{told}; are they good? What is not was learned as good: take it out", soft_wrap=True)


def tell_known(roles: Roles, known: Collection[str]) -> None:
    """Say how many held-back pictures show parts (groups) that the model knows."""
    if count := sum(picture.group in known for picture in roles.held_back):
        told = f"{counted(count, 'picture')} of parts that the model knows held back, for want of others: "
        console.print(told + "new good parts will score higher than they", soft_wrap=True)


def tell_folders(pictures: Sequence[Picture]) -> None:
    """Say where each folder may be one part, as with several cameras: its pictures count as several parts."""
    counts = Counter(picture.path.parent for picture in pictures)
    usual = statistics.median(counts.values())
    # But for copies each is a part of its own: no manifest says otherwise.
    are_parts = len({picture.group for picture in pictures}) > 0.9 * len(pictures)
    if are_parts and len(counts) >= _FEW_PARTS and 1 < usual <= _VIEWS:
        told = (
            f"good pictures lie in {len(counts)} folders, {usual:g} in most, like {pictures[0].path.parent}: "
        )
        told += (
            "where a folder is one part, name it as the group of its pictures in manifest.csv, else views of "
        )
        console.print(f"{told}one part are learned from and measure", soft_wrap=True)


def tell_few(held_back: Sequence[Picture]) -> None:
    """Say where few parts are held back: all scores are in units of what they reach."""
    if (parts := len({picture.group for picture in held_back})) < _FEW_PARTS:
        told = f"only {counted(len(held_back), 'picture')} of {counted(parts, 'part')} held back: the scale of "
        told += "the score rests on few"
        if len(held_back) < MIN_HELD_BACK:
            told += f", and an export to INT8 needs {MIN_HELD_BACK}"
        console.print(f"{told}; give more good parts", soft_wrap=True)


def tell_masked(masked: Masked) -> None:
    """Say which masks mark nothing or most of what is looked at."""
    for pictures, what in (
        (masked.empty, "without a mark in what is looked at, like {}: as if there were none"),
        (masked.most, "marking most of what is looked at, like {}: is it bright where the defect is?"),
    ):
        if pictures:
            told = f"{counted(len(pictures), 'mask')} {what.format(pictures[0].mask)}"
            console.print(told, soft_wrap=True)


def tell_unmasked(bad: Sequence[Picture]) -> None:
    """Say which defects the figures of pixels leave out, where others have masks."""
    without = [picture for picture in bad if picture.mask is None]
    if without and len(without) < len(bad):
        told = f"{len(without)} of {len(bad)} bad pictures have no mask, like {without[0].path}: the figures "
        console.print(told + "of pixels leave them out", soft_wrap=True)
