"""Pictures for the demo: drawn ones, or the user's own, split so that no part is on two sides."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from kenpin.errors import DataError
from kenpin.folder_names import GOOD
from kenpin.part_groups import MANIFEST
from kenpin.pictures import Picture, read_data, split_groups
from kenpin.synthetic import draw_part, label_of

TRAINING, CALIBRATION, MASTERS = 160, 60, 12
RATE = 10
_DEFECT_SHARE = 0.2
# Each side has a line of parts of its own: none is shown twice.
_TRAINING_SEED, _CALIBRATION_SEED, _MASTERS_SEED, _LINE_SEED = 1, 2, 3, 4


@dataclass(frozen=True)
class Line:
    """The parts that pass the station.

    Attributes:
        source: Address of the source for `kenpin run`.
        truth: Label of each part by its id, `good` or the kind of defect.
        summary: Number of pictures and parts, in words.
    """

    source: str
    truth: Mapping[str, str]
    summary: str


@dataclass(frozen=True)
class Folders:
    """Where the pictures of the demo lie.

    Attributes:
        root: The folder around them.
    """

    root: Path

    @property
    def training(self) -> Path:
        """Good parts to learn from."""
        return self.root / "good"

    @property
    def calibration(self) -> Path:
        """Fresh good parts to set the thresholds with."""
        return self.root / "calibration"

    @property
    def masters(self) -> Path:
        """Known bad parts."""
        return self.root / "masters"

    @property
    def line(self) -> Path:
        """Parts that pass the station, where they are not drawn."""
        return self.root / "line"


def draw_pictures(product: str, folders: Folders, *, parts: int) -> Line:
    """Draw the pictures to learn from and to calibrate with; the line draws its own."""
    _draw(product, folders.training, seed=_TRAINING_SEED, count=TRAINING, defect_share=0)
    _draw(product, folders.calibration, seed=_CALIBRATION_SEED, count=CALIBRATION, defect_share=0)
    _draw(product, folders.masters, seed=_MASTERS_SEED, count=MASTERS, defect_share=1)
    truth = {
        f"{product}-{_LINE_SEED}-{k:06d}": label_of(
            product, seed=_LINE_SEED, index=k, defect_share=_DEFECT_SHARE
        )
        for k in range(parts)
    }
    source = f"synthetic:{product}?seed={_LINE_SEED}&rate={RATE}&defects={_DEFECT_SHARE}"
    return Line(source, truth, _summary(TRAINING, CALIBRATION, MASTERS, parts))


def split_pictures(data: Path, folders: Folders, *, parts: int) -> Line:
    """Split a folder of pictures with links: to learn from, to calibrate with, masters, and the line.

    Args:
        data: Folder as `kenpin train --data` takes it.
        folders: Where to put the links.
        parts: Most pictures on the line.

    Raises:
        DataError: There are too few pictures.
    """
    pictures = read_data(data)
    split = split_four(pictures.train, pictures.test)
    _link(split.training, folders.training)
    _link(split.calibration, folders.calibration)
    _link(split.masters, folders.masters)
    mixed = list(split.line)
    random.Random(0).shuffle(mixed)
    names = _link(mixed[:parts], folders.line)
    truth = {name: picture.label for name, picture in zip(names, mixed, strict=False)}
    sides = (split.training, split.calibration, split.masters, names)
    return Line(f"folder:{folders.line}?rate={RATE}", truth, _summary(*map(len, sides)))


@dataclass(frozen=True)
class Split:
    """Pictures of four sides that share no part."""

    training: Sequence[Picture]
    calibration: Sequence[Picture]
    masters: Sequence[Picture]
    line: Sequence[Picture]


def split_four(train: Sequence[Picture], test: Sequence[Picture]) -> Split:
    """Split by part: half of the test pictures to the line, masters and good ones of the rest to calibration.

    Where the test pictures hold less than a third of the good ones, training gives some up.

    Args:
        train: Good pictures that may be learned from.
        test: Good and bad pictures that may not.

    Raises:
        DataError: A side would stay empty.
    """
    bad_parts = {p.group for p in test if p.label != GOOD}
    good_only = [p for p in test if p.group not in bad_parts]
    damaged = [p for p in test if p.group in bad_parts]
    wanted = (len(train) + len(good_only)) / 3
    training = list(train)
    if len(good_only) < wanted:
        training, spared = split_groups(training, (wanted - len(good_only)) / len(training), seed=0)
        good_only += spared
    calibration, line = split_groups(good_only, 0.5, seed=0)
    if damaged:
        share = min(0.5, MASTERS / len(bad_parts))
        on_line, shown = split_groups(damaged, share, seed=0)
        line += on_line
        # Good views of a damaged part are left out: they say nothing about good parts.
        masters = [p for p in shown if p.label != GOOD]
    else:
        masters = []
    if not (training and calibration and line):
        raise DataError(
            "too few parts for learning, calibrating and a line of their own",
            cure="give 30 good pictures at the least; pictures of one group count as one part",
        )
    return Split(training, calibration, masters, line)


def _summary(training: int, calibration: int, masters: int, line: int) -> str:
    return (
        f"{training} good pictures to learn from, {calibration} to calibrate with, {masters} masters; "
        f"{line} parts on the line"
    )


def _draw(product: str, folder: Path, *, seed: int, count: int, defect_share: float) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        part = draw_part(product, seed=seed, index=index, defect_share=defect_share)
        cv2.imwrite(str(folder / f"{index:04d}-{part.label}.png"), part.image)


def _link(pictures: Sequence[Picture], folder: Path) -> list[str]:
    """Link pictures into a folder in their order, with a manifest of their groups; returns the names."""
    if not pictures:
        return []
    folder.mkdir(parents=True)
    names = [f"{k:05d}-{p.label}-{p.path.name}" for k, p in enumerate(pictures)]
    for name, picture in zip(names, pictures, strict=True):
        (folder / name).symlink_to(picture.path.resolve())
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(("file", "group"))
        rows.writerows((name, p.group) for name, p in zip(names, pictures, strict=True))
    return names
