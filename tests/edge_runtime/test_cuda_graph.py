"""Recording a frame's work and launching it as one call, with the real pycuda on a driver in host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from kenpin.edge_runtime.cuda_memory import Buffer, Pinned
from kenpin.edge_runtime.cuda_stream import Stream
from kenpin.edge_runtime.device import Device
from kenpin.errors import DeviceLost, EngineError


@dataclass
class Copying:
    """Four bytes go to the device and back."""

    device: Device
    stream: Stream
    buffer: Buffer
    there: Pinned
    back: Pinned

    def enqueue(self) -> None:
        self.device.upload(self.buffer, self.there, self.stream)
        self.device.download(self.back, self.buffer, self.stream)


@pytest.fixture
def copying(fake_cuda: ctypes.CDLL) -> Iterator[Copying]:
    with Device() as device, device.current():
        pinned = device.pinned((4,), np.uint8), device.pinned((4,), np.uint8)
        yield Copying(device, device.stream(), device.buffer(4), *pinned)


def test_what_is_recorded_runs_at_each_launch_and_not_before(copying: Copying) -> None:
    copying.there.array[:], copying.back.array[:] = 1, 0
    graph = copying.device.record_graph(copying.stream, copying.enqueue)
    assert graph is not None
    copying.stream.synchronize()
    assert copying.back.array.tolist() == [0, 0, 0, 0]
    for number in (2, 3):
        copying.there.array[:] = number
        graph.launch(copying.stream)
        copying.stream.synchronize()
        assert copying.back.array.tolist() == [number] * 4


def test_a_graph_can_be_launched_on_another_stream(copying: Copying) -> None:
    graph = copying.device.record_graph(copying.stream, copying.enqueue)
    other = copying.device.stream()
    assert graph is not None
    copying.there.array[:] = 5
    graph.launch(other)
    other.synchronize()
    assert copying.back.array.tolist() == [5, 5, 5, 5]


def test_a_freed_graph_says_so(copying: Copying, fake_cuda: ctypes.CDLL) -> None:
    before = fake_cuda.fake_handles_live()
    graph = copying.device.record_graph(copying.stream, copying.enqueue)
    assert graph is not None
    assert fake_cuda.fake_handles_live() == before + 1
    graph.free()
    graph.free()
    assert fake_cuda.fake_handles_live() == before
    with pytest.raises(EngineError, match="was freed"):
        graph.launch(copying.stream)


@pytest.mark.parametrize("what", ["allocates", "waits"])
def test_what_cannot_be_recorded_is_enqueued_each_time(copying: Copying, what: str) -> None:
    def work() -> None:
        copying.enqueue()
        if what == "allocates":
            copying.device.buffer(4)
        else:
            copying.stream.synchronize()

    assert copying.device.record_graph(copying.stream, work) is None
    assert "failed" in copying.device.no_graph_because
    # The stream is free again.
    copying.there.array[:] = 9
    copying.enqueue()
    copying.stream.synchronize()
    assert copying.back.array.tolist() == [9, 9, 9, 9]
    assert copying.device.record_graph(copying.stream, copying.enqueue) is not None
    assert copying.device.no_graph_because == ""


@pytest.mark.parametrize(
    "function", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_a_driver_that_refuses_leaves_nothing_behind(
    copying: Copying, fake_cuda: ctypes.CDLL, function: str
) -> None:
    before = fake_cuda.fake_handles_live()
    fake_cuda.fake_fail(function.encode(), 901, 0)
    assert copying.device.record_graph(copying.stream, copying.enqueue) is None
    assert function in copying.device.no_graph_because
    assert fake_cuda.fake_handles_live() == before
    assert copying.device.record_graph(copying.stream, copying.enqueue) is not None


def test_a_driver_without_graphs_is_no_error(copying: Copying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kenpin.edge_runtime.cuda_graph._BEGIN", "cuNoSuchFunction")
    assert copying.device.record_graph(copying.stream, copying.enqueue) is None
    assert "has no cuNoSuchFunction" in copying.device.no_graph_because


def test_a_mistake_in_the_work_comes_out_and_the_stream_is_free(
    copying: Copying, fake_cuda: ctypes.CDLL
) -> None:
    before = fake_cuda.fake_handles_live()
    with pytest.raises(ZeroDivisionError):
        copying.device.record_graph(copying.stream, lambda: 1 // 0)
    assert fake_cuda.fake_handles_live() == before
    assert copying.device.record_graph(copying.stream, copying.enqueue) is not None


def test_a_lost_device_is_told_by_recording_and_by_launching(copying: Copying, fake_cuda: ctypes.CDLL) -> None:
    graph = copying.device.record_graph(copying.stream, copying.enqueue)
    assert graph is not None
    fake_cuda.fake_fail(b"cuGraphLaunch", 719, 1)
    with pytest.raises(DeviceLost, match="cuGraphLaunch"):
        graph.launch(copying.stream)
    with pytest.raises(DeviceLost):
        copying.device.record_graph(copying.stream, copying.enqueue)
    fake_cuda.fake_heal()
