"""A disk that loses its power: what was not synced may be there, may be lost, or may be torn.

A VFS for SQLite that keeps files in memory, as SQLite's own crash tests do (sqlite.org/testing.html). Deleting
a file counts as durable at once, and a synced write as safe: a drive that lies about that is not modelled.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw

SECTOR = 512


class PowerCutError(Exception):
    """The disk is gone."""


class DiskFile:
    """One file: what is safe, and what was written since."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.safe = bytearray()
        self.pending: list[tuple[int, bytes] | int] = []  # writes, and sizes that it was cut to

    def write(self, at: int, data: bytes) -> None:
        _put(self.now, at, data)
        self.pending.append((at, data))

    def truncate(self, size: int) -> None:
        del self.now[size:]
        self.pending.append(size)

    def sync(self) -> None:
        self.safe = bytearray(self.now)
        self.pending.clear()

    def after_cut(self, chance: random.Random) -> bytes:
        """What is on the disk after the power came back."""
        left = bytearray(self.safe)
        for change in self.pending:
            if isinstance(change, int):
                if chance.random() < 0.5:
                    del left[change:]
                continue
            at, data = change
            for start in range(0, len(data), SECTOR):
                if chance.random() < 0.5:
                    _put(left, at + start, data[start : start + SECTOR])
        return bytes(left)


class Disk:
    """All files, and a fuse that blows after so many writes and syncs."""

    def __init__(self, fuse: int) -> None:
        self.files: dict[str, DiskFile] = {}
        self._fuse = fuse

    def touch(self) -> None:
        self._fuse -= 1
        if self._fuse < 0:
            raise PowerCutError

    def restore(self, root: Path, chance: random.Random) -> None:
        """Write what is left to real files."""
        for name, file in self.files.items():
            (root / Path(name).name).write_bytes(file.after_cut(chance))


class CutFile(apsw.VFSFile):  # type: ignore[misc]
    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._file = disk.files.setdefault(name, DiskFile())

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._file.now[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.touch()
        self._file.write(offset, bytes(data))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.touch()
        self._file.truncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.touch()
        self._file.sync()

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._file.now)

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xClose(self) -> None:  # noqa: N802
        pass


class CutVFS(apsw.VFS):  # type: ignore[misc]
    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, base="")
        self._disk = disk

    def xOpen(self, name: Any, flags: list[int]) -> CutFile:  # noqa: N802
        flags[1] = flags[0]
        text = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        return CutFile(self._disk, text)

    def xAccess(self, path: str, flags: int) -> bool:  # noqa: N802
        return path in self._disk.files

    def xDelete(self, path: str, sync: bool) -> None:  # noqa: N802
        self._disk.touch()
        self._disk.files.pop(path, None)

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xRandomness(self, count: int) -> bytes:  # noqa: N802
        return b"\x01" * count

    def xSleep(self, microseconds: int) -> int:  # noqa: N802
        return microseconds

    def xCurrentTime(self) -> float:  # noqa: N802
        return 2_460_000.5

    def xGetLastError(self) -> tuple[int, str]:  # noqa: N802
        return 0, ""


class Connection:
    """What `kenpin.edge_runtime.store` uses of a connection of sqlite3, through apsw."""

    def __init__(self, disk: Disk, *, synchronous: str) -> None:
        self._vfs = CutVFS("cut", disk)
        self._connection = apsw.Connection("station.db", vfs="cut")
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", f"synchronous = {synchronous}"):
            self.execute(f"PRAGMA {pragma}")

    def execute(self, sql: str, values: Any = ()) -> SimpleNamespace:
        rows = list(self._connection.execute(sql, values))
        rest = iter(rows)
        return SimpleNamespace(
            fetchone=lambda: next(rest, None),
            fetchall=lambda: rows,
            lastrowid=self._connection.last_insert_rowid(),
            rowcount=self._connection.changes(),
        )

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def forget(self) -> None:
        """The machine is gone: nothing is written any more."""
        survive(lambda: self._connection.close(True))
        self._vfs.unregister()


def survive(step: Callable[[], object]) -> bool:
    """Whether a step ended before the power was cut."""
    try:
        step()
    except (PowerCutError, apsw.Error):
        return False
    return True


def _put(where: bytearray, at: int, data: bytes) -> None:
    if len(where) < at:
        where.extend(b"\0" * (at - len(where)))
    where[at : at + len(data)] = data
