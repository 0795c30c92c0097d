"""A running station whose parts are drawn, and laid before its camera one by one as a technician does."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kenpin.calibration.web.users import Users
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.site import NoNews, Site
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Settings, Trigger
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.events import now_ms
from kenpin.frame import Frame, Image
from kenpin.station_folder import StationFolder
from kenpin.synthetic import draw_part
from tests.edge_runtime.conftest import Workshop

PRODUCT = "board"
LIMIT_S = 180
ALIKE = 50
AT_ONCE = 8  # parts that wait before the camera: no more than pictures may wait for the disk


class Camera:
    """Sees what is laid before it."""

    camera = "bench"
    drawn = True
    waits = True
    live = False
    down_reason = ""
    settings: Settings = NO_SETTINGS

    def __init__(self) -> None:
        self.parts: queue.Queue[Frame] = queue.Queue()

    def open(self) -> None:
        """Nothing to open."""

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """The next part."""
        try:
            return self.parts.get(timeout=max(0.0, min(0.1, deadline_s - time.monotonic())))
        except queue.Empty:
            return Lull.IDLE

    def trigger(self, trigger: Trigger) -> None:
        """Nobody triggers."""
        raise AssertionError

    def close(self) -> None:
        """Nothing is held open."""


class ShownLine:
    """A station in a thread of this process.

    Args:
        root: A new folder.
        users: A file of users that the page of the station is to know.

    Attributes:
        light: Of the lamp, 1 = as it was set up.
    """

    def __init__(self, root: Path, users: Path) -> None:
        self.workshop = Workshop(root)
        self.workshop.install()
        Users(self.folder).path.write_bytes(users.read_bytes())
        Users(self.folder).path.chmod(0o600)
        self.light = 1.0
        self._camera = Camera()
        self._count = 0
        config = self.workshop.config("synthetic:board")
        self._station = Station(config, site=Site(lambda *_: [self._camera], lambda *_: NoNews()))
        self._thread = threading.Thread(target=self._station.run)
        self._thread.start()

    @property
    def folder(self) -> StationFolder:
        """The station's folder."""
        return self.workshop.folder

    def good(self, count: int = 1) -> None:
        """Show so many good parts."""
        for _ in range(count):
            self.show(self._drawn())

    def bad(self, strength: float) -> None:
        """Show a part with a bright spot.

        Args:
            strength: 0 = not to be seen, to 1 = white.
        """
        image = self._drawn().astype(np.float32)
        spot = np.zeros(image.shape[:2], np.float32)
        cv2.circle(spot, (88, 152), 9, 1.0, -1)
        image += (255 - image) * strength * cv2.GaussianBlur(spot, (0, 0), 2)[..., np.newaxis]
        self.show(np.clip(image, 0, 255).astype(np.uint8))

    def show(self, image: Image) -> None:
        """Show a picture, and wait until the station has stored what it says of it, and the picture."""
        before = self.parts()
        self._lay(image)
        self.wait(lambda: self.parts() > before, "the part")
        self.wait(self._is_kept, "its picture")

    def run_by(self, count: int) -> None:
        """Let so many good parts run by, as in production, and wait until all are judged and stored.

        They differ as much as the first 50 do: no fresh part is stopped by chance.
        """
        for _ in range(0, count, AT_ONCE):
            judged = self.parts() + min(AT_ONCE, count)
            for _ in range(min(AT_ONCE, count)):
                self._lay(self._alike())
            self.wait(lambda: self.parts() >= judged, "the parts")  # noqa: B023 called at once
            self.wait(self._is_kept, "their pictures")
            count -= AT_ONCE

    def parts(self) -> int:
        """Number of parts so far."""
        with reading(self.folder.database) as connection:
            return int(connection.execute("SELECT count(*) FROM part").fetchone()[0])

    def state(self) -> str:
        """How the station is, as it says itself."""
        return read_vitals(self.folder.run)["station"].state

    def verdicts(self) -> list[str]:
        """What the station said, newest first."""
        with reading(self.folder.database) as connection:
            return [row[0] for row in connection.execute("SELECT verdict FROM part ORDER BY seq DESC")]

    def wait(self, condition: Any, what: str) -> None:
        """Wait for something."""
        by_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < by_s, f"{what} did not come in {LIMIT_S} s"
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        self._station.stop()
        self._thread.join()
        self._station.__exit__(None, None, None)

    def _lay(self, image: Image) -> None:
        self._count += 1
        lit = np.asarray(cv2.convertScaleAbs(image, alpha=self.light), np.uint8)
        part_id = f"B-{self._count:05}"
        self._camera.parts.put(Frame(lit, part_id, "bench", time.monotonic_ns(), now_ms(), self._count))

    def _is_kept(self) -> bool:
        with reading(self.folder.database) as connection:
            (ref,) = connection.execute("SELECT image_ref FROM part ORDER BY seq DESC LIMIT 1").fetchone()
        return not ref or (self.folder.images / ref).exists()

    def _alike(self) -> Image:
        """One of 50 parts, in a picture of its own: its number stands in the first row, in dark pixels."""
        number = self._count + 1
        image = draw_part(PRODUCT, seed=7, index=number % ALIKE, defect_share=0).image.copy()
        image[0, [k for k in range(16) if number >> k & 1]] = 0
        return image

    def _drawn(self) -> Image:
        return draw_part(PRODUCT, seed=7, index=self._count, defect_share=0).image
