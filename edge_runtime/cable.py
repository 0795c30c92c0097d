"""Several cameras at one cable: which of their pictures are of one part.

Each camera counts the pictures since it was opened. One that was opened a part later, was away for three, or
ignored an edge has other numbers than the one beside it from then on; a part must not be judged by the picture
of another one. So pictures of one part were taken together, and their numbers differ as those before did.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.config import StationConfig
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import Fault, FrameSource, Lull
from kenpin.frame import Frame

# Cameras at one cable expose together. Farther apart, or by more than this share of the time from part to part,
# are two parts.
_TOGETHER_S, _SHARE = 0.05, 0.25
_AGREE = 3  # parts in a row that show the same new difference of the numbers

_log = logging.getLogger(__name__)


@dataclass
class _Beside:
    """A camera beside the first one.

    Attributes:
        camera: Its source.
        early: Its item of a part that the first camera has not brought yet.
        ahead: What its numbers are ahead of the first camera's.
        is_proven: That was seen to be so while the time from part to part was known. Before, pictures that all
            come one part late look as if they were taken together with the next one's.
        other: What they are ahead by according to the last part, if not by `ahead`.
        seen: Parts in a row that said so.
    """

    camera: FrameSource
    early: Frame | Fault | None = None
    ahead: int = 0
    is_proven: bool = False
    other: int = 0
    seen: int = 0

    def next_since(self, earliest_ns: int, by_s: float) -> Frame | Fault | None:
        """Its next item that was not taken before; `None` where none comes in time."""
        by_s = max(by_s, time.monotonic())  # what has arrived is taken, however late
        while True:
            early, self.early = self.early, None
            item = early or self.camera.next(by_s)
            if isinstance(item, Lull):
                return None
            if item.captured_ns >= earliest_ns:
                return item

    def counts(self, ahead: int, *, is_paced: bool) -> bool:
        """Whether a picture that was taken together has the number that it must have.

        Args:
            ahead: What its number is ahead of the first camera's.
            is_paced: The time from part to part is known.
        """
        if ahead == self.ahead:
            self.is_proven |= is_paced
            self.seen = 0
            return True
        self.seen = self.seen + 1 if ahead == self.other else 1
        self.other = ahead
        if not self.is_proven or self.seen < _AGREE:
            return False
        _log.warning("%s counts %+d parts now, before it was %+d", self.camera.camera, ahead, self.ahead)
        self.ahead, self.seen = ahead, 0
        return True


class Cable:
    """Finds what other cameras took together with the first one.

    Args:
        others: The other cameras.
        wait_s: Longest time from the first one's picture to theirs, in seconds.
    """

    def __init__(self, others: Sequence[FrameSource], *, wait_s: float) -> None:
        self._others = [_Beside(camera) for camera in others]
        self._wait_s = wait_s
        self._before: Frame | Fault | None = None  # of the first camera

    @staticmethod
    def leads(config: StationConfig) -> bool:
        """Whether cameras count at a cable: a recording has the numbers of its line, and times of its own."""
        is_played = any(url.startswith("replay:") for url in config.source.urls)
        return config.source.trigger == "camera-line" and not is_played

    def views(self, first: Frame | Fault) -> list[Frame | Fault]:
        """What each of the others shows of a part, or why it shows nothing.

        Args:
            first: The first camera's item.
        """
        interval_s = _interval_s(self._before, first)
        if first.trigger_id is not None:
            self._before = first
        apart_s = _TOGETHER_S if interval_s is None else min(_TOGETHER_S, interval_s * _SHARE)
        return [self._view(first, beside, apart_s, is_paced=interval_s is not None) for beside in self._others]

    def _view(self, first: Frame | Fault, beside: _Beside, apart_s: float, *, is_paced: bool) -> Frame | Fault:
        name = beside.camera.camera
        by_s = first.captured_ns / 1e9 + self._wait_s
        item = beside.next_since(first.captured_ns - round(apart_s * 1e9), by_s)
        if item is None:
            return _missed(first, name, f"{name} delivered no picture within {self._wait_s * 1000:.0f} ms")
        late_s = (item.captured_ns - first.captured_ns) / 1e9
        if late_s > apart_s:
            beside.early = item
            return _missed(
                first, name, f"{name} took its next picture {late_s * 1000:.0f} ms after {first.camera}"
            )
        if isinstance(first, Fault) or isinstance(item, Fault):
            return item  # nothing releases this part, whatever it shows
        assert item.trigger_id is not None
        assert first.trigger_id is not None
        if beside.counts(item.trigger_id - first.trigger_id, is_paced=is_paced):
            return item
        cure = (
            f"{_AGREE} parts in a row must agree before they count again"
            if beside.is_proven
            else "start kenpin anew while no part passes"
        )
        reason = (
            f"{name} and {first.camera} do not count the same parts: "
            f"{item.trigger_id} and {first.trigger_id}; {cure}"
        )
        return _missed(first, name, reason)


def _interval_s(before: Frame | Fault | None, first: Frame | Fault) -> float | None:
    """Time from part to part, in seconds, as far as numbers tell."""
    if before is None or before.trigger_id is None or first.trigger_id is None:
        return None
    parts = max(1, first.trigger_id - before.trigger_id)
    return (first.captured_ns - before.captured_ns) / 1e9 / parts


def _missed(first: Frame | Fault, camera: str, reason: str) -> Fault:
    return Fault(first.part_id, camera, Verdict.MISSED, reason, trigger_id=first.trigger_id)
