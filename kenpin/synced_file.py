"""Files that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path


def replace_synced(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file beside the old one, bring it to the disk, and only then let it take the name.

    Args:
        path: The file; its folder exists.
        data: The whole content.
        mode: Permissions, before the umask.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Root would put a file in the place of /dev/null, for everybody.
        raise OSError(errno.EINVAL, "it is a device or a pipe, and no file", str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    # Never one that lies there: in a folder like /tmp somebody else may have put a link or an open file there.
    partial.unlink(missing_ok=True)
    try:
        create_synced(partial, data, mode=mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def create_synced(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that is not there yet, and bring it to the disk; its name is there with `sync_folder`.

    Raises:
        OSError: It is there already, or cannot be written; no half of it stays.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(handle, "wb") as out:  # noqa: PTH123
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
