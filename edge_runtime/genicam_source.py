"""GigE Vision and USB3 Vision cameras: what is the same whichever library speaks to them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from kenpin.edge_runtime.block_numbers import BlockNumbers
from kenpin.edge_runtime.camera_control import CameraControl
from kenpin.edge_runtime.camera_time import CameraTime
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.genicam_camera import BUFFERS, Block, GenicamCamera
from kenpin.edge_runtime.genicam_settings import Opened, Wish
from kenpin.edge_runtime.pixel_format import to_bgr
from kenpin.edge_runtime.software_triggers import SoftwareTriggers
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Settings, Trigger, takes_no_trigger
from kenpin.errors import SourceError
from kenpin.events import now_ms
from kenpin.frame import Frame

# A camera that is silent for longer is lost. The protocols' own heartbeats take 3 s and more to say so.
LOST_S = 0.7
_STEP_S = 0.05
# Nobody asked for a picture for so long: what waits is of parts that have passed.
_AWAY_S = 1.0


@dataclass(frozen=True)
class _Shot:
    """Of which part, and when."""

    part_id: str
    captured_ns: int
    ts_ms: int
    trigger_id: int | None


class GenicamSource:
    """A camera that runs freely, is triggered by software, or by a cable.

    Free: each call takes the newest picture; what was passed over is counted in `skipped`, and was no part.
    Software: one trigger is under way at a time; the part of one that comes too early is MISSED.
    Cable: the camera counts, and `trigger_id` is its count; the line finds what is left out.

    A camera that is lost gives one fault, and is opened again and again until it is back.

    Args:
        device: The camera.
        wish: How it is to be set.

    Attributes:
        skipped: Pictures that were no part's: passed over, lost by a camera that runs freely, or not asked for.
    """

    drawn = False
    waits = False
    live = True

    def __init__(self, device: GenicamCamera, wish: Wish) -> None:
        self.camera = device.name
        self.down_reason = "not opened yet"
        self.settings: Settings = NO_SETTINGS
        self.skipped = 0
        self._device = device
        self._wish = wish
        self._opened: Opened | None = None
        self._numbers = BlockNumbers()
        self._time = CameraTime()
        self._seen_s = 0.0  # when the last block came
        self._asked_s = 0.0  # when a block was last asked for
        self._triggers = SoftwareTriggers()
        self._control: CameraControl | None = None

    def open(self) -> None:
        """Open the camera.

        Raises:
            SourceError: It is not there, or does not keep what it is set to.
        """
        try:
            self._connect()
        except SourceError as error:
            self.down_reason = error.what
            raise
        self.down_reason = ""
        self._control = CameraControl(self._device, is_down=lambda: bool(self.down_reason), reopen=self._reopen)
        self._control.start()

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """The camera's next picture, or a fault."""
        while True:
            wait_s = max(0.0, min(_STEP_S, deadline_s - time.monotonic()))
            refused = self._triggers.next_refused()
            if refused is not None:
                return self._fault(self._shot_for(refused.trigger), Verdict.MISSED, refused.refused)
            item = self._look(wait_s)
            if item is not None:
                return item
            if time.monotonic() >= deadline_s:
                return Lull.IDLE

    def trigger(self, trigger: Trigger) -> None:
        """Take a picture for this part now, where the camera is triggered by software.

        Raises:
            SourceError: It is triggered otherwise, or too many triggers wait.
        """
        if self._wish.trigger != "software":
            raise takes_no_trigger(self.camera)
        try:
            if self._triggers.ask(trigger, down=self.down_reason) and self._control is not None:
                self._control.fire()
        except OverflowError:
            raise SourceError("too many triggers wait", where=self.camera, cure="trigger more slowly") from None

    def close(self) -> None:
        """Let the camera go."""
        control, self._control = self._control, None
        if control is not None:
            control.stop()
        self.down_reason = "closed"
        self._device.close()

    def _connect(self) -> None:
        opened = self._device.open(self._wish)
        if self._opened is not None and opened.settings != self._opened.settings:
            self._device.close()
            changed = dict(opened.settings.items() - self._opened.settings.items())
            raise SourceError(
                f"the camera came back with other settings: {changed}",
                where=self._device.where,
                cure="give exposure_us, gain_db, pixel_format, width and height in its address: then they are "
                "written each time; after a change, start kenpin anew and calibrate",
            )
        self._opened = opened
        self.settings = opened.settings
        self._numbers.start_over()
        self._time = CameraTime()
        self._seen_s = self._asked_s = time.monotonic()

    def _reopen(self) -> None:
        try:
            self._connect()
        except SourceError as error:
            self.down_reason = error.what
        else:
            self.down_reason = ""

    def _look(self, wait_s: float) -> Frame | Fault | None:
        if self.down_reason:
            late = self._triggers.answered()  # asked for just as the camera was lost
            if late is not None:
                return self._fault(self._shot_for(late.trigger), Verdict.MISSED, self.down_reason)
            time.sleep(wait_s)
            return None
        try:
            block = self._grab(wait_s)
        except SourceError as error:
            return self._lose(error.what)
        if block is None:
            reason = self._silence()
            return self._lose(reason) if reason else None
        self._seen_s = time.monotonic()
        return self._take(block)

    def _grab(self, wait_s: float) -> Block | None:
        if time.monotonic() - self._asked_s > _AWAY_S:
            self._let_pass()
        block = self._device.grab(wait_s)
        self._asked_s = time.monotonic()
        for _ in range(BUFFERS if self._wish.trigger == "off" else 0):
            newer = self._device.grab(0.0) if block is not None else None
            if newer is None:
                break
            block = newer
        return block

    def _let_pass(self) -> None:
        """Drop what the camera took while nobody asked; of one at a cable the numbers tell of these parts."""
        for _ in range(BUFFERS if self._wish.trigger != "software" else 0):
            if self._device.grab(0.0) is None:
                return
            self._seen_s = time.monotonic()

    def _silence(self) -> str:
        """Why the camera counts as lost; empty while it does not."""
        assert self._opened is not None
        assert self._control is not None
        patience_s = max(LOST_S, 3 * self._opened.period_s)
        if trouble := self._control.trouble(LOST_S):
            return trouble
        if self._wish.trigger == "off" and time.monotonic() - self._seen_s > patience_s:
            return "the camera delivers no picture"
        if self._triggers.is_overdue(patience_s):
            return "the camera took no picture for its trigger"
        return ""

    def _take(self, block: Block) -> Frame | Fault | None:
        before = self._numbers.left_out
        number = self._numbers.take(block.block_id)
        if number is None:
            return None
        left_out = self._numbers.left_out - before
        if self._wish.trigger != "software":
            self.skipped += left_out if self._wish.trigger == "off" else 0
            return self._use(block, self._shot_at(number, block))
        asked = self._triggers.answered()
        if asked is None:
            self.skipped += 1
            return None
        shot = self._shot_for(asked.trigger)
        if left_out:
            return self._fault(shot, Verdict.MISSED, "the camera took pictures that nobody asked for")
        return self._use(block, shot)

    def _use(self, block: Block, shot: _Shot) -> Frame | Fault | None:
        """The frame of a block, where it can be used."""
        assert self._opened is not None
        stood = self._time.stood(block.timestamp_ns)
        if block.layout is None:
            return self._fault(shot, Verdict.MISSED, f"incomplete: {block.reason}")
        if block.layout != self._opened.layout:
            reason = f"the camera sent {block.layout} instead of {self._opened.layout}"
            self._lose(reason)
            return self._fault(shot, Verdict.NO_DECISION, reason)
        if stood:
            return self._fault(shot, Verdict.NO_DECISION, "frozen: the camera's clock stood still")
        try:
            image = to_bgr(block.data, block.layout, padding=block.padding)
        except ValueError as error:
            return self._fault(shot, Verdict.MISSED, f"incomplete: {error}")
        number, captured_ns = self._numbers.number, shot.captured_ns
        return Frame(image, shot.part_id, self.camera, captured_ns, shot.ts_ms, number, shot.trigger_id)

    def _lose(self, reason: str) -> Fault | None:
        """The camera is lost; the part under way is missed. Else one fault stands for what passes by now."""
        self.down_reason = reason
        asked = self._triggers.answered()
        if asked is not None:
            return asked.trigger.missed(self.camera, reason)
        if self._wish.trigger == "software":
            return None
        part_id = f"{self.camera}-{self._numbers.number:06d}-lost"
        return self._fault(_Shot(part_id, time.monotonic_ns(), now_ms(), None), Verdict.MISSED, reason)

    def _shot_for(self, trigger: Trigger) -> _Shot:
        return _Shot(trigger.name_at(self.camera), trigger.mono_ns, trigger.ts_ms, trigger.trigger_id)

    def _shot_at(self, number: int, block: Block) -> _Shot:
        now_ns = time.monotonic_ns()
        captured_ns = (
            self._time.host_ns(block.timestamp_ns, arrival_ns=now_ns) if block.timestamp_ns else now_ns
        )
        ts_ms = now_ms() - (now_ns - captured_ns) // 1_000_000
        trigger_id = None if self._wish.trigger == "off" else number
        return _Shot(f"{self.camera}-{number:06d}", captured_ns, ts_ms, trigger_id)

    def _fault(self, shot: _Shot, verdict: Literal[Verdict.MISSED, Verdict.NO_DECISION], reason: str) -> Fault:
        return Fault(shot.part_id, self.camera, verdict, reason, shot.captured_ns, shot.ts_ms, shot.trigger_id)
