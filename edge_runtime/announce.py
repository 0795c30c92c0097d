"""The station's payloads, filled in: anomaly, status and kpi."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

from kenpin import __version__
from kenpin.edge_runtime.clock import clock_is_synchronised
from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.delivery import Traffic
from kenpin.edge_runtime.outbox import Depth
from kenpin.edge_runtime.store import Part
from kenpin.events import Anomaly, Kpi, Status, now_ms, rfc3339, uuid7

State = Literal["STARTING", "RUNNING", "DEGRADED", "FAULT", "STOPPED"]
# An event has to fit into 8 KiB; the end of a path tells more than its start.
_MAX_ID_CHARS = 200


@dataclass(frozen=True)
class Identity:
    """Who speaks.

    Attributes:
        station: The station's id.
        test: Whether the parts are drawn ones.
        session_id: This start of the station.
    """

    station: str
    test: bool = False
    session_id: str = field(default_factory=lambda: uuid7(now_ms()))

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
    is_ng = part.decision.verdict is Verdict.NG
    threshold = record.t2 if is_ng else record.t1
    return Anomaly(
        **identity.common(part.ts_ms),
        camera=part.camera,
        part_id=part.part_id[-_MAX_ID_CHARS:],
        model_id=model.name,
        model_sha256=model.bundle_sha256[:16],
        engine_precision=model.precision,
        threshold_rev=record.rev,
        verdict="NG" if is_ng else "REVIEW",
        score=scored.score,
        threshold=threshold,
        margin=scored.score - threshold,
        score_coarse=scored.level_scores[0],
        score_mid=scored.level_scores[1],
        score_fine=scored.level_scores[2],
        level=level,
        severity=severity(
            scored.score, good=statistics.median([*record.good.values()] or [record.t1]), t2=record.t2
        ),
        roi_x_px=region.x,
        roi_y_px=region.y,
        roi_w_px=region.width,
        roi_h_px=region.height,
        area_px=region.area,
        infer_ms=part.infer_ms,
        image_ref=part.image_ref,
        ng_rate_window=ng_rate,
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


def status(identity: Identity, state: State, reason: str, *, online: bool, connected_ms: int) -> Status:
    """Whether the station lives."""
    return Status(
        **identity.common(now_ms()),
        online=online,
        state=state,
        reason=reason,
        connected_ms=connected_ms,
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
        outbox_depth=depth.waiting,
        outbox_bytes=depth.bytes,
        outbox_oldest_s=depth.oldest_s,
        outbox_dropped_total=depth.dropped,
        broker_rejected_total=traffic.rejected,
        no_subscriber_total=traffic.no_subscriber,
        reconnects_total=max(0, traffic.connections - 1),
    )
