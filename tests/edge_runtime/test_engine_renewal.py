"""A station on ONNX Runtime takes the engine that is built meanwhile, or says why not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kenpin.bundle import open_bundle
from kenpin.edge_runtime.changeover import Changeover
from kenpin.edge_runtime.engine_ort import OrtEngine
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.station import Station
from kenpin.errors import EngineError
from tests.edge_runtime import fake_device
from tests.fake_jetson import FakeJetson, make_jetson

LONGEST = 3000  # parts; by then it would have been taken


@pytest.fixture
def shown() -> threading.Event:
    """Set when the line has shown some frames."""
    return threading.Event()


@pytest.fixture
def jetson(shown: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    """Without an engine; the background build runs in this process."""
    made = make_jetson(tmp_path, monkeypatch, "10.3.0")

    class Build:
        told = ""

        def __init__(self, *_: Any) -> None:
            self._closed = threading.Event()

        def wait(self) -> None:
            # Builds take minutes: the line has shown its frames by then.
            while not (shown.wait(0.01) or self._closed.is_set()):
                pass
            with contextlib.suppress(EngineError):  # the log says so
                made.build()

        def close(self) -> None:
            self._closed.set()

    monkeypatch.setattr("kenpin.edge_runtime.candidate.BackgroundBuild", Build)
    return made


@pytest.fixture
def start(jetson: FakeJetson, shown: threading.Event) -> Callable[..., Line]:
    """Make a line of cameras."""

    def on_part(line: Line) -> None:
        if len(line.parts) >= 2:
            shown.set()

    def make(*views: Path, each: Callable[[Line], None] = lambda _: None) -> Line:
        return Line(jetson, views, (on_part, each))

    return make


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """ONNX Runtime's engines that are open."""
    is_open: set[int] = set()
    make, close = OrtEngine.__init__, OrtEngine.close

    def opened(engine: OrtEngine, *arguments: Any, **more: Any) -> None:
        make(engine, *arguments, **more)
        is_open.add(id(engine))

    def closed(engine: OrtEngine) -> None:
        close(engine)
        is_open.discard(id(engine))

    monkeypatch.setattr(OrtEngine, "__init__", opened)
    monkeypatch.setattr(OrtEngine, "close", closed)
    return is_open


class Line:
    """A station at work, and what it said after each part."""

    def __init__(
        self, jetson: FakeJetson, views: Sequence[Path], each: Sequence[Callable[[Line], None]]
    ) -> None:
        self.parts: list[Part] = []
        self.runtimes: list[str] = []
        config = jetson.workshop.config(f"folder:{views[0]}?loop=1&rate=100")
        others = tuple(f"folder:{view}?loop=1&rate=100" for view in views[1:])
        source = config.source.model_copy(update={"views": others})
        self._each = each
        self.station = Station(config.model_copy(update={"source": source}), on_part=self._on_part)

    def run(self, until: Callable[[], bool]) -> None:
        with self.station as station:
            station.run(stopping=lambda: until() or len(self.parts) >= LONGEST)

    def _on_part(self, part: Part) -> None:
        ready = self.station._ready
        assert ready.engine is not None
        self.parts.append(part)
        self.runtimes.append(ready.engine.runtime)
        for told in self._each:
            told(self)


def on_tensorrt(line: Line, parts: int = 5) -> bool:
    return line.runtimes.count("tensorrt") >= parts


def test_an_engine_that_is_built_before_the_sign_off_is_taken_with_it(
    jetson: FakeJetson, start: Callable[..., Line]
) -> None:
    workshop = jetson.workshop
    workshop.folder.records.unlink()
    bundle = open_bundle(workshop.folder.installed(), [workshop.signer.public])

    def sign_off(line: Line) -> None:
        if on_tensorrt(line) and not workshop.folder.records.exists():
            workshop.calibrate(bundle)

    line = start(workshop.pictures(10, 20), each=sign_off)
    line.run(lambda: line.parts[-1].decision.verdict == "OK" if line.parts else False)
    assert line.runtimes[-1] == "tensorrt"
    assert line.parts[-1].decision.verdict == "OK"
    assert line.station._state()[0] == "RUNNING"


