"""The NVIDIA device of a station: memory, streams, events, kernels. The only module that imports pycuda."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike

from kenpin.edge_runtime.cuda_driver import Driver
from kenpin.edge_runtime.cuda_graph import Graph, record
from kenpin.edge_runtime.cuda_kernel import Kernel, compiled
from kenpin.edge_runtime.cuda_memory import Buffer, Pinned
from kenpin.edge_runtime.cuda_session import Session
from kenpin.edge_runtime.cuda_stream import Event, Stream
from kenpin.errors import DeviceLost, EngineError


class Device:
    """A CUDA device, with the primary context that TensorRT shares.

    Every thread that uses it says so: `with device.current():`.

    Args:
        index: Number of the device, as in nvidia-smi.

    Attributes:
        name: What NVIDIA calls it.
        compute_capability: Such as (8, 7) for Orin.
        multiprocessors: How many it has: 8 on an Orin NX, 16 on an AGX Orin.
        integrated: Whether it shares its memory with the processor, as on a Jetson.
        driver_version: Such as 12060 for a driver of CUDA 12.6.
        no_graph_because: Why the last work could not be recorded; empty where it could.

    Raises:
        EngineError: There is no driver, no pycuda or no such device.
    """

    def __init__(self, index: int = 0) -> None:
        # The driver first: neither pycuda nor TensorRT says plainly that there is none.
        driver = Driver()
        if not 0 <= index < driver.devices:
            raise EngineError(
                f"there is no CUDA device {index}", where=f"0 to {driver.devices - 1}", cure="see nvidia-smi"
            )
        self._session = session = Session(driver, _pycuda())
        attribute = session.cuda.device_attribute
        with session.told:
            session.cuda.init()
            raw = session.cuda.Device(index)
            self.name: str = raw.name()
            self.compute_capability: tuple[int, int] = raw.compute_capability()
            self.multiprocessors: int = raw.get_attribute(attribute.MULTIPROCESSOR_COUNT)
            self.integrated = bool(raw.get_attribute(attribute.INTEGRATED))
            session.context = raw.retain_primary_context()
        self.driver_version = driver.version
        self.no_graph_because = ""
        self._open = True

    @property
    def live(self) -> int:
        """How many pieces of memory are not freed."""
        return sum(isinstance(owned, (Buffer, Pinned)) for owned in tuple(self._session.owned))

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device the one that this thread uses.

        Raises:
            EngineError: The device was closed.
        """
        if not self._open:
            raise EngineError("the device was closed", cure="open it again")
        with self._session.told:
            self._session.context.push()
        try:
            yield
        finally:
            if self._open:
                self._session.leave()

    def stream(self) -> Stream:
        """A queue of work of its own."""
        return self._session.own(Stream(self._session))

    def event(self) -> Event:
        """A mark in a stream that knows when it was passed."""
        return self._session.own(Event(self._session))

    def buffer(self, nbytes: int) -> Buffer:
        """Memory of the device."""
        return self._session.own(Buffer(self._session, nbytes))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool | None = None) -> Pinned:
        """Memory of the host that the device reads and writes by itself.

        Args:
            shape: Of the array.
            dtype: Of the array.
            mapped: Whether kernels reach it where it is; `None` is where that costs nothing, on an
                integrated device.
        """
        mapped = self.integrated if mapped is None else mapped
        return self._session.own(Pinned(self._session, shape, dtype, mapped=mapped))

    def upload(self, buffer: Buffer, pinned: Pinned, stream: Stream) -> None:
        """Enqueue a copy to the device. The array must stay as it is until the stream has come there."""
        _check_sizes(buffer, pinned)
        with self._session.told:
            self._session.cuda.memcpy_htod_async(buffer.pointer, pinned.array, stream.raw)

    def download(self, pinned: Pinned, buffer: Buffer, stream: Stream) -> None:
        """Enqueue a copy from the device. The array is valid once the stream has come there."""
        _check_sizes(buffer, pinned)
        with self._session.told:
            self._session.cuda.memcpy_dtoh_async(pinned.array, buffer.pointer, stream.raw)

    def kernel(self, path: Path, name: str) -> Kernel:
        """Load a kernel.

        Args:
            path: The .cu file. The driver makes code for any device of a .ptx file beside it; where there is
                none, nvcc compiles the .cu file.
            name: Of the function.

        Raises:
            EngineError: There is neither PTX nor nvcc, it does not compile, or has no such function.
        """
        ptx = path.with_suffix(".ptx")
        # The driver reads PTX up to a zero byte.
        code = ptx.read_bytes() + b"\0" if ptx.exists() else compiled(path, self.compute_capability)
        return self._session.own(Kernel(self._session, code, name))

    def record_graph(self, stream: Stream, work: Callable[[], object]) -> Graph | None:
        """Record what a function enqueues on a stream; see `kenpin.edge_runtime.cuda_graph.record`.

        Returns:
            None where the work cannot be recorded: then it is enqueued each time, and `no_graph_because`
            says why.

        Raises:
            DeviceLost: Nothing will run on the device again in this process.
        """
        try:
            graph = record(self._session.driver, stream, work)
        except DeviceLost:
            raise
        except EngineError as error:
            self.no_graph_because = error.what
            return None
        self.no_graph_because = ""
        return self._session.own(graph)

    def close(self) -> None:
        """Free all that is alive and let go of the context; a second time does nothing."""
        if self._open:
            self._open = False
            self._session.close()


def _check_sizes(buffer: Buffer, pinned: Pinned) -> None:
    if not 0 < pinned.array.nbytes <= buffer.nbytes:
        raise EngineError(
            f"a copy of {pinned.array.nbytes} bytes does not fit a buffer of {buffer.nbytes}",
            cure="neither may be freed, and the array may not be larger than the buffer",
        )


def _pycuda() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise EngineError(
            f"pycuda cannot be imported: {error}",
            cure="on a Jetson: sudo apt install python3-dev g++, then "
            "PATH=/usr/local/cuda/bin:$PATH pip install 'kenpin[jetson]'",
        ) from None
