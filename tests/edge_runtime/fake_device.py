"""A GPU in host memory: what is enqueued on a stream happens when somebody waits for it, and not before."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from kenpin.errors import EngineError
from kenpin.preprocess import to_input

STREAMS: WeakValueDictionary[int, Stream] = WeakValueDictionary()
# Whether a device is open: TensorRT must not be touched before.
opened: list[Device] = []


def is_current() -> bool:
    """Whether a device that is open is current."""
    return any(device._depth > 0 for device in opened)


class Device:
    """As `kenpin.edge_runtime.device.Device`, with knobs for tests.

    Attributes:
        allocations: How many pieces of memory were ever taken.
        graphs: Whether work can be recorded.
        lost: An error that the next wait raises.
    """

    name = "Orin"
    compute_capability = (8, 7)
    multiprocessors = 8
    driver_version = 12060
    integrated = False
    graphs = True
    no_graph_because = "cuStreamEndCapture failed"
    lost: EngineError | None = None
    missing: EngineError | None = None

    def __init__(self, index: int = 0) -> None:
        if self.missing is not None:
            raise self.missing
        self.allocations = self.launches = 0
        self._owned: set[Any] = set()
        self._depth = 0
        self.closed = False
        opened.append(self)

    @property
    def live(self) -> int:
        return len(self._owned)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def current(self) -> Iterator[None]:
        assert not self.closed, "the device was closed"
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def stream(self) -> Stream:
        self._check()
        return Stream(self)

    def event(self) -> Event:
        self._check()
        return Event()

    def buffer(self, nbytes: int) -> Buffer:
        self._check()
        return Buffer(self, nbytes)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Pinned:
        self._check()
        return Pinned(self, np.empty(shape, dtype), mapped=self.integrated)

    def upload(self, buffer: Buffer, pinned: Pinned, stream: Stream) -> None:
        self._check()
        assert pinned.array.nbytes <= buffer.nbytes
        stream.enqueue(lambda: ctypes.memmove(buffer.pointer, pinned.array.ctypes.data, pinned.array.nbytes))

    def download(self, pinned: Pinned, buffer: Buffer, stream: Stream) -> None:
        self._check()
        assert pinned.array.nbytes <= buffer.nbytes
        stream.enqueue(lambda: ctypes.memmove(pinned.array.ctypes.data, buffer.pointer, pinned.array.nbytes))

    def kernel(self, path: Path, name: str) -> Callable[..., None]:
        assert (path.name, name) == ("to_input.cu", "to_input")
        return _to_input

    def record_graph(self, stream: Stream, work: Callable[[], None]) -> Graph | None:
        self._check()
        if not self.graphs:
            return None
        before, stream.queue = stream.queue, []
        try:
            work()
        finally:
            recorded, stream.queue = stream.queue, before
        return Graph(self, recorded)

    def close(self) -> None:
        for owned in tuple(self._owned):
            owned.free()
        self.closed = True
        if self in opened:
            opened.remove(self)

    def _check(self) -> None:
        assert self._depth > 0, "the device is not current on this thread"
        assert not self.closed


class Stream:
    def __init__(self, device: Device) -> None:
        self._device = device
        self.queue: list[Callable[[], object]] = []
        self.handle = id(self)
        STREAMS[self.handle] = self

    def enqueue(self, work: Callable[[], object]) -> None:
        self.queue.append(work)

    def synchronize(self) -> None:
        self._device._check()
        if self._device.lost is not None:
            raise self._device.lost
        todo, self.queue = self.queue, []
        for work in todo:
            work()


class Event:
    def __init__(self) -> None:
        self._at_s = 0.0

    def record(self, stream: Stream) -> None:
        def mark() -> None:
            self._at_s = time.perf_counter()

        stream.enqueue(mark)

    def elapsed_ms(self, since: Event) -> float:
        return (self._at_s - since._at_s) * 1e3


class Buffer:
    def __init__(self, device: Device, nbytes: int) -> None:
        self._device = device
        self._memory = (ctypes.c_char * nbytes)()
        self.pointer, self.nbytes = ctypes.addressof(self._memory), nbytes
        device.allocations += 1
        device._owned.add(self)

    def free(self) -> None:
        self._device._owned.discard(self)
        self.pointer = self.nbytes = 0


class Pinned:
    def __init__(self, device: Device, array: Any, *, mapped: bool) -> None:
        self._device, self.array = device, array
        self.pointer = array.ctypes.data if mapped else 0
        device.allocations += 1
        device._owned.add(self)

    def free(self) -> None:
        self._device._owned.discard(self)


class Graph:
    def __init__(self, device: Device, recorded: list[Callable[[], object]]) -> None:
        self._device, self._recorded = device, recorded

    def launch(self, stream: Stream) -> None:
        self._device.launches += 1
        for work in self._recorded:
            stream.enqueue(work)


def _to_input(stream: Stream, grid: object, block: object, *arguments: Any) -> None:
    """What the kernel computes, by the function that it has to match."""
    source, pitch, width, height, target, to_width, to_height = (int(value) for value in arguments)
    assert pitch == width * 3

    def work() -> None:
        frame = _view(source, (height, width, 3))
        _view(target, (to_height, to_width, 3))[:] = to_input(frame, height=to_height, width=to_width)

    stream.enqueue(work)


def _view(pointer: int, shape: tuple[int, ...]) -> Any:
    return np.frombuffer((ctypes.c_char * int(np.prod(shape))).from_address(pointer), np.uint8).reshape(shape)
