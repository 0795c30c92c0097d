"""One process at a time: a lock file that the kernel lets go of, however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Hold a lock file. The file stays; while it is held it tells the number of the process.

    On a full disk it tells nothing, and locks all the same.

    Args:
        path: The lock file; its folder exists.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: It cannot be opened.
    """
    with path.open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # a full disk must not stop a station from starting again
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        yield
