"""What a station publishes: flat JSON objects, every key always there, never null, list or NaN.

These models are the one source of the payloads: docs/schemas and docs/asyncapi.json are written from them by
`python scripts/event_docs.py`. Units stand in the names.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from typing import ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from kenpin.errors import KenpinError

MAX_BYTES = 8192


Level: TypeAlias = Literal["coarse", "mid", "fine"]
AlarmState: TypeAlias = Literal[
    "NORM",
    "UNACK",
    "ACKED",
    "RTN_UNACK",
    "LATCH_UNACK",
    "LATCH_ACKED",
    "SHELVED",
    "SUPPRESSED",
    "OUT_OF_SERVICE",
]


class Payload(BaseModel):
    """Fields that every payload has.

    Attributes:
        schema_: Kind and version of the payload.
        id: Unique, ordered by time (UUID version 7); subscribers drop what they have seen.
        seq: Number of the event, per station, never reused, so that a gap shows; 0 in what is no event.
        ts_ms: UTC of the exposure or of the condition, milliseconds since 1970.
        ts: The same as RFC 3339.
        clock_ok: False while the station's clock is not synchronised.
        late: True for an event that waited because the broker was away, or that was asked for once more.
        station: The station's id.
        session_id: Changes with each start of the station.
        test: True for drawn parts and trial runs.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )

    topic: ClassVar[str]  # below the station's prefix; {field} stands for the value of a field
    title: ClassVar[str]  # names the schema in the docs
    expiry_s: ClassVar[int] = 0  # MQTT 5: how long a broker may keep it for somebody; 0 = for ever

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
        """UTF-8 JSON in the order of the fields, at most 8 KiB.

        Raises:
            KenpinError: It would be larger.
        """
        body = json.dumps(self.model_dump(mode="json", by_alias=True), separators=(",", ":"), allow_nan=False)
        if len(body) > MAX_BYTES:
            raise KenpinError(
                f"a message of {len(body)} bytes is too long to be sent",
                where=self.topic,
                cure=f"shorten its texts; {MAX_BYTES} bytes are the limit",
            )
        return body.encode()

    @property
    def address(self) -> str:
        """Its topic below the station's prefix."""
        return self.topic.format_map(self.model_dump())


class Judged(Payload):
    """What is said of a judged part, as anomaly and as result.

    Attributes:
        camera: Which camera; of a part with several views that of the worst one, which decides.
        part_id: What the trigger called it, or the station's own number for it.
        batch: Not set yet.
        recipe: Not set yet; `model_id` tells products apart.
        model_id: Name of the bundle.
        model_sha256: First 16 digits of its SHA-256; all of them are in `meta`.
        threshold_rev: Revision of the calibration record.
        score: The part's anomaly score; raw, comparable with `threshold` only.
        threshold: The limit that it was held against: T1, and for NG T2.
        margin: score - threshold.
        score_coarse: The same for deviations of the whole part; the worst place of one good part in ten
            reaches 1.
        score_mid: For middle-sized ones, in the same unit.
        score_fine: For small ones, in the same unit.
        defect_class: Always empty: kinds of defects are not told apart.
        severity: 1 to 1000, the scale of OPC UA: 500 at T2, 1000 at twice its distance from a good part.
        infer_ms: Time the engine took.
        capture_to_publish_ms: From exposure to the hand-over to the broker.
        image_sha256: Always empty: the picture is written after the event, and its hash is in the store.
        image_ref: Relative path of the evidence picture, empty if none was kept.
        ng_rate_window: Share of NG among the last 100 decided parts.
    """

    camera: str
    part_id: str
    batch: str = ""
    recipe: str = ""
    model_id: str
    model_sha256: str
    threshold_rev: int
    score: float
    threshold: float
    margin: float
    score_coarse: float
    score_mid: float
    score_fine: float
    defect_class: str = ""
    severity: int = Field(ge=1, le=1000)
    infer_ms: float
    capture_to_publish_ms: float = 0.0
    image_sha256: str = ""
    image_ref: str = ""
    ng_rate_window: float


