"""Faults of disk and clock under the processes of a station, while the line goes on.

python -m benchmarks.faults
"""

from __future__ import annotations

import errno
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.badday import Row, print_table
from benchmarks.fault_shim import FaultShim
from benchmarks.history import History
from benchmarks.rig import Rig
from tests.edge_runtime.conftest import Workshop

_RATE = 10
_DAY_S = 86_400


@dataclass(frozen=True)
class Dose:
    """How much of each.

    Attributes:
        broken_s: How long every write fails, seconds.
        writes: One write fails, for each of the first so many from where it stands.
        slow_s: How long the disk is slow, seconds.
        steps: How often the clock steps, ahead and back in turn.
    """

    broken_s: float
    writes: int
    slow_s: float
    steps: int


@dataclass(frozen=True)
class Found:
    """What became of it.

    Attributes:
        rows: What broke.
        restarts: Processes that were started again.
        failed: Writes and syncs that failed.
        history: All that happened.
    """

    rows: list[Row]
    restarts: int
    failed: int
    history: History


class Faults:
    """Breaks one thing after the other.

    Args:
        rig: The station, started with the shim.
        shim: The switches.
        dose: How much.
    """

    def __init__(self, rig: Rig, shim: FaultShim, dose: Dose) -> None:
        self._rig = rig
        self._shim = shim
        self._dose = dose

    def rows(self) -> Iterator[Row]:
        """All faults in turn."""
        yield self._broken(errno.ENOSPC, "disk full")
        yield self._broken(errno.EIO, "every write fails (EIO)")
        yield self._one_write()
        yield self._slow()
        yield self._clock()

    def _broken(self, error: int, fault: str) -> Row:
        said = len(self._rig.log())
        self._shim.set(broken=error)
        noticed_s = self._rig.wait(lambda: "cannot be stored" in self._rig.log()[said:], fault)
        time.sleep(self._dose.broken_s)
        self._shim.set(broken=0)
        return self._row(f"{fault} for {self._dose.broken_s:g} s", noticed_s, "parts cannot be stored")

    def _one_write(self) -> Row:
        for number in range(1, self._dose.writes + 1):
            self._shim.set(countdown=number)
            self._rig.wait(lambda: self._shim.get("countdown") <= 0, f"write {number}")
        return self._row(f"EIO at the n-th write, n = 1 to {self._dose.writes}", -1.0, "")

    def _slow(self) -> Row:
        self._shim.set(sync_ms=2000)
        time.sleep(self._dose.slow_s)
        self._shim.set(sync_ms=0)
        return self._row(f"each fsync takes 2 s, for {self._dose.slow_s:g} s", -1.0, "")

    def _clock(self) -> Row:
        for number in range(self._dose.steps):
            self._shim.set(clock_s=(_DAY_S, 0, -_DAY_S, 0)[number % 4])
            time.sleep(1.5)
        self._shim.set(clock_s=0)
        return self._row(f"clock steps by a day, {self._dose.steps} times", -1.0, "")

    def _row(self, fault: str, noticed_s: float, said: str) -> Row:
        """What became of it, now that it is over: what the station told before does not count."""
        over_ns = time.monotonic_ns()

        def is_back() -> bool:
            station = self._rig.station()
            return station is not None and station.written_ns > over_ns and self._rig.is_ready()

        return Row(fault, noticed_s, self._rig.wait(is_back, f"ready after: {fault}"), said)


def live_through(root: Path, dose: Dose) -> Found:
    """Live through it.

    Args:
        root: An empty folder.
        dose: How much of each.
    """
    workshop = Workshop(root)
    workshop.calibrated(t1=107.0, t2=109.0)
    rig = Rig(root / "rig", workshop.folder, workshop.public_key, rate=_RATE)
    shim = FaultShim(root / "shim", workshop.folder.root)
    rig.environment = dict(shim.environment)
    try:
        rig.start()
        rig.line.start()
        rows = list(Faults(rig, shim, dose).rows())
        rig.stop()
        return Found(rows, rig.restarts(), shim.get("failed"), rig.history())
    finally:
        rig.close()


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as root:
        found = live_through(Path(root), Dose(broken_s=30, writes=200, slow_s=60, steps=40))
    print_table(found.rows, found.history)
    print(f"{found.failed} writes failed; started again: {found.restarts}")
    sys.exit(bool(found.history.violations() or found.restarts))


if __name__ == "__main__":
    main()
