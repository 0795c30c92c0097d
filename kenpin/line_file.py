"""A file of lines that are only appended, each of them on disk when its append returns.

A full disk, a kill or a power cut can leave an unfinished line at the end. Whoever wrote it was never told that
it is there: readers pass over it, and the next append takes it off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kenpin.synced_file import sync_folder

_BLOCK = 1 << 16


def append_line(path: Path, line: bytes) -> None:
    """Take an unfinished line off and append another one. The caller lets nobody else append meanwhile.

    Args:
        path: The file; its folder exists.
        line: The line, without its end.

    Raises:
        OSError: It cannot be written; at most an unfinished line was.
    """
    newest, torn = ending(path)
    with path.open("ab") as out:
        out.truncate(out.tell() - torn)
        out.write(line + b"\n")
        out.flush()
        os.fsync(out.fileno())
    if newest is None:
        sync_folder(path.parent)


def ending(path: Path) -> tuple[bytes | None, int]:
    """The newest line, `None` without one, and the size of an unfinished one behind it.

    Only the end of the file is read. A missing file has no line.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size if path.exists() else 0
    tail = b""
    while len(tail) < size and tail.count(b"\n") < 2:
        with path.open("rb") as content:
            content.seek(max(size - len(tail) - _BLOCK, 0))
            tail = content.read()
    *whole, torn = tail.split(b"\n")
    return (whole[-1] if whole else None), len(torn)


def whole_lines(path: Path, *, start: int = 0) -> Iterator[bytes]:
    """One by one, without their ends: who wants the first only reads no more.

    Args:
        path: The file; a missing one has no line.
        start: Where a line begins in the file, in bytes.

    Raises:
        OSError: It cannot be read.
    """
    if not path.exists():
        return
    with path.open("rb") as content:
        content.seek(start)
        for text in content:
            if not text.endswith(b"\n"):
                return  # unfinished, or being written
            yield text[:-1]
