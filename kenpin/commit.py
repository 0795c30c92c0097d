"""Which commit of kenpin this is: two builds of one version differ."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

PACKED = Path(__file__).with_name("commit.txt")  # written into the wheel by setup.py


@cache
def git_commit() -> str:
    """Commit that kenpin was built of or runs from, with `+` for local changes; empty where nobody knows."""
    if PACKED.exists():
        return PACKED.read_text(encoding="ascii")
    try:
        # Installed into somebody else's checkout it is no part of that.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
