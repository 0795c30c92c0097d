"""Whether a file has changed since it was last looked at."""

from __future__ import annotations

from pathlib import Path


def file_stamp(path: Path) -> tuple[int, ...]:
    """What differs once a file was written, replaced or made readable; empty where there is none.

    With the size, as it may be written twice within one tick of the file system's clock.

    Args:
        path: The file.
    """
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
