"""The kernel as the station calls it, with the real pycuda on a driver in host memory that runs its body."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from kenpin.edge_runtime.device import Device
from kenpin.edge_runtime.frame_kernel import FrameKernel
from kenpin.errors import EngineError
from kenpin.frame import Image
from kenpin.preprocess import to_input


@pytest.fixture
def device(fake_cuda: ctypes.CDLL) -> Iterator[Device]:
    with Device() as opened, opened.current():
        yield opened


def drawn(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("mapped", [True, False])
def test_gives_the_models_input(device: Device, *, mapped: bool) -> None:
    frame = drawn(90, 160)
    kernel = FrameKernel(device, camera_size=(90, 160), input_size=(56, 64))
    stream, target = device.stream(), device.buffer(56 * 64 * 3)
    there, back = device.pinned((90, 160, 3), np.uint8, mapped=mapped), device.pinned((56, 64, 3), np.uint8)
    there.array[:] = frame
    source = there.pointer
    if not mapped:
        buffer = device.buffer(frame.nbytes)
        device.upload(buffer, there, stream)
        source = buffer.pointer
    kernel.enqueue(source, target.pointer, stream)
    device.download(back, target, stream)
    stream.synchronize()
    assert np.array_equal(back.array, to_input(frame, height=56, width=64))


def test_a_frame_takes_no_memory(device: Device, fake_cuda: ctypes.CDLL) -> None:
    kernel = FrameKernel(device, camera_size=(90, 160), input_size=(56, 64))
    stream, source, target = device.stream(), device.buffer(90 * 160 * 3), device.buffer(56 * 64 * 3)
    there, back = device.pinned((90, 160, 3), np.uint8), device.pinned((56, 64, 3), np.uint8)
    live, taken = device.live, fake_cuda.fake_allocations()
    handles = fake_cuda.fake_handles_live()
    for number in range(50):
        there.array[:] = number
        device.upload(source, there, stream)
        kernel.enqueue(source.pointer, target.pointer, stream)
        device.download(back, target, stream)
        stream.synchronize()
        assert back.array.min() == back.array.max() == number
    assert fake_cuda.fake_allocations() == taken
    assert device.live == fake_cuda.fake_memory_live() == live
    assert fake_cuda.fake_handles_live() == handles


def test_runs_in_a_recorded_graph(device: Device) -> None:
    kernel = FrameKernel(device, camera_size=(90, 160), input_size=(56, 64))
    stream, there = device.stream(), device.pinned((90, 160, 3), np.uint8)
    back = device.pinned((56, 64, 3), np.uint8)
    graph = device.record_graph(stream, lambda: kernel.enqueue(there.pointer, back.pointer, stream))
    assert graph is not None
    for seed in (2, 3):
        there.array[:] = frame = drawn(90, 160, seed)
        graph.launch(stream)
        stream.synchronize()
        assert np.array_equal(back.array, to_input(frame, height=56, width=64))


@pytest.mark.parametrize(("camera", "size"), [((0, 4), (4, 4)), ((4, 4), (4, 0)), ((4, 20000), (4, 4))])
def test_sizes_that_cannot_be_are_refused(
    device: Device, camera: tuple[int, int], size: tuple[int, int]
) -> None:
    with pytest.raises(EngineError, match="cannot bring frames of"):
        FrameKernel(device, camera_size=camera, input_size=size)


def test_memory_that_is_not_on_the_device_is_refused(device: Device) -> None:
    kernel = FrameKernel(device, camera_size=(4, 4), input_size=(4, 4))
    freed = device.buffer(48)
    pointer = freed.pointer
    freed.free()
    for source, target in ((freed.pointer, pointer), (pointer, freed.pointer)):
        with pytest.raises(EngineError, match="not on the device"):
            kernel.enqueue(source, target, device.stream())
