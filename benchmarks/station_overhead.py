"""What the station costs beside its engine: make bench-station; ARGS=docs/station-flame.svg also draws it.

1080p pictures of a folder come through the ring of a capture process, and are judged by an engine that only
brings them to its size, so that what is left is checking, gate, preprocessing, decision, commit and output.
Each stage alone, and all that the station's process does; then a real station at the same pictures as fast as
it goes: what its processes take for each.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.flame import flame_svg, sampled
from benchmarks.rig import RECORD, Rig
from benchmarks.soak import parts_done
from kenpin.config import EvidenceSection
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Model, Verdict
from kenpin.edge_runtime.engine import Runtime, Scored
from kenpin.edge_runtime.evidence import Evidence
from kenpin.edge_runtime.frame_ring import RingReader, RingSize, RingWriter
from kenpin.edge_runtime.inspection import Desk, Inspection, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.outputs import Outputs
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.settlement import Settlement
from kenpin.edge_runtime.store import Store
from kenpin.frame import Frame, Image, read_picture
from kenpin.heap import keep_freed_memory
from kenpin.precision import Precision
from kenpin.preprocess import to_input
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from kenpin.sight import Sight
from kenpin.synthetic import draw_part
from tests.edge_runtime.conftest import Workshop

_FRAMES = 40
_ROUNDS = 10
_SIDES = (160, 224)  # of the model's input; the first is what kenpin train takes by itself
_WARM_S, _RUN_S = 8.0, 20.0
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")

Done = TypeVar("Done")


@dataclass
class NoEngine:
    """Brings a frame to the model's size and finds nothing, with a score that is never the same."""

    side: int
    runtime: Runtime = "onnxruntime"
    precision: Precision = "int8"
    sight: Sight | None = None
    judged: int = 0

    def score(self, image: Image) -> Scored:
        """Nothing is strange."""
        self.shrink(image)
        self.judged += 1
        return Scored(1 / (1 + self.judged), (0.0, 0.0, 0.0), np.zeros((self.side // 4,) * 2, np.float32))

    def shrink(self, image: Image) -> Image:
        """The model's input."""
        return to_input(image, height=self.side, width=self.side)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.side, self.side

    def close(self) -> None:
        """Nothing is held."""


def frames() -> list[Image]:
    """Drawn boards at 1080p with a camera's noise."""
    rng = np.random.default_rng(1)
    drawn = [draw_part("board", seed=1, index=k, defect_share=0).image for k in range(_FRAMES)]
    large = [cv2.resize(image, (1920, 1080)) for image in drawn]
    return [np.clip(i + rng.normal(0, 2, i.shape), 0, 255).astype(np.uint8) for i in large]


def ready(engine: NoEngine, images: list[Image]) -> Readiness:
    """A station that may release parts."""
    record = RECORD.model_copy(update={"quality": learn_limits([measure(image) for image in images])})
    return Readiness(engine, Model("none", RECORD.bundle_sha256, RECORD.precision), record)


class Way:
    """The way of a part through capture process and station, here in one process."""

    def __init__(self, root: Path, images: list[Image], side: int) -> None:
        self.engine = NoEngine(side)
        station, size = ready(self.engine, images), RingSize.of(images[0], 1)
        self._root = root
        self._store = Store(root / "station.db")
        self._evidence = Evidence(root / "images", EvidenceSection(keep="none"))
        self._writer = RingWriter(size)
        self._reader = RingReader(os.dup(self._writer.handle), size)
        self.look = Look(station, cameras=["folder"], live=["folder"])
        self._judge = Judge(Desk(station, self.look, Identity("bench"), Counters(), timeout_ms=10_000))
        too_late = self._judge.too_late
        self._settlement = Settlement(self._store, Outputs([]), self._evidence, too_late=too_late)

    def read(self, number: int) -> Image:
        """The capture process reads a picture."""
        return read_picture(self._root / f"pictures/{number % _FRAMES:03d}.bmp")

    def hand_over(self, image: Image) -> None:
        """And writes it into the ring."""
        self._writer.write(0, image)

    def take(self, number: int) -> Frame:
        """The station takes it from there, where it lies."""
        image = self._reader.read(0)
        assert image is not None
        return Frame(image, "p", "folder", frame_id=number)

    def judge(self, frame: Frame) -> Inspection:
        """Gate, preprocessing, decision."""
        return self._judge.inspect(Shot("p", None, (frame,)))

    def settle(self, inspection: Inspection) -> None:
        """Commit, output."""
        settled = self._settlement.settle(inspection)
        assert settled.part.decision.verdict is Verdict.OK, settled.part.decision.reason

    def close(self) -> None:
        """Give back what was taken."""
        self._evidence.close()
        self._store.close()
        self._writer.close()


def main() -> None:
    """Print the table; draw the flame graph where a file is named."""
    keep_freed_memory()
    images = frames()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        pictures = root / "pictures"
        pictures.mkdir()
        for number, image in enumerate(images):
            cv2.imwrite(str(pictures / f"{number:03d}.bmp"), image)
        for side in _SIDES:
            with closing(Way(root, images, side)) as way:
                _print(side, _measure(way))
        if sys.argv[1:]:
            with closing(Way(root, images, _SIDES[0])) as way:
                Path(sys.argv[1]).write_text(_flame(way), encoding="utf-8")
        _print_processes(root, pictures)


def _measure(way: Way) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}

    def timed(stage: str, step: Callable[..., Done], *given: object) -> Done:
        started_s = time.perf_counter()
        done = step(*given)
        times.setdefault(stage, []).append((time.perf_counter() - started_s) * 1000)
        return done

    for number in range(_FRAMES * _ROUNDS):
        timed("capture: into the ring", way.hand_over, timed("capture: read (BMP)", way.read, number))
        begun_s = time.perf_counter()
        frame = timed("from the ring", way.take, number)
        inspection = timed("gate, preprocess, decide", way.judge, frame)
        timed("commit, output", way.settle, inspection)
        times.setdefault("station, all", []).append((time.perf_counter() - begun_s) * 1000)
        timed("gate alone", way.look.at, frame)
        timed("preprocess alone", way.engine.shrink, frame.image)
    return times


def _station(way: Way, number: int) -> None:
    way.settle(way.judge(way.take(number)))


def _flame(way: Way) -> str:
    cv2.setNumThreads(1)  # what other threads do is not seen
    with sampled(_station) as found:
        for number in range(_FRAMES * _ROUNDS):
            way.hand_over(way.read(number))
            _station(way, number)
    return flame_svg(found, "Processor time of a station for a 1080p frame, without the engine")


def _print_processes(root: Path, pictures: Path) -> None:
    """A real station with the model of the tests, an engine that takes next to nothing."""
    workshop = Workshop(root)
    workshop.calibrated(t1=300.0, t2=310.0)
    source = f'url = "folder:{pictures}?loop=1"'
    rig = Rig(root / "rig", workshop.folder, workshop.public_key, rate=1, source=source)
    with closing(rig):
        rig.start()
        time.sleep(_WARM_S)
        before, first = _taken(rig), parts_done(rig)
        time.sleep(_RUN_S)
        after, parts = _taken(rig), parts_done(rig) - first
        rig.end()
    print(f"\na station at these pictures: {parts / _RUN_S:.0f} parts per second; for each of them")
    for role, taken in after.items():
        cpu_ms, pages = (taken - before[role]) / parts
        print(f"{role}: {cpu_ms:.1f} ms of processor, {pages:.1f} new pages")


def _taken(rig: Rig) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of processor and new pages so far, by process (proc_pid_stat(5))."""
    taken = {}
    for role in ("station", "capture-0"):
        fields = Path(f"/proc/{rig.pid(role)}/stat").read_text().rpartition(")")[2].split()
        taken[role] = np.array([(int(fields[11]) + int(fields[12])) * _TICK_MS, int(fields[7])])
    return taken


def _print(side: int, times: dict[str, list[float]]) -> None:
    print(f"| stage, one 1080p frame to {side} px | p50, ms | p99, ms |\n|---|---|---|")
    for stage, taken in times.items():
        p50, p99 = np.percentile(taken[_FRAMES:], (50, 99))
        print(f"| {stage} | {p50:.2f} | {p99:.2f} |")


if __name__ == "__main__":
    main()
