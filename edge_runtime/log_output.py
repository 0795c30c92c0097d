"""An output that writes down what the line was told: a line of JSON per result."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.output import Result
from kenpin.errors import ConfigError
from kenpin.events import now_ms

MAX_BYTES = 64 << 20
_LEAST_FREE_BYTES = 1 << 16


class LogOutput:
    """Appends to a file; a full one becomes `FILE.1`, in place of the one before.

    Args:
        path: The file.
        max_bytes: Size from which on a new one is begun.

    Raises:
        ConfigError: It cannot be written.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._owed = b""  # a line that was not taken, of a part that was not released
        try:
            self._handle = self._open()
        except OSError as error:
            raise ConfigError(
                f"the output log cannot be written: {error.strerror}",
                where=path,
                cure="give a file in a folder that this user may write, as log in [output]",
            ) from None

    def beat(self, *, ready: bool) -> None:
        """Not written down; but the line must not be told READY where the next result could not be.

        Raises:
            OSError: The disk has no room left, or still does not take the last line.
        """
        disk = os.fstatvfs(self._handle)
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        if self._owed:
            self._append(b"")

    def busy(self, *, busy: bool) -> None:
        """Not written down."""

    def result(self, result: Result) -> None:
        """Append one line, in one write.

        Raises:
            OSError: It cannot be written.
        """
        line = {
            "part_id": result.part_id,
            "trigger_id": result.trigger_id,
            "verdict": result.verdict.value,
            "pass": result.verdict is Verdict.OK,
            "mono_ns": time.monotonic_ns(),
            "ts_ms": now_ms(),
        }
        data = json.dumps(line).encode() + b"\n"
        try:
            self._append(data)
        except OSError:
            if result.verdict is not Verdict.OK:
                self._owed = data
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _append(self, line: bytes) -> None:
        """Write what is owed and a line."""
        if os.fstat(self._handle).st_size > self._max_bytes:
            self._begin_anew()
        data = self._owed + line
        written = os.write(self._handle, data)
        if written != len(data):
            # Or the next line would stand behind this piece, and neither could be read.
            os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
            raise OSError("the line was written in part only")
        self._owed = b""

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _begin_anew(self) -> None:
        """The full file is closed last: its number may then be that of another file, such as the database."""
        with suppress(FileNotFoundError):  # somebody has moved it away, or no new one could be opened last time
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        full, self._handle = self._handle, self._open()
        os.close(full)
