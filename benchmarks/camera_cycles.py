"""A camera that is unplugged and comes back, again and again, while the line goes on.

python -m benchmarks.camera_cycles --cycles 200
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from benchmarks.history import History
from benchmarks.rig import Rig
from benchmarks.soak import Sample, sample
from tests.edge_runtime.conftest import Workshop
from tests.edge_runtime.fake_camera import ADDRESS, FakeCamera

_RATE = 5
_PAUSE_S = 0.5
_WARM = 2  # cycles; the first ones load what only a loss needs
_SOURCE = f'url = "aravis:{ADDRESS}?trigger=software&width=64&height=64"\ntrigger = "software"\nwait_ms = 1000'


@dataclass
class Cycles:
    """What was seen.

    Attributes:
        noticed_s: From each loss until the station said so.
        back_s: From each return until it was ready.
        samples: What the processes took at the end of each cycle.
        restarts: Processes that were started again.
        history: All that happened.
    """

    noticed_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    restarts: int = 0
    history: History = field(default_factory=lambda: History([], [], [], [], []))

    @property
    def grown(self) -> tuple[int, int]:
        """Open files and threads at the end, more than after the first cycles."""
        warm, last = self.samples[_WARM - 1], self.samples[-1]
        return last.handles - warm.handles, last.threads - warm.threads


def unplug_again_and_again(root: Path, camera: FakeCamera, *, cycles: int, limit_s: float) -> Cycles:
    """Live through it.

    Args:
        root: An empty folder.
        camera: It is plugged in.
        cycles: How often.
        limit_s: No cycle begins after so many seconds.
    """
    workshop = Workshop(root)
    workshop.calibrated(t1=255.5, t2=256.0)
    rig = Rig(root / "rig", workshop.folder, workshop.public_key, rate=_RATE, source=_SOURCE)
    found = Cycles()
    try:
        rig.start()
        rig.line.start()
        by_s = time.monotonic() + limit_s
        while len(found.back_s) < cycles and time.monotonic() < by_s:
            time.sleep(_PAUSE_S)
            camera.unplug()
            found.noticed_s.append(rig.wait(lambda: "down" in rig.reason(), "the camera's loss", 300))
            time.sleep(_PAUSE_S)
            camera.plug_in()
            found.back_s.append(rig.wait(rig.is_ready, "the camera's return", 300))
            found.samples.extend(sample(rig))
        found.restarts = rig.restarts()
        rig.stop()
        found.history = rig.history()
    finally:
        rig.close()
    return found


@click.command()
@click.option("--cycles", default=200, help="How often it is unplugged.")
@click.option("--minutes", default=30.0, help="The longest it may take.")
def main(cycles: int, minutes: float) -> None:
    """Print the figures."""
    camera = FakeCamera()
    camera.plug_in()
    with tempfile.TemporaryDirectory() as root:
        found = unplug_again_and_again(Path(root), camera, cycles=cycles, limit_s=minutes * 60)
    camera.unplug()
    for what, seconds in (("noticed after", found.noticed_s), ("ready again after", found.back_s)):
        p50, p95 = np.percentile(seconds, (50, 95))
        print(f"{what}, {len(seconds)} times: p50 {p50:.2f} s, p95 {p95:.2f} s, longest {max(seconds):.2f} s")
    files, threads = found.grown
    print(f"{files:+d} open files, {threads:+d} threads; {found.restarts} processes started again")
    violations = found.history.violations()
    print(found.history.summary(), f"{len(violations)} violations", *violations[:20], sep="\n  ")
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
