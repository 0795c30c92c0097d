"""What a station publishes: flat JSON objects, every key always there, never null, list or NaN.

These models are the one source of the payloads. Units stand in the names.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_BYTES = 8192


class _Payload(BaseModel):
    """Fields that every payload has.

    Attributes:
        id: Unique, ordered by time (UUID version 7); subscribers drop what they have seen.
        seq: Number of the event, per station, never reused, so that a gap shows; 0 in status and kpi.
        ts_ms: UTC of the exposure or of the condition, milliseconds since 1970.
        ts: The same as RFC 3339.
        clock_ok: False while the station's clock is not synchronised.
        late: True for an event that waited because the broker was away.
        station: The station's id.
        session_id: Changes with each start of the station.
        test: True for drawn parts and trial runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings", allow_inf_nan=False)

    topic: ClassVar[str]

    id: str
    seq: int = 0
    ts_ms: int
    ts: str
    clock_ok: bool = True
    late: bool = False
    station: str
    session_id: str
    test: bool = False

    def to_json(self) -> bytes:
        """UTF-8 JSON in the order of the fields, at most 8 KiB."""
        body = json.dumps(self.model_dump(mode="json", by_alias=True), separators=(",", ":"), allow_nan=False)
        assert len(body) <= MAX_BYTES
        return body.encode()


class Anomaly(_Payload):
    """A part that did not pass: NG or REVIEW.

    Attributes:
        score: The part's anomaly score; raw, comparable with `threshold` only.
        threshold: The limit that was exceeded: T2 for NG, T1 for REVIEW.
        margin: score - threshold.
        threshold_rev: Revision of the calibration record.
        level: The level with the highest score relative to the others of good parts.
        severity: 1 to 1000, the scale of OPC UA.
        roi_x_px: Left edge of the anomaly in the frame; the box covers the hottest region.
        area_px: Area of the hottest region in frame pixels.
        area_mm2: 0 while `mm_calibrated` is false.
        infer_ms: Time the engine took.
        capture_to_publish_ms: From exposure to the hand-over to the broker.
        image_ref: Relative path of the evidence picture, empty if none was kept.
        ng_rate_window: Share of NG among the last 100 decided parts.
    """

    topic: ClassVar[str] = "event/anomaly"

    schema_: Literal["kenpin.anomaly.v1"] = Field(default="kenpin.anomaly.v1", alias="schema")
    camera: str
    part_id: str
    batch: str = ""
    recipe: str = ""
    model_id: str
    model_sha256: str
    engine_precision: Literal["int8", "fp16", "fp32"]
    threshold_rev: int
    verdict: Literal["NG", "REVIEW"]
    score: float
    threshold: float
    margin: float
    score_coarse: float
    score_mid: float
    score_fine: float
    level: Literal["coarse", "mid", "fine"]
    defect_class: str = ""
    severity: int = Field(ge=1, le=1000)
    roi_x_px: int
    roi_y_px: int
    roi_w_px: int
    roi_h_px: int
    area_px: int
    area_mm2: float = 0.0
    mm_calibrated: bool = False
    infer_ms: float
    capture_to_publish_ms: float = 0.0
    image_sha256: str = ""
    image_ref: str = ""
    ng_rate_window: float


class Status(_Payload):
    """Whether the station lives; retained, and the same topic is its last will.

    Attributes:
        reason: Why it is not RUNNING; `lwt` in the last will, `shutdown` after a clean stop.
        connected_ms: UTC of the connection. The last will is fixed then and can carry no later time.
    """

    topic: ClassVar[str] = "status"

    schema_: Literal["kenpin.status.v1"] = Field(default="kenpin.status.v1", alias="schema")
    online: bool
    state: Literal["STARTING", "RUNNING", "PAUSED", "CALIBRATING", "DEGRADED", "FAULT", "STOPPED"]
    reason: str = ""
    connected_ms: int
    sw_version: str


class Kpi(_Payload):
    """Counters and times since the start of the station, every ten seconds."""

    topic: ClassVar[str] = "kpi"

    schema_: Literal["kenpin.kpi.v1"] = Field(default="kenpin.kpi.v1", alias="schema")
    parts_total: int
    ok_total: int
    review_total: int
    ng_total: int
    missed_total: int
    no_decision_total: int
    ng_rate: float
    fps: float
    infer_ms_p50: float
    infer_ms_p99: float
    latency_ms_p99: float
    gpu_temp_c: float = 0.0
    power_w: float = 0.0
    score_psi: float = 0.0
    outbox_depth: int
    outbox_bytes: int
    outbox_oldest_s: float
    outbox_dropped_total: int
    broker_rejected_total: int
    no_subscriber_total: int
    reconnects_total: int


def uuid7(ts_ms: int) -> str:
    """A UUID version 7 (RFC 9562): 48 bits of milliseconds, then random bits."""
    value = bytearray(ts_ms.to_bytes(6, "big") + os.urandom(10))
    value[6] = value[6] & 0x0F | 0x70
    value[8] = value[8] & 0x3F | 0x80
    digits = value.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def now_ms() -> int:
    """UTC, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def rfc3339(ts_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(ts_ms // 1000, tz=timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ts_ms % 1000:03d}Z"
