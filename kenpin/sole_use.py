"""One process at a time: a lock file that the kernel lets go of, however its holder ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path


def sole_use(path: Path) -> ExitStack:
    """Lock a file at once. The file stays; while it is locked it tells the number of the process.

    On a full disk it tells nothing, and locks all the same.

    Args:
        path: The lock file; its folder exists.

    Returns:
        Lets go of it at the end of `with`.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: It cannot be opened.
    """
    with ExitStack() as opened:
        lock = opened.enter_context(path.open("a+"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # a full disk must not stop a station from starting again
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        return opened.pop_all()
