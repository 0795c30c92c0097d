"""Cameras through Aravis: GigE Vision and USB3 Vision of any maker, free software.

Aravis comes with the distribution (`apt install gir1.2-aravis-0.8 python3-gi`), not from PyPI.
"""

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

_CURE = (
    "check power, cable and address, and that no other program holds the camera; "
    "arv-tool-0.8 lists those that are found"
)
_NO_BYTES = np.empty(0, np.uint8)


def aravis_source(url: SourceUrl) -> GenicamSource:
    """Read `aravis:CAMERA?exposure_us=&gain_db=&trigger=off`.

    The camera is named as `arv-tool-0.8` names it, or by its address.

    Raises:
        ConfigError: An option is wrong, or Aravis is not installed.
    """
    return GenicamSource(AravisCamera(url.target), Wish.from_url(url))


class AravisCamera:
    """One camera.

    Args:
        camera_id: Its name or address.

    Raises:
        ConfigError: Aravis is not installed.
    """

    def __init__(self, camera_id: str) -> None:
        self.name = f"aravis-{camera_id}"
        self.where = f"aravis:{camera_id}"
        self._id = camera_id
        self._aravis, self._glib_error = _aravis()
        self._camera: Any = None
        self._device: Any = None
        self._stream: Any = None

    def open(self, wish: Wish) -> Opened:
        """Connect, set up and start; nothing is held open where that fails."""
        try:
            with self._told():
                self._connect()
            opened = set_up(self, wish)
            with self._told():
                self._start()
        except SourceError:
            self.close()
            raise
        return opened

    def has(self, name: str) -> bool:
        """Whether the feature is there now."""
        with self._told():
            return bool(self._device.is_feature_available(name))

    def choices(self, name: str) -> Sequence[str]:
        """What the feature can be set to, where it is a choice."""
        if not self.has(name):
            return ()
        with self._told():
            return tuple(self._device.dup_available_enumeration_feature_values_as_strings(name))

    def read(self, name: str) -> float | str:
        """Its value, from the camera itself."""
        aravis, device = self._aravis, self._device
        with self._told():
            node = device.get_feature(name)
            if isinstance(node, aravis.GcString):
                return str(device.get_string_feature_value(name))
            if isinstance(node, aravis.GcFloat):
                return float(device.get_float_feature_value(name))
            if isinstance(node, aravis.GcBoolean):
                return int(device.get_boolean_feature_value(name))
            return int(device.get_integer_feature_value(name))

    def write(self, name: str, value: float | str) -> None:
        """Set it."""
        with self._told(f"{name}={value} was refused: ", "give a value that the camera takes"):
            if isinstance(value, str):
                self._device.set_string_feature_value(name, value)
            elif isinstance(value, int):
                self._device.set_integer_feature_value(name, value)
            else:
                self._device.set_float_feature_value(name, value)

    def grab(self, wait_s: float) -> Block | None:
        """The oldest block that waits; `None` where none comes in time."""
        with self._told():
            # A time of 0 would wait for ever.
            buffer = (
                self._stream.timeout_pop_buffer(int(wait_s * 1e6)) if wait_s else self._stream.try_pop_buffer()
            )
        if buffer is None:
            return None
        block = self._block(buffer)
        self._stream.push_buffer(buffer)
        return block

    def fire(self) -> None:
        """Trigger it by software."""
        with self._told():
            self._device.execute_command("TriggerSoftware")

    def probe(self) -> None:
        """Ask it something."""
        with self._told():
            self._device.get_integer_feature_value("Width")

    def close(self) -> None:
        """Let it go."""
        if self._camera is not None:
            with contextlib.suppress(self._glib_error):
                self._camera.stop_acquisition()
        # The library closes when the last reference goes.
        self._stream = None
        self._device = None
        self._camera = None

    def _connect(self) -> None:
        aravis = self._aravis
        self._camera = aravis.Camera.new(self._id)
        self._device = self._camera.get_device()
        self._device.set_range_check_policy(aravis.RangeCheckPolicy.ENABLE)
        # Each read asks the camera.
        self._device.set_register_cache_policy(aravis.RegisterCachePolicy.DISABLE)

    def _start(self) -> None:
        self._stream = self._camera.create_stream(None, None)
        payload = self._camera.get_payload()
        for _ in range(BUFFERS):
            self._stream.push_buffer(self._aravis.Buffer.new_allocate(payload))
        self._camera.start_acquisition()

    def _block(self, buffer: Any) -> Block:
        block_id, timestamp_ns, status = buffer.get_frame_id(), buffer.get_timestamp(), buffer.get_status()
        if status != self._aravis.BufferStatus.SUCCESS:
            return Block(block_id, timestamp_ns, None, _NO_BYTES, reason=status.value_nick)
        layout = Layout(buffer.get_image_pixel_format(), buffer.get_image_height(), buffer.get_image_width())
        data = np.frombuffer(buffer.get_image_data(), np.uint8)
        return Block(block_id, timestamp_ns, layout, data, padding=buffer.get_image_padding().x_padding)

    @contextlib.contextmanager
    def _told(self, doing: str = "", cure: str = _CURE) -> Iterator[None]:
        """The library's errors as ours."""
        try:
            yield
        except self._glib_error as error:
            raise SourceError(f"{doing}{error.message}", where=self.where, cure=cure) from None


def _aravis() -> tuple[Any, Any]:
    """The library, and its errors."""
    try:
        import gi  # noqa: PLC0415 - an extra

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis, GLib  # noqa: PLC0415
    except (ImportError, ValueError):
        raise ConfigError(
            "Aravis is not installed for this Python",
            where="[source] url",
            cure="apt install gir1.2-aravis-0.8 python3-gi, for a Python that sees the system's packages",
        ) from None
    return Aravis, GLib.Error