class Anomaly(Judged):
    """A part that did not pass: NG or REVIEW.

    Attributes:
        engine_precision: What the engine calculates in.
        verdict: NG from T2 on, REVIEW between T1 and T2.
        level: The level with the highest score relative to the others of good parts.
        roi_x_px: Left edge of the anomaly in the frame; the box covers the hottest region.
        roi_y_px: Its upper edge.
        roi_w_px: Its width.
        roi_h_px: Its height.
        area_px: Area of the hottest region in frame pixels.
        area_mm2: 0 while `mm_calibrated` is false.
        mm_calibrated: Always false: the size of a pixel is not known yet.
    """

    topic: ClassVar[str] = "event/anomaly"
    title: ClassVar[str] = "anomaly"

    schema_: Literal["kenpin.anomaly.v1"] = Field(default="kenpin.anomaly.v1", alias="schema")
    engine_precision: Literal["int8", "fp16", "fp32"]
    verdict: Literal["NG", "REVIEW"]
    level: Level
    roi_x_px: int
    roi_y_px: int
    roi_w_px: int
    roi_h_px: int
    area_px: int
    area_mm2: float = 0.0
    mm_calibrated: bool = False


class PartResult(Judged):
    """What became of a part, whatever the verdict; where two are there of a part, the later one counts.

    Where the part was not scored, scores and limit are 0 and the level is empty; the model is the active one.

    Attributes:
        trigger_id: Number of its trigger; -1 where nobody counts them.
        engine_precision: What the engine calculates in; empty where there is none.
        verdict: Only OK releases the part. MISSED: there was no picture of it; NO_DECISION: it could not be
            judged.
        level: The level with the highest score relative to the others of good parts.
        reason: Why there is none of OK, REVIEW and NG, in words; empty for those.
        cause: The reason as one word of a fixed list.
    """

    topic: ClassVar[str] = "event/result"
    title: ClassVar[str] = "result"

    schema_: Literal["kenpin.result.v1"] = Field(default="kenpin.result.v1", alias="schema")
    trigger_id: int = -1
    engine_precision: Literal["int8", "fp16", "fp32", ""]
    verdict: Literal["OK", "REVIEW", "NG", "MISSED", "NO_DECISION"]
    reason: str = ""
    cause: str = ""
    level: Level | Literal[""]


class CameraLast(Payload):
    """The last part that a camera decided, for a tile on a screen; retained, at most once a second.

    Where the part was not scored, score and limit are 0.

    Attributes:
        camera: Which camera.
        part_id: What the trigger called the part, or the station's own number for it.
        model_id: Name of the bundle.
        threshold_rev: Revision of the calibration record.
        verdict: Only OK releases the part. MISSED: there was no picture of it; NO_DECISION: it could not be
            judged.
        reason: Why there is none of OK, REVIEW and NG, in words; empty for those.
        score: The part's anomaly score; raw, comparable with `threshold` only.
        threshold: The limit that it was held against: T1, and for NG T2.
        margin: score - threshold.
        severity: 1 to 1000, the scale of OPC UA: 500 at T2, 1000 at twice its distance from a good part.
        infer_ms: Time the engine took.
        image_ref: Relative path of the evidence picture, empty if none was kept.
    """

    topic: ClassVar[str] = "camera/{camera}/last"
    title: ClassVar[str] = "camera_last"

    schema_: Literal["kenpin.camera_last.v1"] = Field(default="kenpin.camera_last.v1", alias="schema")
    camera: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    part_id: str
    model_id: str
    threshold_rev: int
    verdict: Literal["OK", "REVIEW", "NG", "MISSED", "NO_DECISION"]
    reason: str = ""
    score: float
    threshold: float
    margin: float
    severity: int = Field(ge=1, le=1000)
    infer_ms: float
    image_ref: str = ""


class AlarmFields(Payload):
    """How an alarm stands, in the shape of ISA-18.2.

    Attributes:
        alarm: Its key, from a fixed list (`alarm_keys` in `meta`).
        state: State of ISA-18.2. RTN_UNACK: it went away before anybody acknowledged it; LATCH_...: it went
            away and waits for a reset.
        active: The condition holds now, shelved or not.
        acked: Nothing waits for an acknowledgement.
        latched: The condition is over; the alarm waits for a reset.
        shelved: Silenced by somebody, until `shelved_until_ms`.
        suppressed: Silenced by design.
        out_of_service: Taken out of service for maintenance.
        priority: 0 diagnostic, 1 low, 2 medium, 3 high, 4 critical: the numbers of Ignition.
        severity: 1 to 1000, the scale of OPC UA.
        value: The latest measure of the condition.
        limit: From this value on it is raised.
        deadband: It is over below `limit` - `deadband`.
        unit: Of these three.
        raised_ms: UTC, milliseconds since 1970; 0 = never, as in the other times.
        acked_ms: When it was last acknowledged.
        cleared_ms: When the condition was last over.
        shelved_until_ms: When it comes back from the shelf; 0 = it is not there.
        acked_by: Who acknowledged it.
        occurrence: How often it was raised.
        chattering: It comes and goes: it was raised three times within a minute.
        message: What is wrong.
        operator_action: What to do about it.
    """

    alarm: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    state: AlarmState
    active: bool
    acked: bool
    latched: bool
    shelved: bool
    suppressed: bool
    out_of_service: bool
    priority: int = Field(ge=0, le=4)
    severity: int = Field(ge=1, le=1000)
    value: float
    limit: float
    deadband: float
    unit: str
    raised_ms: int = 0
    acked_ms: int = 0
    cleared_ms: int = 0
    shelved_until_ms: int = 0
    acked_by: str = ""
    occurrence: int
    chattering: bool
    message: str
    operator_action: str


