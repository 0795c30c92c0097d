"""metrics.jsonl, the journal of a run: one line per step or evaluation, also after a power cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kenpin.errors import TrainError, reason_of
from kenpin.synced_file import replace_synced


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All lines, none where there is no file. A last line that was cut off is left out.

    Raises:
        TrainError: Another line is damaged.
    """
    if not path.exists():
        return []
    # A power cut may leave any bytes at the end.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise TrainError(
                    f"{path.name} is damaged", where=f"{path}, line {number}", cure="remove that line"
                ) from None
    return found


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line; a line that was cut off before it is removed.

    Raises:
        TrainError: It cannot be written.
    """
    if _is_cut_off(path):
        rewrite(path, read_journal(path))
    try:
        with path.open("a", encoding="utf-8") as out:
            out.write(_line(entry))
    except OSError as error:
        raise cannot_write(path, error) from None


def rewrite(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Replace all lines; the old ones stay until the new ones are complete.

    Raises:
        TrainError: They cannot be written.
    """
    try:
        # Others of a group may go on with the run, as with a file that `append` makes.
        replace_synced(path, "".join(map(_line, entries)).encode(), mode=0o666)
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: Exception) -> TrainError:
    """What a run says when its disk is full, or it may not write there."""
    do = "let this user write there" if isinstance(error, PermissionError) else "free disk space"
    return TrainError(f"cannot write: {reason_of(error)}", where=path, cure=f"{do}, then go on with --resume")


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(dict(entry), allow_nan=False) + "\n"


def _is_cut_off(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"
