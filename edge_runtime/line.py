"""The line: parts one after the other, each with the pictures of all cameras that look at it.

Who asks for a picture is either the first camera itself (files, a camera that runs freely or that a cable
triggers) or a trigger input. In both cases a number that is left out is a part that was missed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kenpin.edge_runtime.cable import Cable
from kenpin.edge_runtime.counter_gap import CounterGap
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import Fault, FrameSource, Lull, Trigger, too_old
from kenpin.edge_runtime.standstill import Standstill
from kenpin.edge_runtime.trigger_input import TriggerInput
from kenpin.errors import SourceError, reason_of
from kenpin.frame import Frame

# Triggers that wait for the station. Beyond the first bound a part is missed; such parts count no more, or a
# line that is far too fast would have all of them missed. Beyond the second bound a trigger is forgotten, and
# the gap in the numbers tells that it was missed.
QUEUE, OVERRUN = 8, 1024
_TRIGGER_WAIT_S = 0.05
_HICCUP_S = 0.1  # a busy machine lets a thread wait for so long now and then

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shot:
    """What the cameras delivered of one part.

    Attributes:
        part_id: Identity of the part.
        trigger_id: Number of its trigger; `None` where nobody counts triggers.
        views: A frame or a fault of each camera.
    """

    part_id: str
    trigger_id: int | None
    views: tuple[Frame | Fault, ...]


@dataclass(frozen=True)
class _Due:
    """A trigger that waits for its frames, or why it was not passed on to the cameras."""

    trigger: Trigger
    left_out: str


class Line:
    """Joins cameras and triggers into parts.

    Args:
        cameras: At least one; the first one leads where there is no trigger input.
        triggers: Who asks for pictures; `None` = the first camera.
        gap: Knows the number of the last part.
        wait_s: Longest time from a trigger to its frames, in seconds.
        cable: Finds the others' pictures of a part, where each camera counts for itself, at one cable.

    Attributes:
        overruns: Triggers that came while too many were waiting.
    """

    def __init__(
        self,
        cameras: Sequence[FrameSource],
        triggers: TriggerInput | None,
        gap: CounterGap,
        *,
        wait_s: float,
        cable: Cable | None = None,
    ) -> None:
        self.overruns = 0
        self._cable = cable
        self._cameras = cameras
        self._triggers = triggers
        self._gap = gap
        self._wait_s = wait_s
        self._early: list[Frame | Fault | None] = [None] * len(cameras)  # of a part that comes later
        self._asked: int | None = None  # number of the newest trigger that was looked at
        self._missed: deque[Shot] = deque()
        self._due: deque[_Due] = deque(maxlen=OVERRUN)
        self._came = threading.Condition()
        self._ended = False
        self._trouble = ""  # with which the listening broke off
        self._standstill = Standstill(max(wait_s, _HICCUP_S) + _TRIGGER_WAIT_S)
        self._thread = threading.Thread(target=self._listen, name="triggers", daemon=True)

    def open(self) -> None:
        """Open the cameras and listen for triggers.

        Raises:
            SourceError: A camera does not open.
        """
        for camera in self._cameras:
            camera.open()
        if self._triggers is not None:
            self._thread.start()

    def next(self, deadline_s: float) -> Shot | Lull:
        """Wait for the next part; its pictures may be overwritten after the next call.

        Args:
            deadline_s: Until when on `time.monotonic()`, seconds.

        Raises:
            SourceError: The source failed for good.
        """
        while not self._missed:
            shot = self._triggered(deadline_s) if self._triggers is not None else self._led(deadline_s)
            if isinstance(shot, Lull):
                return shot
            if shot.trigger_id is None:
                return shot
            missed = self._gap.missed(shot.trigger_id)
            if missed is None:
                continue  # a number that was there already: one part gets one verdict
            self._missed.extend(self._left_out(number) for number in missed)
            self._missed.append(shot)
        return self._missed.popleft()

    @property
    def waiting(self) -> int:
        """Parts that wait for the station, as far as the station knows."""
        return len(self._due) + len(self._missed)

    def numbers(self) -> dict[str, float]:
        """What became of triggers that brought no part of their own, for others to count."""
        refused = self._triggers.refused if self._triggers is not None else 0
        return {
            'dropped_total{stage="trigger",reason="overrun"}': self.overruns,
            'dropped_total{stage="trigger",reason="refused"}': refused,
            'dropped_total{stage="trigger",reason="repeated"}': self._gap.repeated,
            "trigger_restarts_total": self._gap.restarts,
        }

    @property
    def down(self) -> str:
        """Which cameras deliver nothing, and why, in words; empty while all do."""
        return "; ".join(f"{c.camera} is down: {c.down_reason}" for c in self._cameras if c.down_reason)

    @property
    def deaf(self) -> str:
        """Why no trigger can be heard, in words; empty while they can."""
        trouble = self._trouble or (self._triggers.trouble if self._triggers is not None else "")
        return f"no trigger can be heard: {trouble}" if trouble else ""

    def close(self) -> None:
        """Let cameras and triggers go."""
        self._ended = True
        if self._triggers is not None:
            if self._thread.is_alive():
                self._thread.join()
            self._triggers.close()
        for camera in self._cameras:
            camera.close()

    def _led(self, deadline_s: float) -> Shot | Lull:
        """A part that the first camera brings."""
        first = self._cameras[0].next(deadline_s)
        if isinstance(first, Lull):
            return first
        if self._cable is not None:
            return Shot(first.part_id, first.trigger_id, (first, *self._cable.views(first)))
        by_s = first.captured_ns / 1e9 + self._wait_s
        # Without numbers it may be older by the longest wait than the first camera's.
        since_ns = first.captured_ns - round(self._wait_s * 1e9) if first.trigger_id is None else 0
        others = [
            self._view(k, first.trigger_id, first.part_id, by_s, since_ns) for k in range(1, len(self._cameras))
        ]
        return Shot(first.part_id, first.trigger_id, (first, *others))

    def _triggered(self, deadline_s: float) -> Shot | Lull:
        """A part that the line asked for."""
        self._attend()
        with self._came:
            if not self._came.wait_for(lambda: self._due, max(0.0, deadline_s - time.monotonic())):
                return Lull.IDLE
            due = self._due.popleft()
        trigger = due.trigger
        self._asked = trigger.trigger_id
        part_id = trigger.part_id or self._name(trigger.trigger_id)
        if due.left_out:
            return self._left_out(trigger.trigger_id, due.left_out, part_id)
        by_s = trigger.mono_ns / 1e9 + self._wait_s
        views = [
            self._view(k, trigger.trigger_id, part_id, by_s, trigger.mono_ns) for k in range(len(self._cameras))
        ]
        return Shot(part_id, trigger.trigger_id, tuple(views))

    def _attend(self) -> None:
        """Hear from the cameras. Their loss must show before the next part, and their return without one."""
        for index, camera in enumerate(self._cameras):
            early = self._early[index]
            if early is None or not (self._due or self._comes_later(early)):
                item = camera.next(time.monotonic())
                self._early[index] = None if isinstance(item, Lull) or item.trigger_id is None else item

    def _comes_later(self, item: Frame | Fault) -> bool:
        """Whether an item belongs to a part that the line has not asked for yet, as far as is known here."""
        if item.trigger_id is None:
            return False
        return self._asked is None or self._gap.is_ahead(item.trigger_id, of=self._asked)

    def _view(
        self, index: int, trigger_id: int | None, part_id: str, by_s: float, since_ns: int
    ) -> Frame | Fault:
        """The frame of one camera that belongs to a part, or why there is none.

        One from before `since_ns` is of an earlier part: it lay there while the first camera was away, or had
        the same number before the counter was set anew.
        """
        camera = self._cameras[index]
        by_s = max(by_s, time.monotonic())  # what has arrived is taken, however late
        while True:
            early, self._early[index] = self._early[index], None
            item = early or camera.next(by_s)
            if isinstance(item, Lull):
                reason = f"{camera.camera} delivered no picture within {self._wait_s * 1000:.0f} ms"
                return Fault(part_id, camera.camera, Verdict.MISSED, reason, trigger_id=trigger_id)
            if item.captured_ns < since_ns and not camera.waits:
                continue
            if trigger_id is None or item.trigger_id == trigger_id:
                return item
            if item.trigger_id is not None and self._gap.is_ahead(item.trigger_id, of=trigger_id):
                self._early[index] = item
                reason = f"{camera.camera} left this part out"
                return Fault(part_id, camera.camera, Verdict.MISSED, reason, trigger_id=trigger_id)
            # Of a part whose time had run out.

    def _left_out(self, trigger_id: int, reason: str = "", part_id: str = "") -> Shot:
        part_id = part_id or self._name(trigger_id)
        reason = reason or "the number of its trigger was left out"
        camera = self._cameras[0].camera
        fault = Fault(part_id, camera, Verdict.MISSED, reason, trigger_id=trigger_id)
        return Shot(part_id, trigger_id, (fault,))

    def _name(self, trigger_id: int) -> str:
        return f"{self._cameras[0].camera}-{trigger_id:06d}"

    def _listen(self) -> None:
        """Pass triggers on to the cameras at once, whatever the station is doing."""
        assert self._triggers is not None
        while not self._ended:
            try:
                trigger = self._triggers.wait(time.monotonic() + _TRIGGER_WAIT_S)
            except Exception as error:  # such as a GPIO chip that was unplugged: it must not end the listening
                if not self._trouble:
                    _log.exception("Listening for triggers failed.")
                self._trouble = reason_of(error) or type(error).__name__
                time.sleep(_TRIGGER_WAIT_S)
                trigger = None
            else:
                self._trouble = ""
            since_ns = self._standstill.heard_since_ns()
            if trigger is not None:
                self._take(replace(trigger, mono_ns=min(trigger.mono_ns, since_ns)))

    def _take(self, trigger: Trigger) -> None:
        left_out = self._why_not(trigger)
        if not left_out:
            self._pass_on(trigger)
        with self._came:
            self._due.append(_Due(trigger, left_out))
            self._came.notify()

    def _why_not(self, trigger: Trigger) -> str:
        """Why no picture is to be taken of a part; empty where one is."""
        if late := too_old(trigger, self._wait_s):
            return late
        with self._came:
            overrun = sum(not due.left_out for due in self._due) >= QUEUE
        self.overruns += overrun
        return f"overrun: more than {QUEUE} parts were waiting" if overrun else ""

    def _pass_on(self, trigger: Trigger) -> None:
        for camera in self._cameras:
            try:
                camera.trigger(trigger)
            except SourceError as error:
                # Its part will be missed when its time has run out.
                _log.warning("%s was not triggered: %s", camera.camera, error.what)
