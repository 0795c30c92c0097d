"""What the station counts since its start; written by the line, read by the publisher."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kenpin.edge_runtime.decide import Verdict

_TIMES = 10_000  # parts that the percentiles look back on
_RATE_PARTS = 100  # decided parts that the NG rate looks back on
_DECIDED = (Verdict.OK, Verdict.REVIEW, Verdict.NG)


@dataclass(frozen=True)
class Snapshot:
    """The counters at one moment.

    Attributes:
        parts: Number of parts by verdict; every verdict is there.
        reasons: Number of parts without a decision by reason.
        events: Number of events written to the outbox.
        latency_ms_p50: Median of the time from exposure to verdict, over the parts that were scored.
        latency_ms_p99: Its 99th percentile.
        infer_ms_p50: Median of the time the engine took.
        infer_ms_p99: Its 99th percentile.
        elapsed_s: Time since the start.
    """

    parts: Mapping[Verdict, int]
    reasons: Mapping[str, int]
    events: int
    latency_ms_p50: float
    latency_ms_p99: float
    infer_ms_p50: float
    infer_ms_p99: float
    elapsed_s: float

    @property
    def total(self) -> int:
        """Number of parts."""
        return sum(self.parts.values())

    @property
    def ng_rate(self) -> float:
        """Share of NG among the decided parts, 0 to 1."""
        return self.parts[Verdict.NG] / max(1, sum(self.parts[v] for v in _DECIDED))


class Counters:
    """Counts by verdict and reason, and bounded windows of times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts = Counter[Verdict]()
        self._reasons = Counter[str]()
        self._events = 0
        self._latencies = deque[float](maxlen=_TIMES)
        self._infers = deque[float](maxlen=_TIMES)
        self._recent = deque[Verdict](maxlen=_RATE_PARTS)
        self._start_s = time.monotonic()

    def add(self, verdict: Verdict, reason: str, *, has_event: bool) -> None:
        """Count a part."""
        with self._lock:
            self._parts[verdict] += 1
            if reason:
                self._reasons[reason] += 1
            self._events += has_event
            if verdict in _DECIDED:
                self._recent.append(verdict)

    def add_times(self, *, latency_ms: float, infer_ms: float) -> None:
        """Count the times of a part that was scored."""
        with self._lock:
            self._latencies.append(latency_ms)
            self._infers.append(infer_ms)

    def ng_rate_with(self, verdict: Verdict) -> float:
        """Share of NG among the last 100 decided parts, the one in hand included."""
        with self._lock:
            window = [*self._recent, verdict][-_RATE_PARTS:]
        return window.count(Verdict.NG) / len(window)

    def snapshot(self) -> Snapshot:
        """The counters now."""
        with self._lock:
            parts = {verdict: self._parts[verdict] for verdict in Verdict}
            reasons, events = dict(self._reasons), self._events
            latencies, infers = list(self._latencies), list(self._infers)
        return Snapshot(
            parts,
            reasons,
            events,
            *_percentiles(latencies),
            *_percentiles(infers),
            elapsed_s=time.monotonic() - self._start_s,
        )


def _percentiles(times: list[float]) -> tuple[float, float]:
    if not times:
        return 0.0, 0.0
    p50, p99 = np.percentile(times, (50, 99))
    return float(p50), float(p99)
