"""`manifest.csv`: which pictures of a folder are of one physical part."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from kenpin.errors import DataError, reason_of
from kenpin.folder_names import GROUND_TRUTH
from kenpin.picture_files import files_below, is_picture, name_below, one_spelling

MANIFEST = "manifest.csv"


def read_groups(folder: Path) -> dict[str, str]:
    """Read `manifest.csv`: path as `name_below` spells it -> group.

    Raises:
        DataError: It cannot be read, puts a picture into two groups, or names pictures that are not there while
            others are there that it does not name: mistyped, pictures of one part would pass for several parts.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    groups: dict[str, str] = {}
    for number, row in enumerate(read_rows(path), start=2):
        name, group = row["file"], row["group"]
        if groups.setdefault(name, group) != group:
            raise DataError(
                f"{MANIFEST} puts {name} into two groups, {groups[name]} and {group}",
                where=f"{path}, line {number}",
                cure="leave one row for each picture",
            )
    # A whole path, or one over a folder above, may lead to the picture, but no picture is looked up by it.
    gone = [name for name in groups if not _is_below(name) or not (folder / name).is_file()]
    if gone:  # or the disk spells them otherwise
        there = {name_below(found, folder) for found in files_below(folder)}
        gone = [name for name in gone if name not in there]
    if len(gone) == len(groups):
        raise DataError(
            f"{MANIFEST} names no file of this folder",
            where=path,
            cure="write paths relative to the folder, like good/part1.png, or remove the file",
        )
    if gone and _has_unnamed(folder, groups):
        raise DataError(
            f"{MANIFEST} names {gone[0]}, which is not there, and pictures are there that it does not name",
            where=path,
            cure="write paths relative to the folder, like good/part1.png; remove rows of what is gone",
        )
    return groups


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a `manifest.csv`, without spaces around the values; `file` as `name_below` writes it.

    Raises:
        DataError: It cannot be read, or lacks a file or a group in a row.
    """
    try:
        # Spreadsheets write a byte order mark, semicolons where a comma stands in numbers and, on Windows,
        # backslashes; people write a space after the comma.
        with path.open(newline="", encoding="utf-8-sig") as lines:
            header = lines.readline()
            lines.seek(0)
            separator = ";" if ";" in header and "," not in header else ","
            reader = csv.DictReader(lines, delimiter=separator, restkey="", restval="", skipinitialspace=True)
            found = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{MANIFEST} cannot be read: {reason_of(error)}",
            where=path,
            cure="save it as CSV in UTF-8, or remove it",
        ) from None
    rows = [{column: value.strip() for column, value in row.items() if column} for row in found]
    for number, row in enumerate(rows, start=2):
        if not row.get("file") or not row.get("group"):
            raise DataError(
                f"{MANIFEST} needs a file and a group in every row",
                where=f"{path}, line {number}",
                cure="name columns file and group in the first line, separated by commas, and fill them; or "
                "remove the file",
            )
        row["file"] = one_spelling(PurePosixPath(row["file"].replace("\\", "/")).as_posix())
    return rows


def read_groups_beside(pictures: Iterable[Path], root: Path) -> dict[str, str]:
    """Groups by each `manifest.csv` beside pictures or above them, below `root`: path below `root` -> group.

    Raises:
        DataError: As `read_groups`.
    """
    found: dict[str, str] = {}
    for folder in sorted(
        {folder for picture in pictures for folder in picture.parents if root in folder.parents}
    ):
        groups = {f"{name_below(folder, root)}/{name}": group for name, group in read_groups(folder).items()}
        found = groups | found  # where two name a picture, the upper one counts
    return found


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _has_unnamed(folder: Path, groups: dict[str, str]) -> bool:
    """Whether a picture of a folder, other than a mask, is not in its manifest."""
    names = (name_below(p, folder) for p in files_below(folder) if is_picture(p, folder))
    return any(name.split("/")[0] != GROUND_TRUTH and name not in groups for name in names)
