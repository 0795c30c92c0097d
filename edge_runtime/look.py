"""The look at a frame before the engine: is it a picture of a part at all, and where is the part in it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.region import Region, hottest_region
from kenpin.frame import Frame, Image


@dataclass(frozen=True)
class Seen:
    """What was found.

    Attributes:
        image: What the engine gets.
        finding: Why the frame cannot be judged, in words; empty where it can.
        cause: The same as one word.
    """

    image: Image
    finding: str = ""
    cause: str = ""

    def region(self, anomaly_map: NDArray[np.float32]) -> Region:
        """The strangest place, in frame pixels."""
        height, width = self.image.shape[:2]
        return hottest_region(anomaly_map, frame_height=height, frame_width=width)


class Look:
    """Looks at the frames of one station.

    Args:
        ready: What the station found.
    """

    def __init__(self, ready: Readiness) -> None:
        self._ready = ready

    def at(self, frame: Frame) -> Seen:
        """Look at a frame."""
        return Seen(frame.image)

    def stuck(self, score: float) -> str:
        """Why a score cannot be believed, in words; empty where it can."""
        return ""
