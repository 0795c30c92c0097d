"""The engine on the real device module and the real pycuda, over a driver in host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kenpin.bundle import open_bundle
from kenpin.edge_runtime.device import Device
from kenpin.edge_runtime.engine_ort import OrtEngine
from kenpin.edge_runtime.engine_trt import TrtEngine
from kenpin.errors import DeviceLost
from tests.edge_runtime import fake_device
from tests.edge_runtime.conftest import SIZE, brightness_model
from tests.fake_jetson import make_jetson

CAMERA = (3 * SIZE, 5 * SIZE, 3)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_cuda: ctypes.CDLL) -> bytes:
    """An engine whose TensorRT waits for the stream, and so cannot be recorded."""
    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    jetson.build()
    built = jetson.plan.read_bytes()
    bundle = open_bundle(jetson.workshop.folder.installed(), [jetson.workshop.signer.public])
    assert bundle.files["model.onnx"] == brightness_model()

    def enqueue(stream: int, work: Callable[[], None]) -> bool:
        if fake_cuda.cuStreamSynchronize(ctypes.c_void_p(stream)):
            return False
        work()
        return True

    jetson.trt.enqueue = enqueue
    monkeypatch.setattr(fake_device, "opened", [SimpleNamespace(_depth=1)])
    return built


def frames(count: int, shape: tuple[int, ...] = CAMERA) -> list[Any]:
    chance = np.random.default_rng(0)
    return [chance.integers(0, 256, shape, np.uint8) for _ in range(count)]


@pytest.mark.parametrize("integrated", [0, 1])
def test_scores_are_those_of_onnx_runtime_and_no_memory_is_taken(
    plan: bytes, fake_cuda: ctypes.CDLL, integrated: int
) -> None:
    fake_cuda.fake_set(1, integrated)
    twin = OrtEngine(brightness_model(), "int8")
    with TrtEngine(plan, "int8", Device()) as engine:
        for frame in (*frames(2), *frames(2, (SIZE, SIZE, 3))):
            # The kernel may be off by one grey level here and there.
            assert engine.score(frame).score == pytest.approx(twin.score(frame).score, abs=1.01)
        before = fake_cuda.fake_allocations(), engine.device.live
        for frame in frames(20):
            engine.score(frame)
        assert (fake_cuda.fake_allocations(), engine.device.live) == before
        assert "run the engine" in engine.device.no_graph_because
        assert engine.gpu_ms >= 0


def test_a_lost_device_is_told_also_where_tensorrt_meets_it(plan: bytes, fake_cuda: ctypes.CDLL) -> None:
    illegal_address = 700
    engine = TrtEngine(plan, "int8", Device())
    # TensorRT meets it first, and says no more than that it failed.
    fake_cuda.fake_fail(b"cuStreamSynchronize", illegal_address, 1)
    with pytest.raises(DeviceLost):
        engine.score(frames(1)[0])
    engine.close()
    fake_cuda.fake_forget()
