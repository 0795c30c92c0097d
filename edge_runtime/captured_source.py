"""A camera that a capture process reads: the station's end."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from itertools import takewhile
from pathlib import Path
from typing import Any

from kenpin.edge_runtime import capture_wire as wire
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.frame_ring import RingReader, RingSize
from kenpin.edge_runtime.run_socket import connect_in
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, FrameSource, Lull, Settings, Trigger
from kenpin.frame import Frame

_FIRST_S = 10.0
_RETRY_S = 0.05
_TRIGGERS = 1024  # that may wait for a frame


class CapturedSource:
    """Frames stay in shared memory until the next call of `next`. A process that is gone is waited for.

    Args:
        run: The station's `StationFolder.run`.
        index: Number of the camera in the station.
        like: The source that the process reads, not opened: its name and nature.

    Attributes:
        down_reason: Why the camera delivers nothing, in words; empty while it does.
        settings: As the camera said them last; each change comes before the first picture with it.
    """

    def __init__(self, run: Path, index: int, like: FrameSource) -> None:
        self.camera = like.camera
        self.drawn = like.drawn
        self.waits = like.waits
        self.live = like.live
        self.down_reason = "its process has not answered yet"
        self.settings: Settings = NO_SETTINGS
        self._run = run
        self._index = index
        self._link: socket.socket | None = None
        self._ring: RingReader | None = None
        self._held: int | None = None
        self._heard_s = 0.0
        self._ended = False
        self._lock = threading.Lock()
        self._asked: dict[int, Trigger] = {}  # triggers without an answer
        self._faults: deque[Fault] = deque()
        self._early: deque[dict[str, Any]] = deque()  # came while the station was starting

    def open(self) -> None:
        """Wait a while for the process; a camera that is away is no error, it may come back."""
        by_s = time.monotonic() + _FIRST_S
        packet = None
        while (packet is None or packet["kind"] == "ring") and time.monotonic() < by_s:
            packet = self._next_packet(by_s)
        if packet is not None:
            self._early.append(packet)

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """The next frame or fault of the process."""
        self._release()
        while True:
            if self._faults:
                self._look_after_link()
                with self._lock:
                    return self._faults.popleft()
            if self._ended:
                return Lull.END
            packet = self._next_packet(deadline_s)
            if packet is not None:
                item = self._unpack(packet)
                if item is not None:
                    return item
            elif time.monotonic() >= deadline_s and not self._faults:
                return Lull.IDLE

    def trigger(self, trigger: Trigger) -> None:
        """Pass a trigger on; where the process is away, the part is missed at once."""
        with self._lock:
            why = self._pass_on(trigger)
            if why:
                self._faults.append(trigger.missed(self.camera, f"{self.camera} was not asked: {why}"))

    def close(self) -> None:
        """Let the process go."""
        self._lose("closed")

    def _pass_on(self, trigger: Trigger) -> str:
        """Why the process could not be told; empty where it was."""
        if self._link is None:
            return self.down_reason or "its process is away"
        if len(self._asked) >= _TRIGGERS:
            return f"{_TRIGGERS} triggers have no answer yet"
        try:
            packet = wire.pack("trigger", **vars(trigger))
            self._link.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return "its process does not take triggers"
        self._asked[trigger.trigger_id] = trigger
        return ""

    def _unpack(self, packet: dict[str, Any]) -> Frame | Fault | None:
        kind = packet["kind"]
        if kind == "end":
            self._ended = True
        if kind not in ("frame", "fault", "refused"):
            return None
        if kind != "refused" and self._passed_over(packet["trigger_id"]):
            self._early.appendleft(packet)  # after the faults of those before it
            return None
        with self._lock:
            self._asked.pop(packet["trigger_id"], None)
        if kind != "frame":
            return wire.read_fault(packet)
        self._held = packet["slot"]
        image = self._ring.read(packet["slot"]) if self._ring is not None else None
        stranger = self._stranger(packet["camera"])
        if image is not None and not stranger:
            return wire.read_frame(packet, image)
        return Fault(
            packet["part_id"],
            self.camera,
            Verdict.NO_DECISION,
            stranger or "the picture was damaged on its way from the camera's process",
            packet["captured_ns"],
            packet["ts_ms"],
            packet["trigger_id"],
        )

    def _passed_over(self, trigger_id: int | None) -> bool:
        """Miss the parts of triggers before this one: their answer was lost. Whether there were any."""
        with self._lock:
            if trigger_id not in self._asked:
                return False
            before = list(takewhile(lambda number: number != trigger_id, self._asked))
            why = f"{self.camera} gave no answer"
            self._faults.extend(self._asked.pop(number).missed(self.camera, why) for number in before)
            return bool(before)

    def _next_packet(self, deadline_s: float) -> dict[str, Any] | None:
        """One packet; `None` where none came in time or the process is away."""
        return self._early.popleft() if self._early else self._receive(deadline_s)

    def _look_after_link(self) -> None:
        """Notice a loss, and connect again, where a line that never waits would always find faults first."""
        packet = self._receive(time.monotonic())
        if packet is not None:
            self._early.append(packet)

    def _receive(self, deadline_s: float) -> dict[str, Any] | None:
        link = self._link or self._connect(deadline_s)
        if link is None:
            return None
        by_s = min(deadline_s, self._heard_s + wire.SILENCE_S)
        try:
            if not select.select([link], [], [], max(0.0, by_s - time.monotonic()))[0]:
                if time.monotonic() - self._heard_s > wire.SILENCE_S:
                    self._lose("its process does not answer")
                return None
            packet = wire.receive(link)
        except OSError:
            packet = None
        if packet is None:
            self._lose("its process ended")
            return None
        self._heard_s = time.monotonic()
        self._take(*packet)
        return packet[0]

    def _take(self, content: dict[str, Any], handles: list[int]) -> None:
        """What is about the link itself."""
        if content["kind"] == "ring":
            # The old memory stays as long as somebody looks at a picture in it.
            self._ring = RingReader(handles[0], RingSize(content["slots"], content["slot_bytes"]))
            self._held = None
        elif content["kind"] == "beat":
            self.down_reason = self._stranger(content["camera"]) or content["down"]
            self.settings = content["settings"]
        elif content["kind"] == "frame":
            self.down_reason = self._stranger(content["camera"])

    def _stranger(self, camera: str) -> str:
        """Why the pictures of a process are not to be judged here: no limit in force was learned on them."""
        if camera == self.camera:
            return ""
        return f"its process reads {camera}: the configuration was changed; stop and start the whole station"

    def _connect(self, deadline_s: float) -> socket.socket | None:
        try:
            link = connect_in(self._run, wire.socket_name(self._index), socket.SOCK_SEQPACKET)
        except OSError:
            time.sleep(max(0.0, min(_RETRY_S, deadline_s - time.monotonic())))
            return None
        self._heard_s = time.monotonic()
        with self._lock:
            self._link = link
        return link

    def _lose(self, why: str) -> None:
        """The process is gone: parts that it was to take are missed."""
        self.down_reason = why
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._link = None
            reason = f"{self.camera} was away: {why}"
            self._faults.extend(trigger.missed(self.camera, reason) for trigger in self._asked.values())
            self._asked.clear()
        self._ring = None
        self._held = None

    def _release(self) -> None:
        if self._held is not None and self._link is not None:
            with contextlib.suppress(OSError):
                self._link.send(wire.pack("release", slot=self._held), socket.MSG_NOSIGNAL)
        self._held = None
