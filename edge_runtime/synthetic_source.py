"""A line of drawn parts that does not wait for the station."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass

import cv2
import numpy as np

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, SourceUrl, Trigger, takes_no_trigger
from kenpin.errors import SourceError
from kenpin.events import now_ms
from kenpin.frame import Frame, Image
from kenpin.synthetic import draw_part, label_of

QUEUE = 8
_TRIGGERS = 1024


@dataclass(frozen=True)
class DrawnLine:
    """What is drawn.

    Attributes:
        product: One of `kenpin.synthetic.PRODUCTS`.
        seed: Number of the line of parts.
        rate: Parts per second; 0 = a part for each trigger.
        defects: Share of parts with a defect, 0 to 1.
        size: Height and width of the pictures; `None` = as they are drawn.
    """

    product: str
    seed: int
    rate: float
    defects: float
    size: tuple[int, int] | None = None


class SyntheticSource:
    """Drawn parts, triggered by the clock or from outside.

    By the clock part k is due at t0 + k / rate, where t0 is the first `next`. The line is as strict as a real
    one: `QUEUE` frames can wait for the station; a part whose frame was overrun is reported as MISSED, never
    left out. The id of part k is `PRODUCT-SEED-k`. A trigger's number is the number of the part.

    Args:
        line: What is drawn.
    """

    drawn = True
    waits = False
    live = True
    down_reason = ""
    settings = NO_SETTINGS

    def __init__(self, line: DrawnLine) -> None:
        self.camera = f"synthetic-{line.product}"
        self._line = line
        self._index = 0
        self._taken = 0
        self._start_s: float | None = None
        self._asked: queue.Queue[Trigger] = queue.Queue(_TRIGGERS)

    @classmethod
    def from_url(cls, url: SourceUrl) -> SyntheticSource:
        """Read `synthetic:PRODUCT?seed=1&rate=10&defects=0.2&trigger=0&width=256&height=256`.

        Raises:
            ConfigError: The product is unknown or an option out of range.
        """
        seed = int(url.number("seed", 1, low=0, high=2**31))
        rate = url.number("rate", 10, low=0.1, high=1000)
        defects = url.number("defects", 0.2, low=0, high=1)
        triggered = url.number("trigger", 0, low=0, high=1) > 0
        height, width = (int(url.number(side, 0, low=0, high=8192)) for side in ("height", "width"))
        label_of(url.target, seed=seed, index=0, defect_share=defects)
        size = (height, width) if height and width else None
        return cls(DrawnLine(url.target, seed, 0.0 if triggered else rate, defects, size))

    def open(self) -> None:
        """Nothing to open."""

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """Wait until the next part is due and draw it; a fault if its frame was overrun."""
        return self._of_clock(deadline_s) if self._line.rate else self._of_trigger(deadline_s)

    def trigger(self, trigger: Trigger) -> None:
        """Draw the part of this number, where the line is triggered from outside.

        Raises:
            SourceError: The clock triggers, or too many triggers wait.
        """
        if self._line.rate:
            raise takes_no_trigger(self.camera)
        if self._asked.full():
            raise SourceError("too many triggers wait", where=self.camera, cure="trigger more slowly")
        self._asked.put(trigger)

    def close(self) -> None:
        """Nothing is held open."""

    def _of_clock(self, deadline_s: float) -> Frame | Fault | Lull:
        line, index = self._line, self._index
        if self._start_s is None:
            self._start_s = time.monotonic()
        due_s = self._start_s + index / line.rate
        if due_s > deadline_s:
            time.sleep(max(0.0, deadline_s - time.monotonic()))
            return Lull.IDLE
        self._index += 1
        part_id = f"{line.product}-{line.seed}-{index:06d}"
        late_s = time.monotonic() - due_s
        if late_s * line.rate > QUEUE:
            reason = f"overrun: more than {QUEUE} frames were waiting for the station"
            due_ms = now_ms() - round(late_s * 1000)
            return Fault(part_id, self.camera, Verdict.MISSED, reason, int(due_s * 1e9), due_ms)
        # Drawn ahead of time: drawing stands for the world before the camera, not for the station's work.
        image = self._draw(index)
        time.sleep(max(0.0, due_s - time.monotonic()))
        age_ms = round((time.monotonic() - due_s) * 1000)
        return Frame(image, part_id, self.camera, int(due_s * 1e9), now_ms() - age_ms, frame_id=index + 1)

    def _of_trigger(self, deadline_s: float) -> Frame | Lull:
        try:
            asked = self._asked.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return Lull.IDLE
        number = asked.trigger_id
        part_id = asked.part_id or f"{self._line.product}-{self._line.seed}-{number:06d}"
        self._taken += 1
        image = self._draw(number)
        return Frame(image, part_id, self.camera, asked.mono_ns, asked.ts_ms, self._taken, number)

    def _draw(self, index: int) -> Image:
        line = self._line
        image = draw_part(line.product, seed=line.seed, index=index, defect_share=line.defects).image
        if line.size is None:
            return image
        larger = cv2.resize(image, line.size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(larger, dtype=np.uint8)
