"""How fast an engine is: alone, with camera frames, up to the committed verdict, and for several cameras.

All ways take their turns, frame by frame, so that whatever else the machine does hits them alike.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.engine import Engine, Scored
from kenpin.edge_runtime.inspection import Desk, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.store import Store
from kenpin.errors import EngineError, KenpinError
from kenpin.frame import Frame, Image, decode_picture
from kenpin.sight import take

WARM_UP = 5
# Nothing is late here: how long it takes is the question.
_NO_TIMEOUT_MS = 3_600_000


@dataclass(frozen=True)
class Times:
    """How long one way takes.

    Attributes:
        way: What was measured.
        p50_ms: Median, milliseconds.
        p99_ms: 99th percentile.
        per_s: Frames per second, by the mean.
    """

    way: str
    p50_ms: float
    p99_ms: float
    per_s: float

    @classmethod
    def of(cls, way: str, seconds: Sequence[float]) -> Times:
        """Summary of the seconds of single frames."""
        p50, p99 = np.percentile(seconds, (50, 99)) * 1000
        return cls(way, float(p50), float(p99), len(seconds) / sum(seconds))


def time_engine(ready: Readiness, *, camera: tuple[int, int], frames: int) -> list[Times]:
    """Measure one engine.

    Args:
        ready: The station's engine, model and record.
        camera: Height and width of the camera's frames.
        frames: How many frames each way takes, after a few to warm up.

    Raises:
        EngineError: The engine does not run, or a frame comes to no verdict of it.
    """
    engine = ready.engine
    assert engine is not None
    small, large = random_frame(engine.input_size), camera_frame(engine, camera)
    with tempfile.TemporaryDirectory() as scratch, closing(Store(Path(scratch) / "bench.db")) as store:
        identity = Identity("bench", test=True)
        judge = Judge(Desk(ready, Look(ready), identity, Counters(), timeout_ms=_NO_TIMEOUT_MS))

        def to_verdict() -> None:
            inspection = judge.inspect(Shot("bench", None, (Frame(large, "bench", "bench"),)))
            decision = inspection.part.decision
            if decision.scored is None:
                raise EngineError(
                    f"a frame was not scored: {decision.reason}", cure="give the camera's --camera"
                )
            store.commit([(inspection.part, inspection.event)])

        ways: dict[str, Callable[[], object]] = {
            "engine alone": lambda: engine.score(small),
            "with preprocessing": lambda: _score(engine, large),
            "frame to committed verdict": to_verdict,
        }
        return _in_turns(ways, frames)


def _in_turns(ways: dict[str, Callable[[], object]], frames: int) -> list[Times]:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(WARM_UP + frames):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            if number >= WARM_UP:
                seconds[way].append(time.perf_counter() - started)
    return [Times.of(way, taken) for way, taken in seconds.items()]


def time_streams(engines: Sequence[Engine], *, camera: tuple[int, int], frames: int) -> Times:
    """Several cameras at a time, each with an engine and a thread of its own.

    Args:
        engines: One for each camera.
        camera: Height and width of the cameras' frames.
        frames: How many frames each camera takes, after a few to warm up.

    Raises:
        KenpinError: What one of the engines raised.
    """
    streams = [_Stream(engine, camera_frame(engine, camera), frames) for engine in engines]
    for stream in streams:
        stream.warm_up()
    started = time.perf_counter()
    for stream in streams:
        stream.thread.start()
    for stream in streams:
        stream.thread.join()
    wall = time.perf_counter() - started
    for stream in streams:
        if stream.error is not None:
            raise stream.error
    single = Times.of(f"{len(engines)} streams", [s for stream in streams for s in stream.seconds])
    # Streams overlap, so only the wall clock says how many frames passed in a second.
    return Times(single.way, single.p50_ms, single.p99_ms, len(engines) * frames / wall)


class _Stream:
    """One camera of several."""

    def __init__(self, engine: Engine, frame: Image, frames: int) -> None:
        self.seconds: list[float] = []
        self.error: KenpinError | None = None
        self._engine, self._frame, self._frames = engine, frame, frames
        self.thread = threading.Thread(target=self._run)

    def warm_up(self) -> None:
        """Memory, kernel and graph are made with the first frames: they would be the slowest ones."""
        for _ in range(WARM_UP):
            _score(self._engine, self._frame)

    def _run(self) -> None:
        try:
            for _ in range(self._frames):
                started = time.perf_counter()
                _score(self._engine, self._frame)
                self.seconds.append(time.perf_counter() - started)
        except KenpinError as error:
            self.error = error


def _score(engine: Engine, frame: Image) -> Scored:
    """What a station does with a frame, apart from looking at its quality."""
    return engine.score(take(frame, engine.sight).image)


def camera_frame(engine: Engine, size: tuple[int, int]) -> Image:
    """A frame as the engine's camera gives it, BGR uint8 (H, W, 3).

    Args:
        engine: The engine.
        size: Height and width of the camera's frames.
    """
    sight = engine.sight
    # Where a view looks for the part, noise would not be scored.
    if sight is not None and sight.view.needs_reference:
        return decode_picture(sight.reference, where="the view's reference picture")
    return random_frame(size)


def random_frame(size: tuple[int, int]) -> Image:
    """Noise, BGR uint8 (H, W, 3): times do not depend on what a frame shows."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
