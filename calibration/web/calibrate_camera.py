"""The check of the camera: light, clipping, focus, position and steadiness, each against a target zone."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kenpin.events import now_ms
from kenpin.station_folder import StationFolder

STALE_MS = 30_000
_FRAMES = 30
_ENOUGH = 10
# Before the first sign-off nothing is known of this camera but what holds for every one.
_LIGHT, _CLIPPED = (40.0, 220.0), 0.005
_NEAR_BEST = 0.85  # of the best focus seen
_STEADY = 0.02

State = Literal["ok", "bad", "open"]


class Measured(BaseModel):
    """What the station writes beside the live picture; a limit of 0 is not known.

    Attributes:
        ts_ms: UTC of the exposure, milliseconds since 1970.
        light_abs: Mean of the picture, 0 to 255.
        light_low: The least light allowed.
        light_high: The most light allowed.
        clipped: Share of white pixels.
        clipped_max: The most of them allowed.
        focus_abs: Focus.
        focus_min: The least allowed.
        match: How well the part's place fits, -1 to 1.
        match_min: The least allowed.
        shift: How far the part is off, in shares of the picture.
        shift_max: The most allowed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    ts_ms: int = 0
    light_abs: float = 0.0
    light_low: float = 0.0
    light_high: float = 0.0
    clipped: float = 0.0
    clipped_max: float = 0.0
    focus_abs: float = 0.0
    focus_min: float = 0.0
    match: float = 0.0
    match_min: float = 0.0
    shift: float = 0.0
    shift_max: float = 0.0


@dataclass(frozen=True)
class Bar:
    """One measure as a bar with a target zone.

    Attributes:
        key: Of its words.
        value: What is measured, in `unit`.
        digits: Behind the point.
        unit: Of the value; empty = a bare number.
        at: Place of the value on the bar, 0 to 1.
        zone: From where to where the bar is green, 0 to 1.
        state: Whether the value is in the zone; `open` = it cannot be told yet.
    """

    key: str
    value: float
    digits: int
    unit: str
    at: float
    zone: tuple[float, float]
    state: State


class CameraReader:
    """Reads what the camera sees; it remembers the last pictures and the best focus.

    Args:
        folder: The station's folder.
    """

    def __init__(self, folder: StationFolder) -> None:
        self._folder = folder
        self._last: deque[Measured] = deque(maxlen=_FRAMES)

    def read(self) -> Sequence[Bar]:
        """The bars; none while no picture comes."""
        try:
            seen = Measured.model_validate_json((self._folder.run / "live.json").read_bytes())
        except (OSError, ValidationError):
            return ()
        if not 0 <= now_ms() - seen.ts_ms < STALE_MS:
            return ()
        if not self._last or self._last[-1].ts_ms != seen.ts_ms:
            self._last.append(seen)
        return bars(tuple(self._last))


def bars(last: Sequence[Measured]) -> Sequence[Bar]:
    """The bars of the last pictures, at least one; the newest is the last."""
    seen = last[-1]
    light = (seen.light_low, seen.light_high) if seen.light_high else _LIGHT
    best = max(m.focus_abs for m in last)
    focus = seen.focus_min or _NEAR_BEST * best
    top = max(1.25 * best, 1.5 * focus, 1e-9)
    white = seen.clipped_max or _CLIPPED
    return (
        _bar(("bar_light", 0, ""), seen.light_abs, light, 255.0),
        _bar(("bar_clipped", 2, "%"), 100 * seen.clipped, (0.0, 100 * white), 400 * white),
        _bar(("bar_focus", 4, ""), seen.focus_abs, (focus, top), top),
        _place(seen),
        _steadiness([m.light_abs for m in last]),
    )


def _bar(said: tuple[str, int, str], value: float, zone: tuple[float, float], top: float) -> Bar:
    low, high = zone
    state: State = "ok" if low <= value <= high else "bad"
    key, digits, unit = said
    return Bar(key, value, digits, unit, _share(value, top), (_share(low, top), _share(high, top)), state)


def _place(seen: Measured) -> Bar:
    """Off the place by so much; a part that is not there at all is off by all that can be shown."""
    if not seen.shift_max:
        return Bar("bar_place", 0.0, 1, "%", 0.0, (0.0, 0.0), "open")
    most = 100 * seen.shift_max
    off = 100 * seen.shift if seen.match >= seen.match_min else 4 * most
    return _bar(("bar_place", 1, "%"), off, (0.0, most), 4 * most)


def _steadiness(light: Sequence[float]) -> Bar:
    """How much the light differs from picture to picture: flicker, or a lamp that is loose."""
    if len(light) < _ENOUGH:
        return Bar("bar_steady", 0.0, 1, "%", 0.0, (0.0, 0.0), "open")
    differs = pstdev(light) / max(fmean(light), 1.0)
    return _bar(("bar_steady", 1, "%"), 100 * differs, (0.0, 100 * _STEADY), 400 * _STEADY)


def _share(value: float, top: float) -> float:
    return min(max(value / top, 0.0), 1.0)
