"""Cameras of Basler, through pylon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kenpin.edge_runtime.genicam_camera import BUFFERS, Block
from kenpin.edge_runtime.genicam_settings import Opened, Wish, set_up
from kenpin.edge_runtime.genicam_source import GenicamSource
from kenpin.edge_runtime.pixel_format import Layout
from kenpin.edge_runtime.source import SourceUrl
from kenpin.errors import ConfigError, SourceError

_CURE = "check power and cable, and that no other program holds the camera"
_NO_BYTES = np.empty(0, np.uint8)
_START_MS = 1000  # longest time until a camera that was started takes a trigger
_READY_MS = 50  # the same after a picture; a part that waited for longer has moved
_INDEX_DIGITS = 2  # serial numbers are longer


def pylon_source(url: SourceUrl) -> GenicamSource:
    """Read `pylon:SERIAL?exposure_us=&gain_db=&trigger=off`, or `pylon:0` for the first camera that is found.

    Raises:
        ConfigError: An option is wrong, or pypylon is not installed.
    """
    return GenicamSource(PylonCamera(url.target), Wish.from_url(url))


class PylonCamera:
    """One camera.

    Args:
        serial: Its serial number, or its index among those that are found.

    Raises:
        ConfigError: pypylon is not installed.
    """

    def __init__(self, serial: str) -> None:
        self.name = f"pylon-{serial}"
        self.where = f"pylon:{serial}"
        self._serial = serial
        self._pylon, self._pylon_error = _pylon()
        self._camera: Any = None
        self._nodes: Any = None
        self._tick_ns = 1.0

    def open(self, wish: Wish) -> Opened:
        """Connect, set up and start; nothing is held open where that fails."""
        try:
            with self._told():
                self._connect()
            opened = set_up(self, wish)
            with self._told():
                self._start()
            if wish.trigger == "software":
                self._await_ready(_START_MS)
        except SourceError:
            self.close()
            raise
        return opened

    def has(self, name: str) -> bool:
        """Whether the feature is there now."""
        with self._told():
            return bool(self._nodes.GetNode(name).IsReadable())

    def choices(self, name: str) -> Sequence[str]:
        """What the feature can be set to, where it is a choice."""
        if not self.has(name):
            return ()
        with self._told():
            return tuple(self._nodes.GetNode(name).GetSettableValues())

    def read(self, name: str) -> float | str:
        """Its value, from the camera itself."""
        with self._told():
            self._nodes.InvalidateNodes()  # otherwise pylon may say what it remembers
            value: float | str = self._nodes.GetNode(name).GetValue()
            return int(value) if isinstance(value, bool) else value

    def write(self, name: str, value: float | str) -> None:
        """Set it."""
        with self._told(f"{name}={value} was refused: ", "give a value that the camera takes"):
            self._nodes.GetNode(name).SetValue(value)

    def grab(self, wait_s: float) -> Block | None:
        """The oldest block that waits; `None` where none comes in time."""
        with self._told():
            milliseconds = int(wait_s * 1000)
            result = self._camera.RetrieveResult(milliseconds, self._pylon.TimeoutHandling_Return)
            if not result.IsValid():
                return None
            block = self._block(result)
            result.Release()
        return block

    def fire(self) -> None:
        """Trigger it by software."""
        self._await_ready(_READY_MS)
        with self._told():
            self._nodes.GetNode("TriggerSoftware").Execute()

    def probe(self) -> None:
        """Ask it something."""
        self.read("Width")

    def close(self) -> None:
        """Let it go."""
        camera, self._camera, self._nodes = self._camera, None, None
        if camera is not None:
            with contextlib.suppress(self._pylon_error):
                camera.StopGrabbing()
            with contextlib.suppress(self._pylon_error):
                camera.Close()

    def _connect(self) -> None:
        factory = self._pylon.TlFactory.GetInstance()
        found = factory.EnumerateDevices()
        serials = [info.GetSerialNumber() for info in found]
        if self._serial in serials:
            index = serials.index(self._serial)
        elif self._serial.isdecimal() and len(self._serial) <= _INDEX_DIGITS and int(self._serial) < len(found):
            index = int(self._serial)
        else:
            raise SourceError(
                "this camera is not found",
                where=self.where,
                cure=f"found are {', '.join(serials)}" if serials else "none is found: check power and cable",
            )
        self._camera = self._pylon.InstantCamera(factory.CreateDevice(found[index]))
        self._camera.Open()
        self._nodes = self._camera.GetNodeMap()
        ticks = self._nodes.GetNode("GevTimestampTickFrequency")
        self._tick_ns = 1e9 / ticks.GetValue() if ticks.IsReadable() else 1.0

    def _start(self) -> None:
        self._camera.MaxNumBuffer.Value = BUFFERS
        self._camera.StartGrabbing(self._pylon.GrabStrategy_OneByOne)

    def _await_ready(self, wait_ms: int) -> None:
        """Wait until the camera can take a trigger, where it says so: one that comes earlier would be lost."""
        with self._told():
            if not self._camera.CanWaitForFrameTriggerReady():
                return
            if not self._camera.WaitForFrameTriggerReady(wait_ms, self._pylon.TimeoutHandling_Return):
                raise SourceError(
                    f"the camera took no trigger for {wait_ms} ms",
                    where=self.where,
                    cure="trigger more slowly, or give a shorter exposure_us",
                )

    def _block(self, result: Any) -> Block:
        block_id, timestamp_ns = int(result.BlockID), int(result.TimeStamp * self._tick_ns)
        if not result.GrabSucceeded():
            return Block(block_id, timestamp_ns, None, _NO_BYTES, reason=result.ErrorDescription)
        layout = Layout(int(result.PixelType), result.Height, result.Width)
        data = np.frombuffer(result.GetBuffer(), np.uint8)
        return Block(block_id, timestamp_ns, layout, data, padding=result.PaddingX)

    @contextlib.contextmanager
    def _told(self, doing: str = "", cure: str = _CURE) -> Iterator[None]:
        """The library's errors as ours."""
        try:
            yield
        except self._pylon_error as error:
            raise SourceError(f"{doing}{error}", where=self.where, cure=cure) from None


def _pylon() -> tuple[Any, type[Exception]]:
    """The library, and its errors."""
    try:
        from pypylon import genicam, pylon  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "pypylon is not installed", where="[source] url", cure="pip install 'kenpin[pylon]'"
        ) from None
    return pylon, genicam.GenericException
