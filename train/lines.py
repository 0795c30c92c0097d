"""Two lines of one product, or one line early and late, to measure what carries over from one to the other."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from kenpin.errors import ConfigError, DataError, reason_of
from kenpin.folder_names import GOOD
from kenpin.pictures import Picture, read_data
from kenpin.train.bench_set import BenchSet, set_of
from kenpin.train.data import some_of

STREAM = "stream.csv"
# Enough for figures that can be trusted, few enough for minutes.
MOST_GOOD, MOST_BAD, MOST_TRAIN = 200, 200, 240


def read_lines(folder: Path, pattern: str, *, side: int) -> tuple[BenchSet, BenchSet]:
    """Two lines from one MVTec folder: pictures whose file name matches, and all others.

    Args:
        folder: The data folder.
        pattern: Regular expression; a name that it matches from the start belongs to the first line.
        side: Side of the pictures.

    Raises:
        ConfigError: The pattern is no regular expression.
        DataError: The folder cannot be used, or one of the lines has no pictures.
    """
    try:
        first = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"--first {pattern!r} is no regular expression: {error}",
            cure="give one that matches the file names of one line from their start, like 'exp[1-3]'",
        ) from None
    data = read_data(folder)
    lines = []
    for number, of_line in enumerate((True, False)):
        train, test = (
            [p for p in pictures if bool(first.match(p.path.name)) == of_line]
            for pictures in (data.train, data.test)
        )
        if not train or not test:
            raise DataError(
                f"line {number + 1} has {len(train)} pictures to learn from and {len(test)} to test",
                where=folder,
                cure=f"give another --first: {pattern!r} has to match the file names of one line",
            )
        lines.append(_bench_set(f"{folder.name} {number + 1}", train, test, side))
    return lines[0], lines[1]


def read_stream(folder: Path, until: str, since: str, *, side: int) -> tuple[BenchSet, BenchSet]:
    """One line early and late, from a folder with `stream.csv` (time, place, file, pitting).

    Early are the good pictures before `until`, late are those up to `since`; good and bad pictures from then
    on test the late line. The early line is tested on good pictures of its own and the same bad ones.

    Args:
        folder: The data folder.
        until: Time (ISO 8601) at which the early line ends and the late one begins.
        since: Time from which pictures test.
        side: Side of the pictures.

    Raises:
        DataError: The folder cannot be used, or a part of the stream is empty.
    """
    rows = _rows(folder)
    early = [p for time, p in rows if time < until and p.label == GOOD]
    late = [p for time, p in rows if until <= time < since and p.label == GOOD]
    test = [p for time, p in rows if time >= since]
    bad = [p for p in test if p.label != GOOD]
    if not early or not late or not bad or len(bad) == len(test):
        raise DataError(
            f"the stream has {len(early)} good pictures before {until}, {len(late)} up to {since}, and "
            f"{len(test) - len(bad)} good and {len(bad)} bad ones from then on",
            where=folder / STREAM,
            cure="choose the times such that none is 0",
        )
    fit, of_early = early[::2], early[1::2]
    return (
        _bench_set(f"{folder.name} early", fit, of_early + bad, side),
        _bench_set(f"{folder.name} late", late, test, side),
    )


def _rows(folder: Path) -> list[tuple[str, Picture]]:
    path = folder / STREAM
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            found = list(csv.DictReader(lines))
        return [(row["time"], _picture(folder, row)) for row in found]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(
            f"{STREAM} cannot be read: {reason_of(error)}",
            where=path,
            cure="give a folder of a stream of pictures",
        ) from None


def _picture(folder: Path, row: dict[str, str]) -> Picture:
    path = folder / row["file"]
    mask = folder / "masks" / f"{path.stem}_mask.png"
    bad = row["pitting"] == "1"
    return Picture(path, "pitting" if bad else GOOD, path.stem, mask if bad and mask.exists() else None)


def _bench_set(name: str, train: Sequence[Picture], test: Sequence[Picture], side: int) -> BenchSet:
    kept = some_of([p for p in test if p.label == GOOD], MOST_GOOD)
    kept += some_of([p for p in test if p.label != GOOD], MOST_BAD)
    return set_of(name, some_of(train, MOST_TRAIN), kept, side=side)
