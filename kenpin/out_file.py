"""The file that a command shall write: one that it did not write itself is never replaced."""

from __future__ import annotations

from pathlib import Path

from kenpin.errors import ConfigError

_LOOKED_AT_BYTES = 2**20


def refuse_other(path: Path, mark: str, *, option: str = "--out") -> None:
    """Refuse to replace a file of another kind, before the work for it begins: a slip costs a configuration.

    Args:
        path: The file to write; there may be none, an empty one, or an older one of the same command.
        mark: Text that every file of this kind has in its first MiB.
        option: What names it on the command line.

    Raises:
        ConfigError: A file is there that this command did not write.
    """
    try:
        if not path.is_file():
            return  # what cannot be written is told by who writes
        with path.open("rb") as there:
            content = there.read(_LOOKED_AT_BYTES)
    except OSError:
        content = b"unreadable"
    if content and mark.encode() not in content:
        raise ConfigError(
            "there is a file already that this command did not write, and it is not replaced",
            where=path,
            cure=f"give {option} another name, or move it away",
        )
