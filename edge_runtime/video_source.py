"""Videos and USB cameras through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import Fault, SourceUrl
from kenpin.errors import ConfigError, SourceError
from kenpin.frame import Frame, Image

_REOPEN_AFTER_S = 1.0


class VideoSource:
    """Every frame of a video file is one part; the id is the file's name and the frame's number."""

    drawn = False

    def __init__(self, path: Path, capture: cv2.VideoCapture) -> None:
        self.camera = path.stem
        self._capture = capture
        self._index = 0

    @classmethod
    def open(cls, url: SourceUrl) -> VideoSource:
        """Open `video:FILE`.

        Raises:
            SourceError: The file is missing or not a video.
        """
        path = Path(url.target)
        if not path.is_file():
            raise SourceError("the video does not exist", where=path, cure="check the path")
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise SourceError(
                "the file is not a video that can be decoded", where=path, cure="convert it to MP4 or MJPEG AVI"
            )
        return cls(path, capture)

    def next(self) -> Frame | Fault | None:
        """The next frame of the video."""
        image = _read(self._capture)
        if image is None:
            return None
        part_id = f"{self.camera}-{self._index:06d}"
        self._index += 1
        return Frame(image, part_id, self.camera)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class CameraSource:
    """A USB camera that runs freely: each call takes its newest picture.

    A camera that delivers nothing gives one fault per second while it is opened again and again.

    Args:
        device: Index of the camera, as in `/dev/video0`.
        settings: OpenCV's capture properties and their values.
    """

    drawn = False

    def __init__(self, device: int, settings: Mapping[int, float]) -> None:
        self.camera = f"usb{device}"
        self._device = device
        self._settings = settings
        self._index = 0
        self._capture = self._connect()

    @classmethod
    def open(cls, url: SourceUrl) -> CameraSource:
        """Open `usb:INDEX?width=&height=&fps=`.

        Raises:
            ConfigError: The index or an option is not a number in range.
            SourceError: The camera does not open.
        """
        if not url.target.isdecimal():
            raise ConfigError(
                f"{url.target!r} is not a camera's number", where=url.url, cure="for example usb:0"
            )
        names = (
            ("width", cv2.CAP_PROP_FRAME_WIDTH),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT),
            ("fps", cv2.CAP_PROP_FPS),
        )
        settings = {p: url.number(name, 0, low=1, high=100_000) for name, p in names if name in url.options}
        source = cls(int(url.target), settings)
        if not source._capture.isOpened():
            raise SourceError(
                "the camera does not open",
                where=f"/dev/video{url.target}",
                cure="check the cable, that no other program uses it, and that you may read it (group video)",
            )
        return source

    def next(self) -> Frame | Fault | None:
        """The camera's newest picture, or a fault."""
        part_id = f"{self.camera}-{self._index:06d}"
        self._index += 1
        image = _read(self._capture)
        if image is not None:
            return Frame(image, part_id, self.camera)
        self.close()
        time.sleep(_REOPEN_AFTER_S)
        self._capture = self._connect()
        return Fault(part_id, self.camera, Verdict.MISSED, "the camera delivers no picture")

    def close(self) -> None:
        """Let the camera go."""
        self._capture.release()

    def _connect(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self._device)
        for setting, value in self._settings.items():
            capture.set(setting, value)
        # Otherwise old pictures queue in the driver and a verdict is about a part that has long passed.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture


def _read(capture: cv2.VideoCapture) -> Image | None:
    try:
        delivered, image = capture.read()
    except cv2.error:
        return None
    return np.ascontiguousarray(image, dtype=np.uint8) if delivered else None
