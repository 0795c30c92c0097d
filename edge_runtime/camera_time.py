"""A camera's clock, told in that of this machine."""

from __future__ import annotations

_DRIFT = 10_000  # two crystals differ by at most 100 ppm, one in this many


class CameraTime:
    """Learns how a camera's clock stands to `time.monotonic_ns()`.

    Nothing arrives before it was taken, so the quickest arrival tells best; a picture that lay in a queue shows
    as old. What was learnt may fade as fast as crystals drift.
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._last_ns = 0
        self._stamp_ns = 0

    def stood(self, timestamp_ns: int) -> bool:
        """Whether the camera's clock has not gone on since the last picture; 0 = it has no clock."""
        stood = 0 < timestamp_ns <= self._stamp_ns
        self._stamp_ns = timestamp_ns
        return stood

    def host_ns(self, timestamp_ns: int, *, arrival_ns: int) -> int:
        """When a picture was taken, on the clock of this machine; later by the quickest way seen so far.

        Args:
            timestamp_ns: The camera's clock.
            arrival_ns: Monotonic clock when the picture was here.
        """
        offset_ns = arrival_ns - timestamp_ns
        if self._offset_ns is not None:
            faded_ns = self._offset_ns + max(0, timestamp_ns - self._last_ns) // _DRIFT
            offset_ns = min(offset_ns, faded_ns)
        self._offset_ns = offset_ns
        self._last_ns = timestamp_ns
        return timestamp_ns + offset_ns
