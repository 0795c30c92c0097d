"""A line that is twice as fast as its station: each part gets its answer, and the station stays as it is.

python -m benchmarks.overload --minutes 10
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.history import History
from benchmarks.rig import Rig
from benchmarks.soak import Soak, sample
from tests.edge_runtime.conftest import Workshop

_FASTEST = 400  # parts per second that the line's own clock can make
_LOOK_S = 2.0


@dataclass
class Overload:
    """What was seen.

    Attributes:
        soak: What the processes took; the history.
        queue: The longest queue that the station told.
        rate: Parts per second that the line sent.
        judged: Those of them that were judged.
    """

    soak: Soak = field(default_factory=Soak)
    queue: int = 0
    rate: float = 0.0
    judged: float = 0.0

    @property
    def history(self) -> History:
        """All that happened."""
        return self.soak.history


def overload(root: Path, *, seconds: float, times: float, measure_s: float) -> Overload:
    """Measure how fast the station is, and let the line be faster.

    Args:
        root: An empty folder.
        seconds: How long.
        times: How much faster the line is.
        measure_s: How long the station's speed is measured, in seconds.
    """
    workshop = Workshop(root)
    workshop.calibrated(t1=107.0, t2=109.0)
    rig = Rig(root / "rig", workshop.folder, workshop.public_key, rate=_FASTEST)
    found = Overload()
    try:
        rig.start()
        rig.line.start()
        judged = _judged(rig)
        time.sleep(measure_s)
        rig.line.rate = max(1.0, times * (_judged(rig) - judged) / measure_s)
        begun_s, judged, sent = time.monotonic(), _judged(rig), len(rig.line.triggers)
        while time.monotonic() < begun_s + seconds:
            time.sleep(_LOOK_S)
            found.soak.samples.extend(sample(rig))
            found.queue = max(found.queue, int(_told(rig, "queue_depth")))
        took_s = time.monotonic() - begun_s
        found.rate = (len(rig.line.triggers) - sent) / took_s
        found.judged = (_judged(rig) - judged) / took_s
        found.soak.restarts = rig.restarts()
        rig.stop()
        found.soak.history = rig.history()
    finally:
        rig.close()
    return found


def _told(rig: Rig, series: str) -> float:
    """The sum of what the station told last."""
    station = rig.station()
    assert station is not None
    return sum(number for name, number in station.numbers.items() if name.startswith(series))


def _judged(rig: Rig) -> float:
    return _told(rig, "parts_total") - _told(rig, 'parts_total{verdict="MISSED"')


@click.command()
@click.option("--minutes", default=10.0, help="How long.")
@click.option("--times", default=2.0, help="How much faster the line is than the station.")
def main(minutes: float, times: float) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as root:
        found = overload(Path(root), seconds=minutes * 60, times=times, measure_s=30)
    print(f"{found.rate:.1f} parts per second, {found.judged:.1f} of them judged; longest queue {found.queue}")
    slope, half = found.soak.slope("station")
    print(f"station: {found.soak.samples[-1].rss_mb['station']:.0f} MB, {slope:+.2f} +- {half:.2f} MB/h")
    print(f"more at the end: {found.soak.grown()}; started again: {found.soak.restarts}")
    violations = found.history.violations()
    print(found.history.summary(), f"{len(violations)} violations", *violations[:20], sep="\n  ")
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
