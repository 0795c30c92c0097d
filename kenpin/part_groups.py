"""`manifest.csv`: which pictures of a folder are of one physical part."""

from __future__ import annotations

import csv
from pathlib import Path

from kenpin.errors import DataError

MANIFEST = "manifest.csv"


def read_groups(folder: Path) -> dict[str, str]:
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
