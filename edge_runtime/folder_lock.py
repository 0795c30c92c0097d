"""The locks of a station's folder: one station at a time, and one process for each of its roles."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from kenpin.errors import ConfigError
from kenpin.sole_use import sole_use

_CURE = "stop it first, or give each station its own state_dir"


def sole_user(root: Path, lock: str = "station.lock") -> contextlib.ExitStack:
    """Hold a station's folder; the kernel lets go of it however the process ends.

    Args:
        root: The folder.
        lock: Name of the lock in it.

    Raises:
        ConfigError: Another station runs on it, or it cannot be written.
    """
    try:
        return sole_use(root / lock)
    except BlockingIOError:
        raise ConfigError(
            f"another station runs on this folder (process {_holder(root / lock)})", where=root, cure=_CURE
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the station folder cannot be written: {error.strerror}",
            where=root,
            cure="give another state folder, or make it writable for this user",
        ) from None


@contextlib.contextmanager
def sole_supervisor(root: Path) -> Iterator[None]:
    """Hold a station's folder for a supervisor, whose children hold the other locks.

    Args:
        root: The folder.

    Raises:
        ConfigError: Another station runs on it, with or without a supervisor, or it cannot be written.
    """
    with sole_user(root, "supervisor.lock"):
        # A station that no supervisor started is found now, before it loses its sockets or broker.
        sole_user(root).close()
        yield


def sole_in_role(root: Path, role: str) -> contextlib.ExitStack:
    """Hold a role that has a socket or a connection which another process would take away.

    Args:
        root: The station's folder.
        role: `publisher`, `capture-0` …; what has a lock of its own or needs none is let through.

    Raises:
        ConfigError: Another process of the station has the role.
    """
    if not re.fullmatch(r"publisher|capture-\d+", role):
        return contextlib.ExitStack()
    lock = root / f"{role}.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        return sole_use(lock)
    except BlockingIOError:
        raise ConfigError(
            f"{role} of this station runs already (process {_holder(lock)})", where=root, cure=_CURE
        ) from None
    except OSError:
        return contextlib.ExitStack()  # a disk that cannot be written is no reason to take no pictures


def _holder(path: Path) -> str:
    return path.read_text().strip() or "unknown"
