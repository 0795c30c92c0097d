"""Evidence: pictures of parts that were not released, kept on disk under a quota.

Pictures give way first: when the disk fills, the oldest go, and none is kept while records need the room. The
line never waits for a picture: they are written by a thread of their own, and what it cannot take is counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import cv2

from kenpin.config import EvidenceSection
from kenpin.edge_runtime.decide import Verdict
from kenpin.errors import reason_and_file
from kenpin.events import now_ms, uuid7
from kenpin.frame import Image
from kenpin.synced_file import replace_synced, sync_folder

_QUEUE = 8
_PAUSE_S = 2.0  # after the disk refused a picture
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # lossless: it may teach the next model

_log = logging.getLogger(__name__)


class Evidence:
    """Used by one thread; the pictures are written by another.

    Args:
        images: The folder of pictures; made where it is missing.
        section: Which to keep, and how much room they have.
        asked: A file that lies there while somebody wants the next picture, whatever becomes of the part.

    Attributes:
        dropped: Pictures that were not kept: too many at a time, or the disk refused them.
        bytes: Size of all pictures.
    """

    def __init__(self, images: Path, section: EvidenceSection, *, asked: Path | None = None) -> None:
        self.dropped = 0
        self.bytes = 0
        self._images = images
        self._section = section
        self._asked = asked
        self._files: deque[tuple[Path, int]] = deque()  # oldest first
        self._is_known = False  # what is there
        self._queue: queue.Queue[tuple[str, Image] | None] = queue.Queue(_QUEUE)
        self._written: deque[tuple[str, str]] = deque(maxlen=1000)
        self._resume_s = 0.0
        self._thread = threading.Thread(target=self._work, name="evidence", daemon=True)
        self._thread.start()

    def name_for(self, verdict: Verdict) -> str:
        """Where the picture of a part with this verdict will be, below the folder; empty if none is kept."""
        keep = self._section.keep
        is_kept = keep == "all" or (keep == "stopped" and verdict is not Verdict.OK)
        return self.name_any(verdict) if self._take_request() or is_kept else ""

    def name_any(self, _verdict: Verdict) -> str:
        """The same for a part whose picture is kept whatever becomes of it, as in a calibration."""
        now = now_ms()
        day = datetime.fromtimestamp(now / 1000, timezone.utc)
        return f"{day:%Y-%m-%d}/{uuid7(now)}.png"

    def offer(self, image_ref: str, image: Image) -> None:
        """Keep a copy of a picture; returns at once.

        Args:
            image_ref: From `name_for`.
            image: BGR uint8, shape (H, W, 3).
        """
        if self._queue.full():
            self.dropped += 1
            return
        self._queue.put((image_ref, image.copy()))

    def written(self) -> list[tuple[str, str]]:
        """Pictures that came to the disk since the last call: where, and their SHA-256."""
        return [self._written.popleft() for _ in range(len(self._written))]

    def close(self) -> None:
        """Write what waits and end."""
        self._queue.put(None)
        self._thread.join()

    def _take_request(self) -> bool:
        """Whether somebody wants this picture. Where that cannot be told, the part is judged all the same."""
        if self._asked is None:
            return False
        try:
            self._asked.unlink()
        except OSError:
            return False
        return True

    def _work(self) -> None:
        self._try(self._take_stock)
        while (offered := self._queue.get()) is not None:
            image_ref, image = offered
            if time.monotonic() < self._resume_s or not self._try(partial(self._keep, image_ref, image)):
                self.dropped += 1

    def _try(self, step: Callable[[], bool]) -> bool:
        """Whether a step worked; a disk that refuses is left alone for a while."""
        try:
            return step()
        except Exception as error:  # without this thread nobody would empty the queue, and no end would come
            if not self._resume_s:
                _log.warning(
                    "Pictures cannot be kept: %s. The line goes on without them.", reason_and_file(error)
                )
            self._resume_s = time.monotonic() + _PAUSE_S
            self._is_known = False  # the folder itself may be gone, or have come back with other pictures
            return False

    def _take_stock(self) -> bool:
        """Find what is there, and remove what a kill left half-written."""
        self._files.clear()
        self.bytes = 0
        self._images.mkdir(parents=True, exist_ok=True)
        for unfinished in self._images.glob("*/.*.part"):
            unfinished.unlink()
        for path in sorted(self._images.glob("*/*.png")):
            self._add(path, path.stat().st_size)
        self._is_known = True
        return True

    def _keep(self, image_ref: str, image: Image) -> bool:
        if not self._is_known:
            self._take_stock()
        done, encoded = cv2.imencode(".png", image, _PNG)
        data = encoded.tobytes()
        if not done or not self._make_room(len(data)):
            return False
        path = self._images / image_ref
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            sync_folder(self._images)
        replace_synced(path, data)
        self._add(path, len(data))
        self._written.append((image_ref, hashlib.sha256(data).hexdigest()))
        self._resume_s = 0.0
        return True

    def _make_room(self, size: int) -> bool:
        """Remove the oldest pictures until this one has room; whether it has."""
        most = self._section.max_mb * 1_000_000
        if size > most:  # for nothing, all others would go
            return False
        while self.bytes + size > most or self._free() < size:
            if not self._files:
                return False
            path, freed = self._files.popleft()
            path.unlink(missing_ok=True)
            self.bytes -= freed
            with contextlib.suppress(OSError):  # other pictures of that day
                path.parent.rmdir()
        return True

    def _free(self) -> int:
        """Bytes on the disk that pictures may use."""
        found = os.statvfs(self._images)
        return found.f_bavail * found.f_frsize - self._section.min_free_mb * 1_000_000

    def _add(self, path: Path, size: int) -> None:
        self._files.append((path, size))
        self.bytes += size
