"""The inspection of one part: frames -> gate -> engine -> decision -> event. It never raises."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kenpin.cutout import Cutout
from kenpin.edge_runtime import announce
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Decision, Verdict, decide
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.region import Region
from kenpin.edge_runtime.source import Fault
from kenpin.errors import DeviceLost, KenpinError
from kenpin.events import Anomaly
from kenpin.frame import Frame, Image
from kenpin.quality import Quality

# The worst view of a part decides: bad is bad, whatever the other cameras say, and OK needs all of them.
_WORSE = (Verdict.OK, Verdict.REVIEW, Verdict.NO_DECISION, Verdict.MISSED, Verdict.NG)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspection:
    """A part with its decision, and the event it causes: NG and REVIEW do.

    Attributes:
        part: What will be stored.
        event: What will be published with it.
        image: The deciding frame's picture; `None` without a frame.
        cutout: What of it the anomaly map covers; `None` without a map.
        quality: Of the first camera's frame, whichever decides: the limits are its own; `None` = not measured.
    """

    part: Part
    event: Anomaly | None = None
    image: Image | None = None
    cutout: Cutout | None = None
    quality: Quality | None = None

    def without_decision(self, reason: str, cause: str) -> Inspection:
        """The same part after something failed that an OK needs."""
        return replace(self, part=self.part.withheld(reason, cause), event=None)


@dataclass(frozen=True)
class _Judged:
    """One view of a part."""

    item: Frame | Fault
    decision: Decision
    infer_ms: float = 0.0
    region: Region | None = None
    cutout: Cutout | None = None
    quality: Quality | None = None


def _worst(judged: Sequence[_Judged]) -> _Judged:
    def badness(view: _Judged) -> tuple[int, float]:
        scored = view.decision.scored
        return _WORSE.index(view.decision.verdict), scored.score if scored else 0.0

    return max(judged, key=badness)


@dataclass(frozen=True)
class Desk:
    """What a judge works with.

    Attributes:
        ready: What the station found.
        look: Looks at a frame before the engine does.
        identity: Who speaks in the events.
        counters: Know the share of NG.
        timeout_ms: An OK later than this after the exposure becomes NO_DECISION.
        image_ref: Names the picture that will be kept of a part; empty if none is.
    """

    ready: Readiness
    look: Look
    identity: Identity
    counters: Counters
    timeout_ms: int
    image_ref: Callable[[Verdict], str] = field(default=lambda _verdict: "")


class Judge:
    """Decides on parts.

    Args:
        desk: What it works with.

    Attributes:
        ready: What judges.
        look: Looks at a frame before.
        lost: Why this process can judge no part any more; the part in hand still gets its verdict.
    """

    def __init__(self, desk: Desk) -> None:
        self.ready = desk.ready
        self.look = desk.look
        self.lost: DeviceLost | None = None
        self._desk = desk

    def inspect(self, shot: Shot) -> Inspection:
        """Decide on one part. Whatever goes wrong, the answer is a verdict, and it is not OK."""
        judged = [self._judge(item) for item in shot.views]
        worst = _worst(judged)
        quality = judged[0].quality
        part = self._part(shot, worst, quality)
        image = worst.item.image if isinstance(worst.item, Frame) else None
        event = None
        if part.decision.verdict in (Verdict.NG, Verdict.REVIEW):
            ng_rate = self._desk.counters.ng_rate_with(part.decision.verdict)
            event = announce.anomaly(self._desk.identity, part, ng_rate=ng_rate)
        return Inspection(part, event, image, worst.cutout, quality)

    def decide(self, shot: Shot) -> Decision:
        """The decision alone, for who only watches: no event is made of it, and no picture named for it."""
        return _worst([self._judge(item) for item in shot.views]).decision

    def too_late(self, part: Part) -> str:
        """Why it is too late for an OK now, in words; empty in time. A late OK would release the next part."""
        age_ms = (time.monotonic_ns() - part.captured_ns) / 1e6
        limit_ms = self._desk.timeout_ms
        return f"not done within {limit_ms} ms of the exposure" if age_ms > limit_ms else ""

    def _judge(self, item: Frame | Fault) -> _Judged:
        if isinstance(item, Fault):
            return _Judged(item, Decision(item.verdict, item.reason, cause="source"))
        try:
            return self._decided(item)
        except KenpinError as error:
            reason = error.what
            if isinstance(error, DeviceLost):
                self.lost = error
        except Exception as error:
            _log.exception("Part %r could not be inspected.", item.part_id)
            reason = f"internal error: {type(error).__name__}: {error}"
        return _Judged(item, Decision(Verdict.NO_DECISION, reason, cause="engine"))

    def _decided(self, frame: Frame) -> _Judged:
        ready = self.ready
        seen = self.look.at(frame)
        if seen.finding or ready.engine is None:
            reason, cause = seen.finding or ready.fault, seen.cause or "not_ready"
            return _Judged(frame, Decision(Verdict.NO_DECISION, reason, cause=cause), quality=seen.quality)
        start_ns = time.monotonic_ns()
        scored = ready.engine.score(seen.image)
        infer_ms = (time.monotonic_ns() - start_ns) / 1e6
        decision = decide(scored, ready.model, ready.record)
        if ready.fault:
            # Scored all the same: thresholds can be fitted to stored scores.
            decision = Decision(Verdict.NO_DECISION, ready.fault, scored, ready.cause)
        stuck = self.look.stuck(frame.camera, scored.score)
        if stuck:
            decision = Decision(Verdict.NO_DECISION, stuck, scored, "score")
        region = None
        if decision.verdict in (Verdict.NG, Verdict.REVIEW):
            region = seen.region(scored.anomaly_map)
        return _Judged(frame, decision, infer_ms, region, seen.cutout, seen.quality)

    def _part(self, shot: Shot, judged: _Judged, quality: Quality | None) -> Part:
        item, ready = judged.item, self.ready
        return Part(
            part_id=shot.part_id,
            camera=item.camera,
            session_id=self._desk.identity.session_id,
            ts_ms=item.ts_ms,
            captured_ns=item.captured_ns,
            decision=judged.decision,
            infer_ms=judged.infer_ms,
            model=ready.model,
            record=ready.record,
            trigger_id=shot.trigger_id,
            frame_id=item.frame_id if isinstance(item, Frame) else None,
            region=judged.region,
            image_ref=self._desk.image_ref(judged.decision.verdict) if isinstance(item, Frame) else "",
            light=quality.light if quality else None,
            focus=quality.focus if quality else None,
        )
