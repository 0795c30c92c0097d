"""The thread that speaks to a GenICam camera: where the camera is away, each word takes seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from kenpin.edge_runtime.genicam_camera import GenicamCamera
from kenpin.errors import SourceError, reason_of

_PROBE_S = 0.2
_REOPEN_S = 1.0

_log = logging.getLogger(__name__)


class CameraControl:
    """Fires the camera, asks it for a sign of life, and opens it again.

    Args:
        device: The camera.
        is_down: Whether it counts as lost.
        reopen: Opens it again; it is closed by then.
    """

    def __init__(
        self, device: GenicamCamera, *, is_down: Callable[[], bool], reopen: Callable[[], None]
    ) -> None:
        self._device = device
        self._is_down = is_down
        self._reopen = reopen
        self._fire = threading.Event()
        self._closing = threading.Event()
        self._asked_s: float | None = None  # since when it waits for the camera's answer
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=f"{device.name} control", daemon=True)

    def start(self) -> None:
        """Start the thread; the camera is open."""
        self._thread.start()

    def fire(self) -> None:
        """Trigger the camera by software; returns at once."""
        self._fire.set()

    def trouble(self, patience_s: float) -> str:
        """Why the camera counts as lost; empty while it answers within so many seconds."""
        asked_s = self._asked_s
        if asked_s is not None and time.monotonic() - asked_s > patience_s:
            return "the camera does not answer"
        return self._trouble

    def stop(self) -> None:
        """End the thread; that may take seconds, where the camera is away."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._is_down():
                    self._come_back()
                else:
                    self._speak(fires=self._fire.wait(_PROBE_S))
            except Exception as error:  # whatever a library raises: the camera is opened again until it is back
                _log.exception("The camera %s failed.", self._device.name)
                self._trouble = reason_of(error) or type(error).__name__
                self._asked_s = None

    def _speak(self, *, fires: bool) -> None:
        self._fire.clear()
        self._asked_s = time.monotonic()
        try:
            if fires:
                self._device.fire()
            else:
                self._device.probe()
        except SourceError as error:
            self._trouble = error.what
        self._asked_s = None

    def _come_back(self) -> None:
        self._device.close()
        if self._closing.wait(_REOPEN_S):
            return
        self._fire.clear()  # of a part that has passed
        self._trouble = ""
        self._reopen()
