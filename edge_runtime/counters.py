"""What the station counts since its start; written by the line, read by the publisher."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kenpin.edge_runtime.decide import DECIDED, WITHHELD, Decision, Verdict
from kenpin.edge_runtime.series_name import series_name
from kenpin.edge_runtime.vitals import Vitals

_TIMES = 10_000  # parts that the percentiles look back on
_RATE_PARTS = 100  # decided parts that the NG rate looks back on
_REASONS = 100  # different reasons that are told apart: they carry numbers, so there is no end to them
_OTHER = "other reasons"


@dataclass(frozen=True)
class Snapshot:
    """The counters at one moment.

    Attributes:
        parts: Number of parts by verdict; every verdict is there.
        reasons: Number of parts without a decision by reason in words.
        causes: The same by the reason's one word.
        events: Number of parts that were told as `event/anomaly`.
        latency_ms_p50: Median of the time from exposure to verdict, over the parts that were scored.
        latency_ms_p99: Its 99th percentile.
        infer_ms_p50: Median of the time the engine took.
        infer_ms_p99: Its 99th percentile.
        elapsed_s: Time since the start.
        score_psi: How far the scores have moved from the calibration's, as a population stability index.
        temperature_c: Highest temperature of the machine in degrees Celsius; 0 = not known.
        power_w: What it takes, in watts; 0 = not known.
    """

    parts: Mapping[Verdict, int]
    reasons: Mapping[str, int]
    causes: Mapping[str, int]
    events: int
    latency_ms_p50: float
    latency_ms_p99: float
    infer_ms_p50: float
    infer_ms_p99: float
    elapsed_s: float
    score_psi: float = 0.0
    temperature_c: float = 0.0
    power_w: float = 0.0

    @classmethod
    def from_vitals(cls, vitals: Vitals) -> Snapshot:
        """Read it from what the station told."""
        numbers = vitals.numbers
        parts = {v: int(numbers.get(series_name("parts_total", verdict=v.value), 0)) for v in Verdict}

        def milliseconds(name: str, quantile: str) -> float:
            return numbers.get(series_name(name, quantile=quantile), 0.0) * 1000

        return cls(
            parts,
            json.loads(vitals.texts.get("reasons", "{}")),
            {
                cause: int(numbers.get(series_name("causes_total", cause=cause), 0))
                for cause in sorted(WITHHELD)
            },
            int(numbers.get("events_total", 0)),
            milliseconds("decision_seconds", "0.5"),
            milliseconds("decision_seconds", "0.99"),
            milliseconds("engine_seconds", "0.5"),
            milliseconds("engine_seconds", "0.99"),
            numbers.get("elapsed_seconds", 0.0),
            numbers.get("score_psi", 0.0),
            numbers.get("temperature_celsius", 0.0),
            numbers.get("power_watts", 0.0),
        )

    def numbers(self) -> dict[str, float]:
        """The series that tell it to others."""
        found: dict[str, float] = {
            series_name("parts_total", verdict=verdict.value): count for verdict, count in self.parts.items()
        }
        found |= {series_name("causes_total", cause=cause): n for cause, n in self.causes.items()}
        found[series_name("decision_seconds", quantile="0.5")] = self.latency_ms_p50 / 1000
        found[series_name("decision_seconds", quantile="0.99")] = self.latency_ms_p99 / 1000
        found[series_name("engine_seconds", quantile="0.5")] = self.infer_ms_p50 / 1000
        found[series_name("engine_seconds", quantile="0.99")] = self.infer_ms_p99 / 1000
        found |= {"score_psi": self.score_psi, "temperature_celsius": self.temperature_c}
        found |= {"power_watts": self.power_w} if self.power_w else {}
        return {**found, "events_total": self.events, "elapsed_seconds": self.elapsed_s}

    @property
    def total(self) -> int:
        """Number of parts."""
        return sum(self.parts.values())

    @property
    def ng_rate(self) -> float:
        """Share of NG among the parts that were judged, released or not, 0 to 1."""
        held_back = sum(self.causes.get(cause, 0) for cause in WITHHELD)
        return self.parts[Verdict.NG] / max(1, held_back + sum(self.parts[v] for v in DECIDED))


class Counters:
    """Counts by verdict and reason, and bounded windows of times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts = Counter[Verdict]()
        self._reasons = Counter[str]()
        self._causes = Counter[str]()
        self._events = 0
        self._latencies = deque[float](maxlen=_TIMES)
        self._infers = deque[float](maxlen=_TIMES)
        self._recent = deque[Verdict](maxlen=_RATE_PARTS)
        self._start_s = time.monotonic()
        self._gauges = (0.0, 0.0, 0.0)

    def add(self, decision: Decision, *, has_event: bool) -> None:
        """Count a part."""
        reason, verdict = decision.reason, decision.verdict
        with self._lock:
            self._parts[verdict] += 1
            if reason:
                known = reason in self._reasons or len(self._reasons) < _REASONS
                self._reasons[reason if known else _OTHER] += 1
            if decision.cause:
                self._causes[decision.cause] += 1
            self._events += has_event
            if decision.judged in DECIDED:
                self._recent.append(decision.judged)

    def add_times(self, *, latency_ms: float, infer_ms: float) -> None:
        """Count the times of a part that was scored."""
        with self._lock:
            self._latencies.append(latency_ms)
            self._infers.append(infer_ms)

    def note(self, *, score_psi: float, temperature_c: float, power_w: float) -> None:
        """Take what the watchman measured."""
        self._gauges = (score_psi, temperature_c, power_w)

    def ng_rate_with(self, verdict: Verdict) -> float:
        """Share of NG among the last 100 decided parts, the one in hand included."""
        with self._lock:
            window = [*self._recent, verdict][-_RATE_PARTS:]
        return window.count(Verdict.NG) / len(window)

    def snapshot(self) -> Snapshot:
        """The counters now."""
        with self._lock:
            parts = {verdict: self._parts[verdict] for verdict in Verdict}
            reasons, causes, events = dict(self._reasons), dict(self._causes), self._events
            latencies, infers = list(self._latencies), list(self._infers)
        return Snapshot(
            parts,
            reasons,
            causes,
            events,
            *_percentiles(latencies),
            *_percentiles(infers),
            time.monotonic() - self._start_s,
            *self._gauges,
        )


def _percentiles(times: list[float]) -> tuple[float, float]:
    if not times:
        return 0.0, 0.0
    p50, p99 = np.percentile(times, (50, 99))
    return float(p50), float(p99)
