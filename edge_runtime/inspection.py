"""The inspection of one part: frame -> engine -> decision -> event. It never raises."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

from kenpin.edge_runtime import announce
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Decision, Verdict, decide
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.source import Fault
from kenpin.edge_runtime.store import Part
from kenpin.errors import DeviceLost, KenpinError
from kenpin.events import Anomaly
from kenpin.frame import Frame

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspection:
    """A part with its decision, and the event it causes: NG and REVIEW do.

    Attributes:
        part: What will be stored.
        event: What will be published with it.
    """

    part: Part
    event: Anomaly | None = None

    def without_decision(self, reason: str) -> Inspection:
        """The same part after something failed that an OK needs."""
        decision = Decision(Verdict.NO_DECISION, reason, self.part.decision.scored)
        return Inspection(replace(self.part, decision=decision))


class Judge:
    """Decides on parts.

    Args:
        ready: What the station found at its start.
        identity: Who speaks in the events.
        counters: Know the share of NG.
        timeout_ms: An OK later than this after the exposure becomes NO_DECISION.

    Attributes:
        lost: Why this process can judge no part any more; the part in hand still gets its verdict.
    """

    def __init__(self, ready: Readiness, identity: Identity, counters: Counters, *, timeout_ms: int) -> None:
        self._ready = ready
        self._identity = identity
        self._counters = counters
        self._timeout_ms = timeout_ms
        self.lost: DeviceLost | None = None

    def inspect(self, item: Frame | Fault) -> Inspection:
        """Decide on one part. Whatever goes wrong, the answer is a verdict, and it is not OK."""
        if isinstance(item, Fault):
            return Inspection(self._part(item, Decision(item.verdict, item.reason)))
        try:
            return self._decided(item)
        except KenpinError as error:
            reason = error.what
            if isinstance(error, DeviceLost):
                self.lost = error
        except Exception as error:
            _log.exception("Part %s could not be inspected.", item.part_id)
            reason = f"internal error: {type(error).__name__}: {error}"
        return Inspection(self._part(item, Decision(Verdict.NO_DECISION, reason)))

    def too_late(self, part: Part) -> str:
        """Why it is too late for an OK now, in words; empty in time. A late OK would release the next part."""
        age_ms = (time.monotonic_ns() - part.captured_ns) / 1e6
        return f"not done within {self._timeout_ms} ms of the exposure" if age_ms > self._timeout_ms else ""

    def _decided(self, frame: Frame) -> Inspection:
        ready = self._ready
        if ready.engine is None:
            return Inspection(self._part(frame, Decision(Verdict.NO_DECISION, ready.fault)))
        start_ns = time.monotonic_ns()
        scored = ready.engine.score(frame.image)
        infer_ms = (time.monotonic_ns() - start_ns) / 1e6
        decision = decide(scored, ready.model, ready.record)
        if ready.fault:
            # Scored all the same: thresholds can be fitted to stored scores.
            decision = Decision(Verdict.NO_DECISION, ready.fault, scored)
        part = self._part(frame, decision, infer_ms=infer_ms)
        if decision.verdict not in (Verdict.NG, Verdict.REVIEW):
            return Inspection(part)
        ng_rate = self._counters.ng_rate_with(decision.verdict)
        return Inspection(part, announce.anomaly(self._identity, part, frame, ng_rate=ng_rate))

    def _part(self, item: Frame | Fault, decision: Decision, *, infer_ms: float = 0.0) -> Part:
        return Part(
            part_id=item.part_id,
            camera=item.camera,
            session_id=self._identity.session_id,
            ts_ms=item.ts_ms,
            captured_ns=item.captured_ns,
            decision=decision,
            infer_ms=infer_ms,
            model=self._ready.model,
            record=self._ready.record,
        )
