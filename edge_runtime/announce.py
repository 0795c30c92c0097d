"""The station's payloads, filled in."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

from kenpin import __version__
from kenpin.edge_runtime.clock import clock_is_synchronised
from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.outbox import Depth
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.room import Gap
from kenpin.edge_runtime.traffic import Traffic
from kenpin.events import Anomaly, Audit, CameraLast, Kpi, PartResult, Status, now_ms, rfc3339, uuid7

State = Literal["STARTING", "RUNNING", "PAUSED", "CALIBRATING", "DEGRADED", "FAULT", "STOPPED"]
# An event has to fit into 8 KiB; the end of a path tells more than its start.
_MAX_ID_CHARS = 200
_MAX_REASON_CHARS = 500
_NO_LEVEL_CHARACTER = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass
class Identity:
    """Who speaks; one for all that speak in a process.

    Attributes:
        station: The station's id.
        test: Whether the parts are drawn ones.
        session_id: This start of the station.
    """

    station: str
    test: bool = False
    session_id: str = field(default_factory=lambda: uuid7(now_ms()))

    def follow(self, session_id: str, *, test: bool) -> bool:
        """Speak of another start of the station; whether it is another one.

        Args:
            session_id: Of that start.
            test: Whether its parts are drawn ones.
        """
        before, self.session_id, self.test = (self.session_id, self.test), session_id, test
        return before != (session_id, test)

    def common(self, ts_ms: int) -> dict[str, Any]:
        """Fields that every payload has.

        Args:
            ts_ms: UTC of the exposure or of the condition, milliseconds since 1970.
        """
        return {
            "id": uuid7(now_ms()),
            "ts_ms": ts_ms,
            "ts": rfc3339(ts_ms),
            "clock_ok": clock_is_synchronised(),
            "station": self.station,
            "session_id": self.session_id,
            "test": self.test,
        }


def anomaly(identity: Identity, part: Part, *, ng_rate: float) -> Anomaly:
    """The event of a part judged NG or REVIEW.

    Args:
        identity: Who speaks.
        part: The part; its decision has scores, a model, a record and a region.
        ng_rate: Share of NG among the last decided parts.
    """
    scored, model, record, region = part.decision.scored, part.model, part.record, part.region
    level = part.decision.level
    assert scored is not None
    assert region is not None
    assert level
    assert model is not None
    assert record is not None
    return Anomaly(
        **identity.common(part.ts_ms),
        camera=part.camera,
        part_id=part.part_id[-_MAX_ID_CHARS:],
        model_id=model.name,
        model_sha256=model.bundle_sha256[:16],
        engine_precision=model.precision,
        threshold_rev=record.rev,
        verdict="NG" if part.decision.verdict is Verdict.NG else "REVIEW",
        **_held_against(part),
        score_coarse=scored.level_scores[0],
        score_mid=scored.level_scores[1],
        score_fine=scored.level_scores[2],
        level=level,
        roi_x_px=region.x,
        roi_y_px=region.y,
        roi_w_px=region.width,
        roi_h_px=region.height,
        area_px=region.area,
        infer_ms=part.infer_ms,
        image_ref=part.image_ref,
        ng_rate_window=ng_rate,
    )


def result(identity: Identity, part: Part, *, ng_rate: float) -> PartResult:
    """What became of a part, whatever it is.

    Args:
        identity: Who speaks.
        part: The part.
        ng_rate: Share of NG among the last decided parts.
    """
    scored, model, decision = _scores(part), part.model, part.decision
    levels = scored.level_scores if scored is not None else (0.0, 0.0, 0.0)
    return PartResult(
        **identity.common(part.ts_ms),
        camera=part.camera,
        part_id=part.part_id[-_MAX_ID_CHARS:],
        trigger_id=-1 if part.trigger_id is None else part.trigger_id,
        model_id=model.name if model else "",
        model_sha256=model.bundle_sha256[:16] if model else "",
        engine_precision=model.precision if model else "",
        threshold_rev=part.record.rev if part.record else 0,
        verdict=decision.verdict.value,
        reason=decision.reason[:_MAX_REASON_CHARS],
        cause=decision.cause,
        **_held_against(part),
        score_coarse=levels[0],
        score_mid=levels[1],
        score_fine=levels[2],
        level=decision.level if scored is not None else "",
        infer_ms=part.infer_ms,
        image_ref=part.image_ref,
        ng_rate_window=ng_rate,
    )


def camera_level(name: str) -> str:
    """A camera's name as a level of a topic."""
    return _NO_LEVEL_CHARACTER.sub("_", name)[:64]