class Alarm(AlarmFields):
    """How an alarm stands, in the shape of ISA-18.2; retained, each alarm at its own topic."""

    topic: ClassVar[str] = "alarm/{alarm}"
    title: ClassVar[str] = "alarm"

    schema_: Literal["kenpin.alarm.v1"] = Field(default="kenpin.alarm.v1", alias="schema")


class AlarmEvent(AlarmFields):
    """A transition of an alarm: how it stands after it, and what it was.

    Attributes:
        transition: What it is to the operator: raise, return, ack, reset, shelve, unshelve ...
    """

    topic: ClassVar[str] = "event/alarm"
    title: ClassVar[str] = "alarm_event"

    schema_: Literal["kenpin.alarm_event.v1"] = Field(default="kenpin.alarm_event.v1", alias="schema")

    transition: str


class AlarmSummary(Payload):
    """How many alarms stand; retained.

    Attributes:
        active_count: Their conditions hold now; without those that were set aside.
        unacked_count: They wait for an acknowledgement.
        shelved_count: They are silenced for a time.
        highest_priority: Of those that stand, 0 to 4; 0 as well where none does.
        flood: More than ten were raised in ten minutes: look for the one behind them.
    """

    topic: ClassVar[str] = "alarm_summary"
    title: ClassVar[str] = "alarm_summary"

    schema_: Literal["kenpin.alarm_summary.v1"] = Field(default="kenpin.alarm_summary.v1", alias="schema")
    active_count: int
    unacked_count: int
    shelved_count: int
    highest_priority: int = Field(ge=0, le=4)
    flood: bool = False


class Audit(Payload):
    """What somebody or the station itself changed, for the record.

    Attributes:
        kind: What it is about; `gap` = events were thrown away unsent, as
            the room for them was used up, or their text was damaged on the disk.
        actor: Who; `station` = the station itself.
        subject: What was changed: a key, an alarm, a file, a topic.
        old: Value before, as text.
        new: Value after, as text.
        reason: Why, in words.
        entry: Number in the station's audit record; 0 = not in it.
        head_sha256: The record's hash after it, so that a later change of the record shows; may be empty.
        gap_first_seq: Lowest number that is missing; 0 where none is, as in the next two.
        gap_last_seq: Highest number that is missing; events of other topics may lie between.
        gap_count: How many are missing.
    """

    topic: ClassVar[str] = "event/audit"
    title: ClassVar[str] = "audit"

    schema_: Literal["kenpin.audit.v1"] = Field(default="kenpin.audit.v1", alias="schema")
    kind: Literal["command", "model", "threshold", "config", "user", "security", "gap"]
    actor: str
    subject: str
    old: str = ""
    new: str = ""
    reason: str = ""
    entry: int = 0
    head_sha256: str = ""
    gap_first_seq: int = 0
    gap_last_seq: int = 0
    gap_count: int = 0


class Reply(Payload):
    """The answer to a command.

    Attributes:
        action: What was asked for.
        cmd_id: Of the command.
        ok: Whether it was carried out.
        reason: One word why it was not; empty if it was.
        message: The same for a person.
    """

    topic: ClassVar[str] = "reply/{action}"
    title: ClassVar[str] = "reply"
    expiry_s: ClassVar[int] = 300  # whoever asked has given up

    schema_: Literal["kenpin.reply.v1"] = Field(default="kenpin.reply.v1", alias="schema")
    action: str = Field(pattern=r"^[a-z][a-z_]{0,31}$")
    cmd_id: str
    ok: bool
    reason: str = ""
    message: str = ""


