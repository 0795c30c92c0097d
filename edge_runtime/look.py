"""The look at a frame before the engine: is it a picture of a part at all, and where is the part in it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kenpin.cutout import Cutout
from kenpin.edge_runtime.quality_gate import QualityGate
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.region import Region, hottest_region
from kenpin.edge_runtime.series_name import series_name
from kenpin.edge_runtime.stuck_score import StuckScore
from kenpin.errors import OutOfView
from kenpin.frame import Frame, Image
from kenpin.quality import Quality
from kenpin.quality_limits import AS_EMPTY, Finding
from kenpin.sight import take


@dataclass(frozen=True)
class Seen:
    """What was found.

    Attributes:
        image: What the engine gets.
        cutout: Where in the frame that is.
        finding: Why the frame cannot be judged, in words; empty where it can.
        cause: The same as one word.
        quality: What the frame measures; `None` = not measured.
    """

    image: Image
    cutout: Cutout
    finding: str = ""
    cause: str = ""
    quality: Quality | None = None

    def region(self, anomaly_map: NDArray[np.float32]) -> Region:
        """The strangest place, in frame pixels."""
        return hottest_region(anomaly_map, self.cutout)


class Look:
    """Looks at the frames of one station.

    The limits were learned on the first camera; the others are only checked for what holds for every camera.

    Args:
        ready: What the station found.
        cameras: Names of the cameras, the leading one first.
        live: Names of those whose pictures always differ.
    """

    def __init__(self, ready: Readiness, *, cameras: Collection[str] = (), live: Collection[str] = ()) -> None:
        limits = ready.record.quality if ready.record is not None else None
        first = next(iter(cameras), "")
        self._gates = {
            name: QualityGate(limits if name == first else None, live=name in live) for name in cameras
        }
        self._other = QualityGate(None, live=False)
        self._found = Counter[tuple[str, str]]()
        self._sight = ready.engine.sight if ready.engine is not None else None
        self._stuck = {name: StuckScore() for name in live}

    def at(self, frame: Frame) -> Seen:
        """Look at a frame.

        Raises:
            DataError: It is no frame at all.
        """
        gate = self._gates.get(frame.camera, self._other)
        found = gate.check(frame.image)
        taken = whole = take(frame.image, None)
        if found is None or found[0] in AS_EMPTY:
            try:
                taken = take(frame.image, self._sight)
            except OutOfView as error:
                if found is None or error.finding == Finding.ABSENT.value:
                    found = Finding(error.finding), "; ".join((error.what, *(found or ())[1:]))
        if found is None:
            return Seen(taken.image, taken.cutout, quality=gate.seen)
        self._found[frame.camera, found[0].value] += 1
        return Seen(whole.image, whole.cutout, found[1], found[0].value, gate.seen)

    def stuck(self, camera: str, score: float) -> str:
        """Why a score cannot be believed, in words; empty where it can."""
        watch = self._stuck.get(camera)
        return watch.check(score) if watch is not None else ""

    def findings(self) -> dict[str, int]:
        """How often each finding was made, by the name of its series."""
        return {
            series_name("findings_total", camera=camera, finding=finding): count
            for (camera, finding), count in self._found.items()
        }
