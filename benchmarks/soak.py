"""A soak: a station judges small pictures as fast as it can, and what it takes of the machine stays level.

python -m benchmarks.soak --frames 1000000 --minutes 50
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.history import History
from benchmarks.rig import Rig
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.report import rss_mb
from tests.edge_runtime.conftest import Workshop, grey_png

ROLES = ("station", "publisher", "health", "capture-0")
_EVERY_S = 2.0
_WARM = 0.2  # of the run
_BLOCKS = 10  # neighbouring samples are alike; the means of blocks are nearly independent
_T = 2.306  # Student, 95 %, two-sided, of ten blocks less two


@dataclass(frozen=True)
class Sample:
    """What the processes take at one time.

    Attributes:
        at_s: Monotonic clock, seconds.
        rss_mb: Resident memory by role, MB.
        handles: Open files of all of them.
        threads: Threads of all of them.
    """

    at_s: float
    rss_mb: dict[str, float]
    handles: int
    threads: int


@dataclass
class Soak:
    """What was seen.

    Attributes:
        samples: In order.
        restarts: Processes that were started again.
        periods_ms: Time from one decision to the next, of all parts, in order.
        history: What the station left behind.
    """

    samples: list[Sample] = field(default_factory=list)
    restarts: int = 0
    periods_ms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    history: History = field(default_factory=lambda: History([], [], [], [], []))

    def slope(self, role: str) -> tuple[float, float]:
        """How fast a process grows after the warm-up: MB per hour, and half of its 95 % interval."""
        warm = self.samples[int(len(self.samples) * _WARM) :]
        hours = _means(np.array([sample.at_s / 3600 for sample in warm]))
        sizes = _means(np.array([sample.rss_mb[role] for sample in warm]))
        return fit(hours, sizes)

    def drift(self) -> tuple[float, float, float]:
        """The p99 of the periods: its median over blocks, its change over the run, half its 95 % interval."""
        warm = self.periods_ms[int(len(self.periods_ms) * _WARM) :]
        blocks = np.array([np.percentile(block, 99) for block in np.array_split(warm, _BLOCKS)])
        change, half = fit(np.arange(_BLOCKS) / (_BLOCKS - 1), blocks)
        return float(np.median(blocks)), change, half

    def grown(self) -> dict[str, int]:
        """Files and threads at the end, more than after the warm-up."""
        first, last = self.samples[int(len(self.samples) * _WARM)], self.samples[-1]
        return {"files": last.handles - first.handles, "threads": last.threads - first.threads}


def fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """The slope of a line through ten points, and half of its 95 % interval."""
    around = x - x.mean()
    slope = float(around @ y / (around @ around))
    rest = y - y.mean() - slope * around
    return slope, float(_T * np.sqrt(rest @ rest / (len(x) - 2) / (around @ around)))


def soak(root: Path, *, frames: int, limit_s: float) -> Soak:
    """Let a station run.

    Args:
        root: An empty folder.
        frames: How many parts.
        limit_s: The longest it may take, seconds.
    """
    workshop = Workshop(root)
    workshop.calibrated(t1=107.0, t2=109.0)
    pictures = root / "pictures"
    pictures.mkdir()
    for number in range(50):  # two in a hundred are NG, so that events flow
        (pictures / f"{number:02d}.png").write_bytes(grey_png(200 if number == 0 else 50 + number))
    source = f'url = "folder:{pictures}?loop=1"'
    rig = Rig(root / "rig", workshop.folder, workshop.public_key, rate=1, source=source)
    try:
        rig.start()
        rig.wait(rig.is_connected, "the publisher's connection")
        found = Soak(samples=list(_watch(rig, frames=frames, by_s=time.monotonic() + limit_s)))
        found.restarts = rig.restarts()
        rig.end()
        found.periods_ms = _periods_ms(rig)
        found.history = rig.history(number="frame_id", triggers=range(1, len(found.periods_ms) + 2))
    finally:
        rig.close()
    return found


def sample(rig: Rig) -> Iterator[Sample]:
    """What the processes of a station take now; nothing while one of them is started again."""
    rss, handles, threads = {}, 0, 0
    with contextlib.suppress(FileNotFoundError):
        for role in ROLES:
            pid = rig.pid(role)
            rss[role] = rss_mb(pid)
            handles += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
    if len(rss) == len(ROLES):
        yield Sample(time.monotonic(), rss, handles, threads)


def _watch(rig: Rig, *, frames: int, by_s: float) -> Iterator[Sample]:
    while parts_done(rig) < frames and time.monotonic() < by_s:
        yield from sample(rig)
        time.sleep(min(_EVERY_S, max(0.1, by_s - time.monotonic())))
    yield from sample(rig)


def parts_done(rig: Rig) -> int:
    """How many parts the station has answered."""
    with reading(rig.folder.database) as store:
        return int(store.execute("SELECT coalesce(max(seq), 0) FROM part").fetchone()[0])


def _periods_ms(rig: Rig) -> NDArray[np.float64]:
    with reading(rig.folder.database) as store:
        rows = store.execute("SELECT decided_mono_ns FROM part ORDER BY seq")
        decided_ns = np.fromiter((ns for (ns,) in rows), np.int64)
    return np.diff(decided_ns) / 1e6


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([block.mean() for block in np.array_split(values, _BLOCKS)])


@click.command()
@click.option("--frames", default=1_000_000, help="How many parts.")
@click.option("--minutes", default=50.0, help="The longest it may take.")
def main(frames: int, minutes: float) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as root:
        found = soak(Path(root), frames=frames, limit_s=minutes * 60)
    hours = (found.samples[-1].at_s - found.samples[0].at_s) / 3600
    print(f"{found.history.summary()} in {hours * 60:.1f} minutes")
    for role in ROLES:
        slope, half = found.slope(role)
        print(f"{role}: {found.samples[-1].rss_mb[role]:.0f} MB, {slope:+.2f} +- {half:.2f} MB/h")
    p99, change, half = found.drift()
    print(f"time per part: p99 {p99:.2f} ms, {change / p99:+.1%} +- {half / p99:.1%} from begin to end")
    print(f"more at the end: {found.grown()}; started again: {found.restarts}")
    anew = ["a process was started again, and its pictures are counted anew: nothing can be said of them"]
    violations = anew if found.restarts else found.history.violations()
    print(f"{len(violations)} violations", *violations[:20], sep="\n  ")
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
