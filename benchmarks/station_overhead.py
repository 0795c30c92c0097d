"""What the station costs beside its engine: make bench-station.

1080p pictures of a folder, judged by an engine that only brings them to its size, so that what is left is
reading, gate, preprocessing, decision, commit and output. Each stage alone, and all of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kenpin.config import EvidenceSection
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Model
from kenpin.edge_runtime.engine import Runtime, Scored
from kenpin.edge_runtime.evidence import Evidence
from kenpin.edge_runtime.inspection import Desk, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.outputs import Outputs
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.settlement import Settlement
from kenpin.edge_runtime.store import Store
from kenpin.frame import Frame, Image, read_picture
from kenpin.precision import Precision
from kenpin.preprocess import to_input
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from kenpin.record import Bound, CalibrationRecord
from kenpin.sight import Sight
from kenpin.synthetic import draw_part

_FRAMES = 40
_ROUNDS = 10
_SIDE = 224


@dataclass
class NoEngine:
    """Brings a frame to the model's size and finds nothing."""

    runtime: Runtime = "onnxruntime"
    precision: Precision = "int8"
    input_size: tuple[int, int] = (_SIDE, _SIDE)
    sight: Sight | None = None

    def score(self, image: Image) -> Scored:
        """Nothing is strange."""
        to_input(image, height=_SIDE, width=_SIDE)
        return Scored(0.0, (0.0, 0.0, 0.0), np.zeros((28, 28), np.float32))

    def close(self) -> None:
        """Nothing is held."""


def frames() -> list[Image]:
    """Drawn boards at 1080p with a camera's noise."""
    rng = np.random.default_rng(1)
    drawn = [draw_part("board", seed=1, index=k, defect_share=0).image for k in range(_FRAMES)]
    large = [cv2.resize(image, (1920, 1080)) for image in drawn]
    return [np.clip(i + rng.normal(0, 2, i.shape), 0, 255).astype(np.uint8) for i in large]


def ready(images: list[Image]) -> Readiness:
    """A station that may release parts."""
    record = CalibrationRecord(
        rev=1,
        created_ms=0,
        bundle_sha256="0" * 64,
        precision="int8",
        t1=1.0,
        t2=2.0,
        method="",
        good={},
        masters={},
        false_calls=Bound(seen=0, of=1, bound=1.0, confidence=0.95),
        caught=None,
        by="",
        why="",
        software="",
        previous_sha256="",
        quality=learn_limits([measure(image) for image in images]),
    )
    return Readiness(NoEngine(), Model("none", "0" * 64, "int8"), record)


def main() -> None:
    """Print the table."""
    images = frames()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number, image in enumerate(images):
            cv2.imwrite(str(root / f"{number:03d}.bmp"), image)
        evidence = Evidence(root / "images", EvidenceSection(keep="none"))
        with closing(Store(root / "station.db")) as store, closing(evidence):
            _print(_measure(root, images, store, evidence))


def _measure(root: Path, images: list[Image], store: Store, evidence: Evidence) -> dict[str, list[float]]:
    station = ready(images)
    look = Look(station, cameras=["folder"], live=["folder"])
    judge = Judge(Desk(station, look, Identity("bench"), Counters(), timeout_ms=10_000))
    settlement = Settlement(store, Outputs([]), evidence, too_late=judge.too_late)
    times: dict[str, list[float]] = {}

    def timed(stage: str, step: Callable[[], object]) -> object:
        started_s = time.perf_counter()
        done = step()
        times.setdefault(stage, []).append((time.perf_counter() - started_s) * 1000)
        return done

    for number in range(_FRAMES * _ROUNDS):
        path = root / f"{number % _FRAMES:03d}.bmp"
        begun_s = time.perf_counter()
        image = timed("read (BMP)", lambda: read_picture(path))  # noqa: B023 - called at once
        frame = Frame(image, "p", "folder", frame_id=number)  # type: ignore[arg-type]
        inspection = timed("gate, preprocess, decide", lambda: judge.inspect(Shot("p", None, (frame,))))  # noqa: B023
        timed("commit, output", lambda: settlement.settle(inspection))  # type: ignore[arg-type]  # noqa: B023
        times.setdefault("all", []).append((time.perf_counter() - begun_s) * 1000)
        timed("gate alone", lambda: look.at(frame))  # noqa: B023
        timed("preprocess alone", lambda: to_input(frame.image, height=_SIDE, width=_SIDE))  # noqa: B023
    return times


def _print(times: dict[str, list[float]]) -> None:
    print("| stage, one 1080p frame | p50, ms | p99, ms |\n|---|---|---|")
    for stage, taken in times.items():
        p50, p99 = np.percentile(taken[_FRAMES:], (50, 99))
        print(f"| {stage} | {p50:.2f} | {p99:.2f} |")


if __name__ == "__main__":
    main()
