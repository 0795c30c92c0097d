"""A bad day: everything breaks once while the line goes on, and the checker looks at what became of it.

make badday. Needs root for the disk that fills up (a small file system in memory). Faults that need no root
are in `benchmarks.faults`.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.history import History
from benchmarks.rig import Rig
from kenpin.activation import change_activation
from kenpin.bundle import install_bundle
from tests.edge_runtime.conftest import GOLDEN_SCORE, Workshop, brightness_model

_RATE = 10
_DISK_MB = 24


@dataclass(frozen=True)
class Row:
    """One thing that broke.

    Attributes:
        fault: What.
        noticed_s: Time until the station said so; negative = it needs to notice nothing.
        back_s: Time until it was ready again after the fault was over.
        said: What it said.
    """

    fault: str
    noticed_s: float
    back_s: float
    said: str


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system in memory at this folder."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class Day:
    """Breaks one thing after the other.

    Args:
        rig: The station.
        candidate: An installed bundle that fails.
    """

    def __init__(self, rig: Rig, candidate: str) -> None:
        self._rig = rig
        self._candidate = candidate

    def rows(self) -> Iterator[Row]:
        """All faults in turn."""
        yield self._camera_hangs()
        yield self._killed("capture-0")
        yield self._killed("station")
        yield self._killed("publisher")
        yield self._broker_down()
        yield self._disk_full()
        yield self._bundle_fails()

    def _camera_hangs(self) -> Row:
        pid = self._rig.pid("capture-0")
        self._rig.kill("capture-0", signal.SIGSTOP)
        noticed_s = self._rig.wait(lambda: "down" in self._rig.reason(), "the camera's loss")
        said = self._rig.reason()
        self._rig.wait(lambda: self._rig.pid("capture-0") not in (0, pid), "a new capture process")
        return self._row("camera hangs", noticed_s, said)

    def _killed(self, role: str) -> Row:
        pid = self._rig.pid(role)
        self._rig.kill(role)
        noticed_s = self._rig.wait(lambda: self._rig.pid(role) not in (0, pid), f"a new {role}")
        return self._row(f"{role} killed", noticed_s, "started again")

    def _broker_down(self) -> Row:
        self._rig.broker.kill()
        time.sleep(4)
        ready = self._rig.is_ready()
        self._rig.broker.start()
        return self._row("broker down for 4 s", -1.0, "the line runs on" if ready else "NOT READY")

    def _disk_full(self) -> Row:
        filler = self._rig.folder.root / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(b"\0" * 65536)
        noticed_s = self._rig.wait(lambda: "cannot be stored" in self._rig.log(), "the full disk")
        time.sleep(2)
        filler.unlink()
        return self._row("disk full for 2 s", noticed_s, "parts cannot be stored")

    def _bundle_fails(self) -> Row:
        """A bundle that scores its golden frames as it should, and no other."""
        before = self._rig.folder.installed().name
        change_activation(self._rig.folder, lambda was: was.wanting(self._candidate, "activate"))
        # Before its first part, or in its trial where the station has not seen a frame yet.
        noticed_s = self._rig.wait(lambda: "was given up" in self._rig.log(), "the refusal, or the way back")
        is_back = self._rig.folder.installed().name == before
        return self._row("new bundle fails", noticed_s, "the old one decides" if is_back else "NOT GIVEN UP")

    def _row(self, fault: str, noticed_s: float, said: str) -> Row:
        row = Row(fault, noticed_s, self._rig.wait(self._rig.is_ready, "ready again"), said)
        time.sleep(1.5)
        return row


def bad_day(root: Path) -> tuple[list[Row], History]:
    """Live through it.

    Args:
        root: An empty folder.

    Returns:
        What broke, and all that happened.
    """
    disk = root / "disk"
    with small_disk(disk):
        workshop = Workshop(disk)
        workshop.calibrated(t1=107.0, t2=109.0)
        fails = workshop.bundle(model=brightness_model(breaks_at=GOLDEN_SCORE + 1), version="2.0")
        install_bundle(fails, workshop.folder.bundles)
        workshop.calibrate(fails, rev=2, t1=107.0, t2=109.0)
        rig = Rig(root / "rig", workshop.folder, workshop.public_key, rate=_RATE)
        try:
            rig.start()
            rig.line.start()
            rows = list(Day(rig, fails.sha256).rows())
            rig.stop()
            history = rig.history()
        finally:
            rig.close()
    return rows, history


def print_table(rows: Sequence[Row], history: History) -> None:
    """Print what broke, and what must not have been."""
    print("| fault | noticed after, s | ready again after, s | |\n|---|---|---|---|")
    for row in rows:
        noticed = f"{row.noticed_s:.1f}" if row.noticed_s >= 0 else ""
        print(f"| {row.fault} | {noticed} | {row.back_s:.1f} | {row.said} |")
    violations = history.violations()
    print(f"\n{history.summary()}\n{len(violations)} violations")
    for violation in violations[:20]:
        print(f"  {violation}")


def main() -> None:
    """Live through a bad day and print the table."""
    with tempfile.TemporaryDirectory() as root:
        rows, history = bad_day(Path(root))
    print_table(rows, history)
    sys.exit(bool(history.violations()))


if __name__ == "__main__":
    main()
