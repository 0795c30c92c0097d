"""Several cameras at one cable: whether pictures with the same number are of the same part.

Each camera counts the pictures since it was opened. One that was opened a part later, or was away for three,
has other numbers than the one beside it, for good; a part must not be judged by the picture of another one.
"""

from __future__ import annotations

from collections.abc import Sequence

from kenpin.config import StationConfig
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import Fault
from kenpin.frame import Frame

# Cameras at one cable expose together. Farther apart, or by more than this share of the time from part to part,
# are two parts.
_TOGETHER_S, _SHARE = 0.05, 0.25


class Cable:
    """Compares when the pictures of one part were taken."""

    def __init__(self) -> None:
        self._before: Frame | Fault | None = None  # of the first camera

    @classmethod
    def from_config(cls, config: StationConfig) -> Cable | None:
        """`None` unless cameras count: a recording has the numbers of its line, and times of its own."""
        is_played = any(url.startswith("replay:") for url in config.source.urls)
        return cls() if config.source.trigger == "camera-line" and not is_played else None

    def of_one_part(self, first: Frame | Fault, others: Sequence[Frame | Fault]) -> list[Frame | Fault]:
        """The items of the other cameras; a picture that was not taken with the first camera's is a fault.

        Args:
            first: The first camera's item.
            others: Those of the others with the same number.
        """
        apart_s = self._allowed_s(first)
        return [self._checked(first, item, apart_s) for item in others]

    def _allowed_s(self, first: Frame | Fault) -> float:
        before, self._before = self._before, first
        if before is None or before.trigger_id is None or first.trigger_id is None:
            return _TOGETHER_S
        parts = max(1, first.trigger_id - before.trigger_id)
        return min(_TOGETHER_S, (first.captured_ns - before.captured_ns) / 1e9 / parts * _SHARE)

    def _checked(self, first: Frame | Fault, item: Frame | Fault, allowed_s: float) -> Frame | Fault:
        apart_s = (item.captured_ns - first.captured_ns) / 1e9
        if isinstance(item, Fault) or abs(apart_s) <= allowed_s:
            return item
        when = f"{abs(apart_s) * 1000:.0f} ms {'after' if apart_s > 0 else 'before'} {first.camera}"
        reason = (
            f"{item.camera} took the picture of this number {when}: they do not count the same parts; "
            "start kenpin anew while no part passes"
        )
        return Fault(first.part_id, item.camera, Verdict.MISSED, reason, trigger_id=first.trigger_id)
