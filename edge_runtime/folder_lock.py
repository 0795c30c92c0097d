"""The lock of a station's folder: one station at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kenpin.errors import ConfigError
from kenpin.sole_use import sole_use


@contextlib.contextmanager
def sole_user(root: Path) -> Iterator[None]:
    """Hold a station's folder; the kernel lets go of it however the process ends.

    Args:
        root: The folder.

    Raises:
        ConfigError: Another station runs on it, or it cannot be written.
    """
    path = root / "station.lock"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(sole_use(path))
        except BlockingIOError:
            raise ConfigError(
                f"another station runs on this folder (process {path.read_text().strip() or 'unknown'})",
                where=root,
                cure="stop it first, or give each station its own state_dir",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the station folder cannot be written: {error.strerror}",
                where=root,
                cure="give another state folder, or make it writable for this user",
            ) from None
        yield
