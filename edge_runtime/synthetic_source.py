"""A line of drawn parts that does not wait for the station."""

from __future__ import annotations

import time

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import Fault, SourceUrl
from kenpin.events import now_ms
from kenpin.frame import Frame
from kenpin.synthetic import draw_part, label_of

QUEUE = 8


class SyntheticSource:
    """Drawn parts, triggered by the clock: part k is due at t0 + k / rate, where t0 is the first `next`.

    The line is as strict as a real one: `QUEUE` frames can wait for the station; a part whose frame was
    overrun is reported as MISSED, never left out. The id of part k is `PRODUCT-SEED-k`.

    Args:
        product: One of `kenpin.synthetic.PRODUCTS`.
        seed: Number of the line of parts.
        rate: Parts per second.
        defects: Share of parts with a defect, 0 to 1.
    """

    drawn = True

    def __init__(self, product: str, *, seed: int, rate: float, defects: float) -> None:
        self.camera = f"synthetic-{product}"
        self._product = product
        self._seed = seed
        self._rate = rate
        self._defects = defects
        self._index = 0
        self._start_s: float | None = None

    @classmethod
    def open(cls, url: SourceUrl) -> SyntheticSource:
        """Open `synthetic:PRODUCT?seed=1&rate=10&defects=0.2`.

        Raises:
            ConfigError: The product is unknown or an option out of range.
        """
        seed = int(url.number("seed", 1, low=0, high=2**31))
        rate = url.number("rate", 10, low=0.1, high=1000)
        defects = url.number("defects", 0.2, low=0, high=1)
        label_of(url.target, seed=seed, index=0, defect_share=defects)
        return cls(url.target, seed=seed, rate=rate, defects=defects)

    def next(self) -> Frame | Fault | None:
        """Wait until the next part is due and draw it; a fault if its frame was overrun."""
        index = self._index
        self._index += 1
        if self._start_s is None:
            self._start_s = time.monotonic()
        due_s = self._start_s + index / self._rate
        part_id = f"{self._product}-{self._seed}-{index:06d}"
        late_s = time.monotonic() - due_s
        if late_s * self._rate > QUEUE:
            reason = f"overrun: more than {QUEUE} frames were waiting for the station"
            due_ms = now_ms() - round(late_s * 1000)
            return Fault(part_id, self.camera, Verdict.MISSED, reason, int(due_s * 1e9), due_ms)
        # Drawn ahead of time: drawing stands for the world before the camera, not for the station's work.
        part = draw_part(self._product, seed=self._seed, index=index, defect_share=self._defects)
        time.sleep(max(0.0, due_s - time.monotonic()))
        age_ms = round((time.monotonic() - due_s) * 1000)
        return Frame(part.image, part_id, self.camera, int(due_s * 1e9), now_ms() - age_ms)

    def close(self) -> None:
        """Nothing is held open."""
