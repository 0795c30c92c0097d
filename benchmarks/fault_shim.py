"""Faults of disk and clock for real processes: a library that is preloaded into them, and its switches."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("fault_shim.c")
_SWITCHES = ("clock_s", "sync_ms", "broken", "countdown", "failed")  # as in fault_shim.c
_INT = struct.Struct("<q")


class FaultShim:
    """Built with the machine's C compiler.

    Args:
        folder: A new folder for the library.
        root: Files below it are those of the disk that fails.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        folder.mkdir()
        library, control = folder / "fault_shim.so", folder / "control"
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
        subprocess.run([*command, str(_SOURCE), "-o", str(library), "-ldl"], check=True)
        control.write_bytes(bytes(_INT.size * len(_SWITCHES)))
        with control.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "KENPIN_FAULT_CONTROL": str(control),
            "KENPIN_FAULT_ROOT": str(root.resolve()),
        }

    def set(self, **switches: int) -> None:
        """Turn faults on or off.

        Args:
            switches: `clock_s`: what the wall clock is ahead. `sync_ms`: what each sync takes longer. `broken`:
                error number of every write and sync. `countdown`: so many writes or syncs of the database from
                now, one fails.
        """
        for name, value in switches.items():
            _INT.pack_into(self._memory, _SWITCHES.index(name) * _INT.size, value)

    def get(self, name: str) -> int:
        """Where a switch stands; `failed` counts the writes and syncs that did."""
        return int(_INT.unpack_from(self._memory, _SWITCHES.index(name) * _INT.size)[0])
