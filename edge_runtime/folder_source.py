"""Pictures in a folder as parts on a line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import Fault, SourceUrl
from kenpin.errors import DataError, SourceError
from kenpin.frame import Frame, read_picture
from kenpin.pictures import list_pictures


class FolderSource:
    """Every picture below a folder is one part; pictures wait, so none is missed.

    Args:
        root: The folder; a part's id is the path below it.
        paths: The pictures in the order of their parts.
        period_s: Time from part to part in seconds, 0 = none.
        loop: Start over at the end.
    """

    drawn = False

    def __init__(self, root: Path, paths: Sequence[Path], *, period_s: float, loop: bool) -> None:
        self.camera = root.resolve().name
        self._root = root
        self._paths = paths
        self._period_s = period_s
        self._loop = loop
        self._index = 0
        self._due_s = time.monotonic()

    @classmethod
    def open(cls, url: SourceUrl) -> FolderSource:
        """Open `folder:DIR?rate=0&loop=0`.

        Raises:
            ConfigError: An option is out of range.
            SourceError: The folder is missing or holds no picture.
        """
        rate = url.number("rate", 0, low=0, high=1000)
        loop = url.number("loop", 0, low=0, high=1) > 0
        root = Path(url.target)
        try:
            paths = list_pictures(root)
        except DataError as error:
            raise SourceError(error.what, where=error.where, cure=error.cure) from None
        return cls(root, paths, period_s=1 / rate if rate else 0.0, loop=loop)

    def next(self) -> Frame | Fault | None:
        """The next picture; a fault if it cannot be read."""
        if self._index >= len(self._paths):
            if not self._loop:
                return None
            self._index = 0
        path = self._paths[self._index]
        self._index += 1
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._due_s = max(self._due_s, time.monotonic()) + self._period_s
        # A name that is not UTF-8 could be neither stored nor sent.
        part_id = path.relative_to(self._root).as_posix().encode("utf-8", "backslashreplace").decode()
        try:
            return Frame(read_picture(path), part_id, self.camera)
        except DataError as error:
            return Fault(part_id, self.camera, Verdict.NO_DECISION, error.what)

    def close(self) -> None:
        """Nothing is held open."""
