"""Videos through OpenCV."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2

from kenpin.edge_runtime.camera_source import read_image
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, SourceUrl, Untriggered, storable
from kenpin.errors import SourceError
from kenpin.frame import Frame

_log = logging.getLogger(__name__)


class VideoSource(Untriggered):
    """Every frame of a video file is one part; the id is the file's name and the frame's number."""

    drawn = False
    waits = True
    live = False
    down_reason = ""
    settings = NO_SETTINGS

    def __init__(self, path: Path) -> None:
        self.camera = storable(path.stem)
        self._path = path
        self._capture = cv2.VideoCapture()
        self._index = 0
        self._has_told = False

    @classmethod
    def from_url(cls, url: SourceUrl) -> VideoSource:
        """Read `video:FILE`."""
        return cls(Path(url.target))

    def open(self) -> None:
        """Open the file.

        Raises:
            SourceError: The file is missing or not a video.
        """
        if not self._path.is_file():
            raise SourceError("the video does not exist", where=self._path, cure="check the path")
        self._index = 0
        if not self._capture.open(str(self._path)):
            raise SourceError(
                "the file is not a video that can be decoded",
                where=self._path,
                cure="convert it to MP4 or MJPEG AVI",
            )

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """The next frame of the video."""
        image = read_image(self._capture)
        if image is None:
            self._tell_of_rest()
            return Lull.END
        part_id = f"{self.camera}-{self._index:06d}"
        self._index += 1
        return Frame(image, part_id, self.camera, frame_id=self._index)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _tell_of_rest(self) -> None:
        """Say where a file has fewer pictures than its head says: it is damaged, or was cut short."""
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if promised > self._index and not self._has_told:
            _log.warning(
                "%s gave %d pictures and says that it has %d: the rest cannot be read.",
                self._path,
                self._index,
                promised,
            )
        self._has_told = True