def camera_last(identity: Identity, part: Part) -> CameraLast:
    """The last part of a camera, for a tile on a screen."""
    return CameraLast(
        **identity.common(part.ts_ms),
        camera=camera_level(part.camera),
        part_id=part.part_id[-_MAX_ID_CHARS:],
        model_id=part.model.name if part.model else "",
        threshold_rev=part.record.rev if part.record else 0,
        verdict=part.decision.verdict.value,
        reason=part.decision.reason[:_MAX_REASON_CHARS],
        **_held_against(part),
        infer_ms=part.infer_ms,
        image_ref=part.image_ref,
    )


def gap(identity: Identity, lost: Gap) -> Audit:
    """Events were thrown away before the broker had them."""
    return Audit(
        **identity.common(now_ms()),
        kind="gap",
        actor="station",
        subject=lost.topic,
        reason="the room for events was used up, or they could not be read any more",
        gap_first_seq=lost.first_seq,
        gap_last_seq=lost.last_seq,
        gap_count=lost.count,
    )


def severity(score: float, *, good: float, t2: float) -> int:
    """How bad, 1 to 1000 on the scale of OPC UA: 500 at T2, 1000 at twice T2's distance from a good part.

    Args:
        score: The part's score.
        good: Score of a usual good part.
        t2: Scores from here on are NG.
    """
    reach = t2 - good
    if reach <= 0:
        return 1000 if score >= t2 else 500
    return int(min(1000.0, max(1.0, 500 * (score - good) / reach)))


def _scores(part: Part) -> Scored | None:
    """The scores, where they are numbers: JSON knows no NaN."""
    scored = part.decision.scored
    return scored if scored is not None and scored.is_finite else None


def _severity(part: Part) -> int:
    scored, record = _scores(part), part.record
    if scored is None or record is None:
        return 1
    good = statistics.median([*record.good.values()] or [record.t1])
    return severity(scored.score, good=good, t2=record.t2)


def _held_against(part: Part) -> dict[str, Any]:
    """Score, limit and what follows from them."""
    scored, record = _scores(part), part.record
    score = threshold = 0.0
    if scored is not None:
        score = scored.score
        is_ng = part.decision.verdict is Verdict.NG
        threshold = 0.0 if record is None else record.t2 if is_ng else record.t1
    return {
        "score": score,
        "threshold": threshold,
        "margin": score - threshold,
        "severity": _severity(part),
    }


def status(
    identity: Identity, how: tuple[State, str], *, online: bool, connected_ms: int, insecure: bool
) -> Status:
    """Whether the station lives.

    Args:
        identity: Who speaks.
        how: How the station is, and why.
        online: Whether it is there.
        connected_ms: UTC of the connection, milliseconds since 1970.
        insecure: Whether others may be able to read or forge what is said.
    """
    state, reason = how
    return Status(
        **identity.common(now_ms()),
        online=online,
        state=state,
        reason=reason[:_MAX_REASON_CHARS],
        connected_ms=connected_ms,
        insecure=insecure,
        sw_version=__version__,
    )


def kpi(identity: Identity, now: Snapshot, depth: Depth, traffic: Traffic, *, fps: float) -> Kpi:
    """Counters and times since the start of the station.

    Args:
        identity: Who speaks.
        now: The line's counters.
        depth: How full the outbox is.
        traffic: The publisher's counters.
        fps: Parts per second since the last kpi.
    """
    return Kpi(
        **identity.common(now_ms()),
        parts_total=now.total,
        ok_total=now.parts[Verdict.OK],
        review_total=now.parts[Verdict.REVIEW],
        ng_total=now.parts[Verdict.NG],
        missed_total=now.parts[Verdict.MISSED],
        no_decision_total=now.parts[Verdict.NO_DECISION],
        ng_rate=now.ng_rate,
        fps=fps,
        infer_ms_p50=now.infer_ms_p50,
        infer_ms_p99=now.infer_ms_p99,
        latency_ms_p99=now.latency_ms_p99,
        gpu_temp_c=now.temperature_c,
        power_w=now.power_w,
        score_psi=now.score_psi,
        outbox_depth=depth.waiting,
        outbox_bytes=depth.bytes,
        outbox_oldest_s=depth.oldest_s,
        outbox_dropped_total=depth.dropped,
        broker_rejected_total=traffic.rejected,
        no_subscriber_total=traffic.no_subscriber,
        reconnects_total=max(0, traffic.connections - 1),
    )
