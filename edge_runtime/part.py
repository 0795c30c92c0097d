"""One part with its decision, and as a row of the store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.region import Region
from kenpin.record import CalibrationRecord


@dataclass(frozen=True)
class Part:
    """One part with its decision, as it is stored.

    Attributes:
        part_id: Identity of the part.
        camera: Name of the camera or source.
        session_id: Start of the station it belongs to.
        ts_ms: UTC of the exposure, milliseconds since 1970.
        captured_ns: Monotonic clock at the exposure, nanoseconds.
        decision: The verdict and what it rests on.
        infer_ms: Time the engine took; 0 where it did not run.
        model: What scored it.
        record: What judged it.
        trigger_id: Number of its trigger; `None` where nobody counts triggers.
        frame_id: Number of the deciding frame; `None` without a frame.
        region: The strangest place; `None` where nothing was scored or the part is OK.
        image_ref: Where its picture will be, below the folder of pictures; empty if none is kept.
        light: Mean grey of the first camera's frame, whichever camera decides, as the limits were learned on
            that; `None` where it was not measured.
        focus: Focus of the same frame, as in `kenpin.quality.Quality`.
        decided_mono_ns: Monotonic clock at the decision, nanoseconds.
        decided_ns: UTC of the decision, nanoseconds since 1970.
    """

    part_id: str
    camera: str
    session_id: str
    ts_ms: int
    captured_ns: int
    decision: Decision
    infer_ms: float = 0.0
    model: Model | None = None
    record: CalibrationRecord | None = None
    trigger_id: int | None = None
    frame_id: int | None = None
    region: Region | None = None
    image_ref: str = ""
    light: float | None = None
    focus: float | None = None
    decided_mono_ns: int = field(default_factory=time.monotonic_ns)
    decided_ns: int = field(default_factory=time.time_ns)

    @property
    def latency_ms(self) -> float:
        """From the exposure to the decision."""
        return (self.decided_mono_ns - self.captured_ns) / 1e6

    def withheld(self, reason: str, cause: str) -> Part:
        """The same part after something failed that an OK needs."""
        decision = Decision(Verdict.NO_DECISION, reason, self.decision.scored, cause)
        return replace(self, decision=decision)


def part_row(part: Part) -> dict[str, object]:
    """Column by column, without its number."""
    scored, model, record = part.decision.scored, part.model, part.record
    levels = scored.level_scores if scored else (None, None, None)
    region = part.region
    return {
        "part_id": part.part_id,
        "camera": part.camera,
        "session_id": part.session_id,
        "ts_ms": part.ts_ms,
        "captured_mono_ns": part.captured_ns,
        "decided_mono_ns": part.decided_mono_ns,
        "decided_ns": part.decided_ns,
        "verdict": part.decision.verdict.value,
        "reason": part.decision.reason,
        "score": scored.score if scored else None,
        **dict(zip(("score_coarse", "score_mid", "score_fine"), levels, strict=True)),
        "t1": record.t1 if record else None,
        "t2": record.t2 if record else None,
        "threshold_rev": record.rev if record else None,
        "bundle_sha256": model.bundle_sha256 if model else None,
        "infer_ms": part.infer_ms,
        "latency_ms": part.latency_ms,
        "trigger_id": part.trigger_id,
        "frame_id": part.frame_id,
        "cause": part.decision.cause,
        "level": part.decision.level,
        "roi_x_px": region.x if region else None,
        "roi_y_px": region.y if region else None,
        "roi_w_px": region.width if region else None,
        "roi_h_px": region.height if region else None,
        "area_px": region.area if region else None,
        "image_ref": part.image_ref,
        "light": part.light,
        "focus": part.focus,
    }
