"""Where text for people goes."""

from __future__ import annotations

from rich.console import Console


def human_console(*, quiet: bool = False) -> Console:
    """Standard error. Square brackets are text there: names of files, parts and sections have some.

    Args:
        quiet: Say nothing.
    """
    return Console(stderr=True, markup=False, quiet=quiet)
