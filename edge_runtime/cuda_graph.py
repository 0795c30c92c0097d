"""CUDA graphs: a frame's work is recorded once and then launched as one call. pycuda has no API for them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from kenpin.edge_runtime.cuda_driver import Driver
from kenpin.edge_runtime.cuda_stream import Stream
from kenpin.errors import EngineError

# Other threads, with streams of their own, are not kept from allocating meanwhile.
_THREAD_LOCAL = 1
_BEGIN = "cuStreamBeginCapture_v2"


class Graph:
    """Recorded work of one stream, with fixed addresses.

    Args:
        driver: The driver that recorded it.
        executable: A CUgraphExec; it belongs to this object from here on.
    """

    def __init__(self, driver: Driver, executable: ctypes.c_void_p) -> None:
        self._driver = driver
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Enqueue all of the work.

        Args:
            stream: Not necessarily the recorded one.

        Raises:
            DeviceLost: Nothing will run on the device again in this process.
            EngineError: The launch failed, or the graph was freed.
        """
        if not self._executable:
            raise EngineError("the recorded work was freed", cure="record it again")
        self._driver.call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream.handle))

    def free(self) -> None:
        """Give back what the driver keeps of it; a second time does nothing."""
        executable, self._executable = self._executable, ctypes.c_void_p()
        if executable:
            self._driver.call("cuGraphExecDestroy", executable)


def record(driver: Driver, stream: Stream, work: Callable[[], object]) -> Graph:
    """Record what a function enqueues on a stream; nothing of it runs yet.

    What must not be in it: allocating, synchronising, and copying to or from memory that is not page-locked.
    Such work ought to have run once before, so that libraries have allocated what they need.

    Args:
        driver: The driver.
        stream: Where that is.
        work: Enqueues on that stream.

    Raises:
        DeviceLost: Nothing will run on the device again in this process.
        EngineError: It cannot be recorded; the stream is as it was before.
    """
    handle, graph = ctypes.c_void_p(stream.handle), ctypes.c_void_p()
    driver.call(_BEGIN, handle, _THREAD_LOCAL)
    try:
        work()
    except BaseException:
        # Ending it is what sets the stream free; that it fails now is no news.
        driver.result("cuStreamEndCapture", handle, ctypes.byref(graph))
        _destroy(driver, graph)
        raise
    driver.call("cuStreamEndCapture", handle, ctypes.byref(graph))
    try:
        return Graph(driver, _instantiate(driver, graph))
    finally:
        _destroy(driver, graph)


def _instantiate(driver: Driver, graph: ctypes.c_void_p) -> ctypes.c_void_p:
    executable = ctypes.c_void_p()
    driver.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    return executable


def _destroy(driver: Driver, graph: ctypes.c_void_p) -> None:
    if graph:
        driver.result("cuGraphDestroy", graph)
