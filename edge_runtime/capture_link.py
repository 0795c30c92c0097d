"""The capture's end of the link to its station: pictures go through memory, all else in packets.

One station at a time: whoever comes newly takes the place of the one before and gets the ring.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from kenpin.edge_runtime import capture_wire as wire
from kenpin.edge_runtime.frame_ring import RingSize, RingWriter
from kenpin.edge_runtime.source import Trigger
from kenpin.frame import Frame

SLOTS = 8
WAITING = 1024  # packets that wait for the station: as many as it may have triggers without an answer


class CaptureLink:
    """Used by two threads: the camera's loop sends, another one listens.

    Args:
        listener: The socket to which the station comes; it is closed with the link.
        greet: Called when a station has come, before it gets a picture.
        latest: Only the newest frame counts, and what is skipped was no part.
        waits: The source waits for a station; otherwise a frame without one is nobody's.

    Attributes:
        was_up: Whether there was a station; parts before the first one are nobody's.
        skipped: Frames for which a newer one was taken.
        unsent: Packets that could not wait any longer, or for a station that went away.
    """

    def __init__(
        self, listener: socket.socket, greet: Callable[[], None], *, latest: bool, waits: bool
    ) -> None:
        self.was_up = False
        self.skipped = self.unsent = 0
        self._listener, self._greet, self._latest, self._waits = listener, greet, latest, waits
        self._lock = threading.Condition()
        self._station: socket.socket | None = None
        self._ring: RingWriter | None = None
        self._free: list[int] = []
        self._newest: Frame | None = None  # waits until the station has done with the frame before
        self._waiting: deque[bytes] = deque()  # packets that go out before any picture
        listener.listen(1)

    @property
    def is_up(self) -> bool:
        """Whether there is a station."""
        return self._station is not None

    def wait(self, seconds: float) -> None:
        """Wait until the station has made room or a new one has come, or the time is over."""
        with self._lock:
            self._lock.wait(seconds)

    def put(self, frame: Frame) -> bool:
        """Hand a frame over, or keep it where only the newest counts; whether there was room."""
        with self._lock:
            if self._station is None:
                return not self._waits
            if self._ring is None or not self._ring.fits(frame.image):
                self._make_ring(frame)
            if self._latest and len(self._free) < SLOTS:
                self.skipped += self._newest is not None
                self._newest = replace(frame, image=frame.image.copy())
                return True
            return self._write(frame)

    def tell(self, packet: bytes) -> None:
        """Send a packet behind what waits; where it cannot wait any more it is counted."""
        with self._lock:
            if self._station is None or len(self._waiting) >= WAITING:
                self.unsent += self.was_up
            else:
                self._waiting.append(packet)
                self.flush()

    def flush(self) -> bool:
        """Send what waits, in its order; whether nothing waits any more."""
        with self._lock:
            while self._waiting and self.send(self._waiting[0]):
                self._waiting.popleft()
            return not self._waiting

    def send(self, packet: bytes) -> bool:
        """Whether it went out; the link does not wait for a station that does not read."""
        with self._lock:
            if self._station is None:
                return False
            try:
                self._station.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:
                return False
            return True

    def hear(self, seconds: float) -> Iterator[Trigger]:
        """Take the station in and listen to it for so long at most; what it triggers is given back."""
        ends = [self._listener] if self._station is None else [self._listener, self._station]
        for end in select.select(ends, [], [], seconds)[0]:
            if end is self._listener:
                self._take_in(self._listener.accept()[0])
            elif end is self._station and (trigger := self._receive(end)):
                yield trigger

    def close(self) -> None:
        """End the link. Nobody may listen any more."""
        with self._lock:
            self._drop()
        self._listener.close()
        if self._ring is not None:
            self._ring.close()

    def _take_in(self, station: socket.socket) -> None:
        with self._lock:
            self._drop()
            self._station = station
            self.was_up = True
            self._give_ring()
            self._greet()
            self._lock.notify()

    def _receive(self, station: socket.socket) -> Trigger | None:
        try:
            packet = wire.receive(station)
        except OSError:
            packet = None
        if packet is None:
            with self._lock:
                self._drop()
            return None
        content = packet[0]
        if content["kind"] == "release":
            self._release(content["slot"])
        return wire.read_trigger(content) if content["kind"] == "trigger" else None

    def _release(self, slot: int) -> None:
        with self._lock:
            if self._ring is None or slot in self._free or not 0 <= slot < self._ring.size.slots:
                return  # of a ring before
            self._free.append(slot)
            frame, self._newest = self._newest, None
            if frame is not None and not self._write(frame):
                self.skipped += 1
            self._lock.notify()

    def _write(self, frame: Frame) -> bool:
        assert self._ring is not None
        if not self._free or not self.flush():
            return False
        slot = self._free.pop(0)
        self._ring.write(slot, frame.image)
        if self.send(wire.pack("frame", slot=slot, **wire.frame_content(frame))):
            return True
        self._free.append(slot)
        return False

    def _make_ring(self, frame: Frame) -> None:
        """A ring for frames of this size. The station keeps the old one as long as it reads in it."""
        if self._ring is not None:
            self._ring.close()
        self._ring = RingWriter(RingSize.of(frame.image, SLOTS))
        self._give_ring()

    def _give_ring(self) -> None:
        if self._ring is None or self._station is None:
            return
        size = self._ring.size
        packet = wire.pack("ring", slots=size.slots, slot_bytes=size.slot_bytes)
        with contextlib.suppress(OSError):
            socket.send_fds(self._station, [packet], [self._ring.handle])
        self._free = list(range(size.slots))
        self.skipped += self._newest is not None
        self._newest = None

    def _drop(self) -> None:
        if self._station is not None:
            self._station.close()
        self._station = None
        self.unsent += len(self._waiting)  # the station has counted its triggers as missed by itself
        self._waiting.clear()
