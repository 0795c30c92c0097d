"""The capture process: reads one camera and hands its frames to the station. It can be killed at any time.

The loop that reads the camera also says that the process lives: a camera whose driver hangs is silent, the
station counts it as lost, and the supervisor kills this process.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kenpin.edge_runtime import capture_wire as wire
from kenpin.edge_runtime.camera_source import CameraSource
from kenpin.edge_runtime.capture_link import SLOTS, CaptureLink
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.genicam_source import GenicamSource
from kenpin.edge_runtime.pulse import Pulse
from kenpin.edge_runtime.run_socket import bind_in
from kenpin.edge_runtime.series_name import series_name
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, FrameSource, Lull, Settings, Trigger, too_old
from kenpin.edge_runtime.vitals import Vitals
from kenpin.edge_runtime.watch import Watch
from kenpin.errors import DataError, SourceError
from kenpin.frame import Frame
from kenpin.preprocess import check_frame

_REOPEN_S = 1.0
_LOOP_S = 3.0  # a source that does not come back from `next` for so long hangs
_STEP_S = 0.05

_log = logging.getLogger(__name__)


@dataclass
class CaptureCounts:
    """What was counted since the start."""

    frames: int = 0
    faults: int = 0
    ring_full: int = 0


class Capture:
    """One camera.

    Args:
        source: The camera; this opens and closes it.
        run: The station's `StationFolder.run`.
        index: Number of the camera in the station.
        latest: The camera runs freely: the newest frame counts, and what is skipped was no part.
        wait_s: Longest time from a trigger to its frame, in seconds.
    """

    def __init__(
        self, source: FrameSource, run: Path, index: int, *, latest: bool, wait_s: float = math.inf
    ) -> None:
        self.counts = CaptureCounts()
        self._wait_s = wait_s
        self._source = source
        self._index = index
        # A camera is read from the start on, also where there is nobody to take its pictures: those that lay in
        # its driver until a station came would be taken for new ones.
        self._is_camera = isinstance(source, CameraSource | GenicamSource)
        listener = bind_in(run, wire.socket_name(index), socket.SOCK_SEQPACKET)
        self.link = CaptureLink(listener, self._greet, latest=latest, waits=source.waits)
        self._is_open = False
        self._was_tried = False  # the station waits for the first attempt
        self._down = "not opened yet"
        self._beat_s = 0.0
        self._told: tuple[Settings, str] = (NO_SETTINGS, "")
        self._closing = False
        self._pulse = Pulse(run, Watch({"source": _LOOP_S}), self._vitals)
        self._server = threading.Thread(target=self._listen, name="capture link", daemon=True)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Read the camera until told to stop.

        Raises:
            SourceError: The file or folder cannot be read, or the link to the station failed; a camera that is
                away is waited for.
        """
        self._server.start()
        try:
            self._open()
            while not stopping():
                if not self._server.is_alive():  # whatever ended it
                    raise SourceError(
                        "the station cannot be heard any more",
                        where=self._source.camera,
                        cure="this process is started again by itself",
                    )
                self._come_round()
                if self._is_open:
                    self._read(stopping)
                else:
                    self._pause(stopping)
                    self._open()
        finally:
            self._close()

    def _pause(self, stopping: Callable[[], bool]) -> None:
        """Leave a camera that does not open alone for a while, and show that this process lives."""
        by_s = time.monotonic() + _REOPEN_S
        while time.monotonic() < by_s and not stopping():
            time.sleep(_STEP_S)
            self._come_round()

    def _open(self) -> None:
        try:
            self._source.open()
        except SourceError as error:
            if self._source.waits:
                raise
            if self._down != error.what:
                _log.warning("%s", error)
            self._down = error.what
            self._was_tried = True
            return
        self._is_open = self._was_tried = True
        self._down = ""

    def _read(self, stopping: Callable[[], bool]) -> None:
        if not self.link.is_up and (self._source.waits or not (self.link.was_up or self._is_camera)):
            time.sleep(_STEP_S)
            return
        try:
            item = self._source.next(time.monotonic() + wire.BEAT_S)
        except SourceError as error:
            self._source.close()
            self._is_open = False
            self._down = error.what
            return
        if (self._source.settings, self._trouble) != self._told:
            self._beat()  # what changed comes before the picture, and at once
        if item is Lull.END:
            if self.link.flush():
                self.link.send(wire.pack("end"))
            time.sleep(wire.BEAT_S)
        elif isinstance(item, Frame):
            self._hand_over(item, stopping)
        elif isinstance(item, Fault):
            self._hand_over_fault(item, stopping)

    def _hand_over(self, frame: Frame, stopping: Callable[[], bool]) -> None:
        try:
            check_frame(frame.image)
        except DataError as error:
            self._hand_over_fault(_fault(frame, Verdict.NO_DECISION, error.what), stopping)
            return
        self.counts.frames += 1
        while not self.link.put(frame):
            if not self._source.waits:
                self.counts.ring_full += 1
                reason = f"overrun: more than {SLOTS} frames were waiting for the station"
                self._hand_over_fault(_fault(frame, Verdict.MISSED, reason), stopping)
                return
            self._wait(wire.BEAT_S)
            if stopping():
                return

    def _wait(self, seconds: float) -> None:
        """Wait for the station, and show that this process lives."""
        self.link.wait(seconds)
        self._come_round()

    def _hand_over_fault(self, fault: Fault, stopping: Callable[[], bool]) -> None:
        packet = wire.pack("fault", **wire.fault_content(fault))
        if self._source.waits:
            while not self.link.send(packet) and not stopping():
                self._wait(_STEP_S)
        else:
            self.link.tell(packet)
        self.counts.faults += 1

    def _come_round(self) -> None:
        self._pulse.watch.beat("source")
        self._pulse.tick()
        self.link.flush()
        if time.monotonic() >= self._beat_s:
            self._beat()

    def _beat(self) -> None:
        """Say that the camera's loop comes round, and how the camera is."""
        self._beat_s = time.monotonic() + wire.BEAT_S
        settings, down = self._told = self._source.settings, self._trouble
        self.link.send(wire.pack("beat", camera=self._source.camera, down=down, settings=dict(settings)))

    def _beat_while_down(self) -> None:
        """Keep the true reason with the station while the camera's loop is busy opening it.

        While the camera delivers, only its own loop may say so: one that hangs shall be noticed.
        """
        if self._trouble and self._was_tried and time.monotonic() >= self._beat_s:
            self._beat()

    def _greet(self) -> None:
        if self._is_open:
            self._beat()  # the settings come before the first picture

    def _listen(self) -> None:
        while not self._closing:
            self._beat_while_down()
            for trigger in self.link.hear(wire.BEAT_S):
                self._trigger(trigger)

    def _trigger(self, trigger: Trigger) -> None:
        why = self._down or too_old(trigger, self._wait_s) or self._ask(trigger)
        if why:
            self.counts.faults += 1
            fault = trigger.missed(self._source.camera, f"the camera was not triggered: {why}")
            self.link.tell(wire.pack("refused", **wire.fault_content(fault)))

    def _ask(self, trigger: Trigger) -> str:
        """Why the camera takes no picture of it; empty where it does."""
        try:
            self._source.trigger(trigger)
        except SourceError as error:
            _log.warning("%s was not triggered: %s", self._source.camera, error.what)
            return error.what
        return ""

    def _close(self) -> None:
        self._closing = True
        self._server.join()
        self.link.close()
        self._source.close()
        self._pulse.stop()

    @property
    def _trouble(self) -> str:
        """Why the camera does not deliver, as seen here or by the source itself; empty when it does."""
        return self._down or self._source.down_reason

    def _dropped(self) -> dict[str, int]:
        link = self.link
        found = {"newer": link.skipped, "overrun": self.counts.ring_full, "unsent": link.unsent}
        if isinstance(self._source, GenicamSource):
            found["no_part"] = self._source.skipped
        return found

    def _vitals(self) -> Vitals:
        camera, counts = self._source.camera, self.counts
        return Vitals(
            role=f"capture-{self._index}",
            pid=os.getpid(),
            state="DEGRADED" if self._trouble else "RUNNING",
            reason=self._trouble,
            beats=self._pulse.watch.beats(),
            numbers={
                series_name("camera_up", camera=camera): not self._trouble,
                series_name("frames_total", camera=camera): counts.frames,
                series_name("frame_faults_total", camera=camera): counts.faults,
                **{
                    series_name("dropped_total", stage="capture", reason=reason, camera=camera): count
                    for reason, count in self._dropped().items()
                },
            },
        )


def _fault(frame: Frame, verdict: Verdict, reason: str) -> Fault:
    return Fault(
        frame.part_id,
        frame.camera,
        verdict,  # type: ignore[arg-type]
        reason,
        frame.captured_ns,
        frame.ts_ms,
        frame.trigger_id,
    )