def test_thresholds_that_are_signed_while_the_engine_is_built_hold(
    jetson: FakeJetson, start: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = jetson.workshop
    workshop.folder.records.unlink()
    bundle = open_bundle(workshop.folder.installed(), [workshop.signer.public])
    renew = Changeover._renew

    def sign_and_renew(*arguments: Any) -> None:
        workshop.calibrate(bundle)
        renew(*arguments)

    monkeypatch.setattr(Changeover, "_renew", sign_and_renew)
    line = start(workshop.pictures(10, 20))
    line.run(lambda: on_tensorrt(line))
    assert {part.decision.verdict for part in line.parts[-5:]} == {"OK"}


def test_why_a_build_failed_is_the_reason_of_the_state(jetson: FakeJetson, start: Callable[..., Line]) -> None:
    jetson.trt.fail_build = "out of memory"
    line = start(jetson.workshop.pictures(10, 20))
    line.run(lambda: "out of memory" in line.station._state()[1])
    state, reason = line.station._state()
    assert state == "DEGRADED"
    assert "the last build failed: TensorRT cannot build the engine: out of memory" in reason
    assert {part.decision.verdict for part in line.parts} == {"OK"}


def test_no_engine_stays_loaded_that_is_not_needed(
    jetson: FakeJetson, start: Callable[..., Line], twins: set[int]
) -> None:
    build, while_building, with_tensorrt = jetson.build, [], []

    def watched() -> Any:
        while_building.append(len(twins))
        return build()

    def look(line: Line) -> None:
        if on_tensorrt(line):
            with_tensorrt.append(len(twins))

    jetson.build = watched  # type: ignore[method-assign, assignment]
    line = start(jetson.workshop.pictures(10, 20), each=look)
    line.run(lambda: on_tensorrt(line))
    assert (while_building, with_tensorrt) == ([1], [0])
    assert jetson.trt.misused == []
    assert fake_device.opened == []


def test_after_a_build_that_failed_the_engine_stays_and_the_other_goes(
    jetson: FakeJetson, start: Callable[..., Line], twins: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    jetson.trt.fail_build = "out of memory"
    line = start(jetson.workshop.pictures(10, 20))
    line.run(lambda: "out of memory" in line.station._state()[1] and len(twins) == 1)
    assert len(line.parts) < LONGEST
    assert "decides from here on" not in caplog.text


def view(folder: Path, height: int, width: int) -> Path:
    folder.mkdir()
    for level in (20, 21, 22):
        cv2.imwrite(str(folder / f"{level}.png"), np.full((height, width, 3), level, np.uint8))
    return folder


def test_cameras_of_two_sizes_are_judged_by_the_engine_that_was_built(
    start: Callable[..., Line], tmp_path: Path
) -> None:
    line = start(view(tmp_path / "a", 48, 80), view(tmp_path / "b", 64, 64))
    line.run(lambda: on_tensorrt(line))
    assert line.runtimes[-1] == "tensorrt"
    assert {part.decision.verdict for part in line.parts} == {"OK"}


def test_an_engine_that_does_not_take_the_cameras_frames_is_not_taken(
    jetson: FakeJetson, start: Callable[..., Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("the GPU refused, a PTX JIT compilation failed")

    monkeypatch.setattr(jetson.device, "kernel", refuse)
    line = start(view(tmp_path / "a", 48, 80))
    line.run(lambda: "PTX" in line.station._state()[1])
    assert "the engine fails on a frame of 80 x 48 pixels: the GPU refused" in line.station._state()[1]
    assert set(line.runtimes) == {"onnxruntime"}
    assert {part.decision.verdict for part in line.parts} == {"OK"}


def test_an_engine_whose_kernel_leaves_every_frame_black_is_not_taken(
    jetson: FakeJetson, start: Callable[..., Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def black(stream: Any, grid: object, block: object, *arguments: Any) -> None:
        target = fake_device._view(int(arguments[4]), (int(arguments[6]), int(arguments[5]), 3))
        stream.enqueue(lambda: target.fill(0))

    monkeypatch.setattr(jetson.device, "kernel", lambda *_: black)
    line = start(view(tmp_path / "a", 48, 80))
    line.run(lambda: "otherwise than the processor" in line.station._state()[1])
    assert "the engine fails on a frame of 80 x 48 pixels" in line.station._state()[1]
    assert set(line.runtimes) == {"onnxruntime"}
