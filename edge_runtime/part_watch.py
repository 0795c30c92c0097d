"""What the parts of a line say to its alarms: shares, runs, and what is told once per part."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from kenpin.edge_runtime.decide import DECIDED, Decision, Verdict
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.readiness import HOLDS
from kenpin.quality_limits import Finding
from kenpin.record import CalibrationRecord
from kenpin.stability import population_stability

Values = Mapping[str, Sequence[float | None]]

_WINDOW = 100  # decided parts that the NG rate looks back on
_LEAST_PARTS = 50  # with fewer, one NG more or less would be an alarm
_DRIFT_PARTS = 500
UNJUDGED = 5  # parts in a row without a decision are no accident any more
_HELD = frozenset((*HOLDS, "not_ready"))  # the station itself says why
_WAITING = 1000  # parts between two rounds of the alarms
_FINDINGS = frozenset(finding.value for finding in Finding)


class PartWatch:
    """Sees each part in the station's loop; another thread asks what they say.

    Args:
        timeout_ms: Time that a decision may take.
    """

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._lock = threading.Lock()
        self._verdicts = deque[Verdict](maxlen=_WINDOW)
        self._run = self._longest_run = 0  # the latter since the last call of `values`
        self._quality = deque[float](maxlen=_WAITING)
        self._slowness = deque[float](maxlen=_WAITING)
        self._scores = deque[float](maxlen=_DRIFT_PARTS)
        self._good: tuple[float, ...] = ()
        self._good_parts = 0
        self._unjudged = 0  # in a row, up to the newest part
        self._why = ("", "")  # of the first of them

    @property
    def unjudged(self) -> tuple[str, str]:
        """Why no part is judged though the station could, as one word and in words; empty where parts are.

        In the words of the first one: those of each may differ by a number.
        """
        with self._lock:
            return self._why if self._unjudged >= UNJUDGED else ("", "")

    def saw(self, part: Part) -> None:
        """A part is settled."""
        verdict, scored = part.decision.judged, part.decision.scored
        with self._lock:
            self._note_decision(part.decision)
            self._quality.append(float(part.decision.cause in _FINDINGS))
            if scored is not None:
                self._slowness.append(part.latency_ms / self._timeout_ms)
            if verdict in DECIDED:
                self._run = self._run + 1 if verdict is Verdict.NG else 0
                self._longest_run = max(self._longest_run, self._run)
                self._verdicts.append(verdict)
            if verdict in DECIDED and scored is not None and part.record is not None:
                self._note_score(scored.score, part.record)

    def values(self) -> dict[str, Sequence[float | None]]:
        """The values of the alarms that parts cause; those told once per part, since the last call."""
        with self._lock:
            many = len(self._verdicts) >= _LEAST_PARTS
            rate = self._verdicts.count(Verdict.NG) / len(self._verdicts) if many else None
            quality, slowness = list(self._quality), list(self._slowness)
            self._quality.clear()
            self._slowness.clear()
            scores, good, parts = list(self._scores), self._good, self._good_parts
            run, self._longest_run = max(self._run, self._longest_run), 0
        return {
            "ng_rate": [rate],
            "ng_consecutive": [float(run)],
            "image_quality": quality,
            "inference_slow": slowness,
            "score_drift": [_drift(scores, good, parts)],
        }

    def _note_decision(self, decision: Decision) -> None:
        if decision.judged in DECIDED or decision.cause in _HELD:
            self._unjudged = 0
            return
        if not self._unjudged:
            self._why = decision.cause, decision.reason
        self._unjudged += 1

    def _note_score(self, score: float, record: CalibrationRecord) -> None:
        good = tuple(record.good.values())
        if good != self._good:
            self._good, self._good_parts = good, record.good_parts
            self._scores.clear()  # those of other thresholds, or of another model
        self._scores.append(score)


def _drift(scores: Sequence[float], good: Sequence[float], parts: int) -> float | None:
    """How far the scores have moved, as far as chance does not explain it; `None` with too few to tell."""
    psi = population_stability(np.array(good), np.array(scores), parts=parts)
    return None if psi.word == "unknown" or len(scores) < _DRIFT_PARTS else psi.beyond_chance
