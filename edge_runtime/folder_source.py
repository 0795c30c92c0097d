"""Pictures in a folder as parts on a line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, SourceUrl, Untriggered, storable
from kenpin.errors import DataError, SourceError
from kenpin.frame import Frame, read_picture
from kenpin.picture_files import list_pictures


class FolderSource(Untriggered):
    """Every picture below a folder is one part; pictures wait, so none is missed.

    Args:
        root: The folder; a part's id is the path below it.
        period_s: Time from part to part in seconds, 0 = none.
        loop: Start over at the end.
    """

    drawn = False
    waits = True
    live = False
    down_reason = ""
    settings = NO_SETTINGS

    def __init__(self, root: Path, *, period_s: float, loop: bool) -> None:
        self.camera = storable(root.resolve().name)
        self._root = root
        self._paths: Sequence[Path] = ()
        self._period_s = period_s
        self._loop = loop
        self._index = 0
        self._taken = 0
        self._due_s = 0.0

    @classmethod
    def from_url(cls, url: SourceUrl) -> FolderSource:
        """Read `folder:DIR?rate=0&loop=0`.

        Raises:
            ConfigError: An option is out of range.
        """
        rate = url.number("rate", 0, low=0, high=1000)
        loop = url.number("loop", 0, low=0, high=1) > 0
        return cls(Path(url.target), period_s=1 / rate if rate else 0.0, loop=loop)

    def open(self) -> None:
        """List the pictures.

        Raises:
            SourceError: The folder is missing or holds no picture.
        """
        try:
            self._paths = list_pictures(self._root)
        except DataError as error:
            raise SourceError(error.what, where=error.where, cure=error.cure) from None

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """The next picture; a fault if it cannot be read."""
        if self._index >= len(self._paths):
            if not self._loop:
                return Lull.END
            self._index = 0
        if self._due_s > deadline_s:
            time.sleep(max(0.0, deadline_s - time.monotonic()))
            return Lull.IDLE
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        path = self._paths[self._index]
        self._index += 1
        self._taken += 1
        self._due_s = max(self._due_s, time.monotonic()) + self._period_s
        part_id = storable(path.relative_to(self._root).as_posix())
        try:
            return Frame(read_picture(path), part_id, self.camera, frame_id=self._taken)
        except DataError as error:
            return Fault(part_id, self.camera, Verdict.NO_DECISION, error.what)

    def close(self) -> None:
        """Nothing is held open."""