class Status(Payload):
    """Whether the station lives; retained, and the same topic is its last will.

    Attributes:
        online: False in the last will and after a clean stop.
        state: RUNNING and DEGRADED judge parts; DEGRADED: something is wrong, and `reason` says what.
        reason: Why it is not RUNNING; `lwt` in the last will, `shutdown` after a clean stop.
        connected_ms: UTC of the connection. The last will is fixed then and can carry no later time.
        insecure: True where the configuration allows a connection that others can read or forge (`[mqtt]
            insecure`).
        sw_version: Of kenpin.
    """

    topic: ClassVar[str] = "status"
    title: ClassVar[str] = "status"

    schema_: Literal["kenpin.status.v1"] = Field(default="kenpin.status.v1", alias="schema")
    online: bool
    state: Literal["STARTING", "RUNNING", "PAUSED", "CALIBRATING", "DEGRADED", "FAULT", "STOPPED"]
    reason: str = ""
    connected_ms: int
    insecure: bool
    sw_version: str


class Meta(Payload):
    """What the station is made of; retained, told at the start and when it changes. Empty = not there.

    Attributes:
        sw_version: Of kenpin.
        git_version: Commit of kenpin, with + for local changes.
        jetpack: Release of Jetson Linux, like 36.4.3.
        tensorrt: Version of TensorRT, where it runs the model.
        engine_sha256: Of the engine that was built of the bundle here.
        engine_precision: What the engine calculates in.
        model_id: Name of the bundle.
        model_sha256: Of the bundle's manifest, which pins all of it; the events give the first 16 digits.
        signature_key_id: The key that signed the bundle.
        threshold_rev: Revision of the calibration record; 0 = not calibrated.
        dataset_sha256: Of the list of pictures that the model was trained on.
        camera_ids: Joined by commas, as lists are not for all readers.
        alarm_keys: The same way: all alarms that there can be.
        schema_rev: Goes up when a payload changes.
        outbox_max_bytes: Room for events that wait.
        outbox_min_free_bytes: What the outbox leaves free on the disk.
        results: Which parts are told as `event/result`.
    """

    topic: ClassVar[str] = "meta"
    title: ClassVar[str] = "meta"

    schema_: Literal["kenpin.meta.v1"] = Field(default="kenpin.meta.v1", alias="schema")
    sw_version: str
    git_version: str = ""
    jetpack: str = ""
    tensorrt: str = ""
    engine_sha256: str = ""
    engine_precision: Literal["int8", "fp16", "fp32", ""] = ""
    model_id: str = ""
    model_sha256: str = ""
    signature_key_id: str = ""
    threshold_rev: int = 0
    dataset_sha256: str = ""
    camera_ids: str = ""
    alarm_keys: str = ""
    schema_rev: int = 1
    outbox_max_bytes: int
    outbox_min_free_bytes: int
    results: Literal["off", "ng_and_sample", "all"]


class Kpi(Payload):
    """Counters and times since the start of the station, every ten seconds.

    Attributes:
        parts_total: All parts, whatever became of them.
        ok_total: Parts judged OK.
        review_total: Parts judged REVIEW.
        ng_total: Parts judged NG.
        missed_total: Parts of which there was no picture.
        no_decision_total: Parts that could not be judged, or whose OK could not be released.
        ng_rate: Share of NG among the parts that were judged: OK (released or not), REVIEW and NG.
        fps: Parts per second since the last kpi.
        infer_ms_p50: Median of the time the engine took, of the last parts.
        infer_ms_p99: Its 99th percentile.
        latency_ms_p99: 99th percentile of the time from exposure to verdict.
        gpu_temp_c: Highest temperature of the machine; 0 = not known.
        power_w: What a Jetson's module takes; 0 = not known.
        score_psi: How far the scores have moved from the calibration's (population stability index); 0 = not
            known.
        outbox_depth: Events that wait for the broker.
        outbox_bytes: Room that all stored events take.
        outbox_oldest_s: Age of the oldest one that waits.
        outbox_dropped_total: Events thrown away unsent, ever, as the room was used up; told by `event/audit`.
        broker_rejected_total: Times that the broker refused an event; it is sent again.
        no_subscriber_total: Events that nobody subscribes to (only MQTT 5 brokers tell).
        reconnects_total: Connections to the broker after the first one.
    """

    topic: ClassVar[str] = "kpi"
    title: ClassVar[str] = "kpi"
    expiry_s: ClassVar[int] = 30  # later it says nothing of now

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


PAYLOADS: tuple[type[Payload], ...] = (
    Status,
    Meta,
    Alarm,
    AlarmSummary,
    CameraLast,
    Kpi,
    Anomaly,
    PartResult,
    AlarmEvent,
    Audit,
    Reply,
)


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
