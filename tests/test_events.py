"""What is published: flat objects with the same keys always, which SCADA systems can read."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kenpin.errors import KenpinError
from kenpin.events import (
    MAX_BYTES,
    PAYLOADS,
    Alarm,
    AlarmEvent,
    AlarmSummary,
    Anomaly,
    Audit,
    CameraLast,
    Kpi,
    Meta,
    PartResult,
    Payload,
    Reply,
    Status,
    now_ms,
    rfc3339,
    uuid7,
)
from tests.json_schema import misfits

DOCS = Path(__file__).parent.parent / "docs"

COMMON: dict[str, Any] = {"id": uuid7(1), "ts_ms": 1, "ts": rfc3339(1), "station": "cap-3", "session_id": "s"}
ANOMALY: dict[str, Any] = {
    **COMMON,
    "camera": "c",
    "part_id": "p",
    "model_id": "cap-1",
    "model_sha256": "ab",
    "engine_precision": "int8",
    "threshold_rev": 1,
    "verdict": "NG",
    "score": 2.0,
    "threshold": 1.0,
    "margin": 1.0,
    "score_coarse": 1.0,
    "score_mid": 1.0,
    "score_fine": 1.0,
    "level": "mid",
    "severity": 700,
    "roi_x_px": 1,
    "roi_y_px": 1,
    "roi_w_px": 1,
    "roi_h_px": 1,
    "area_px": 1,
    "infer_ms": 1.0,
    "ng_rate_window": 0.1,
}
_ROI = ("roi_x_px", "roi_y_px", "roi_w_px", "roi_h_px", "area_px")
RESULT: dict[str, Any] = {k: v for k, v in ANOMALY.items() if k not in _ROI}
STATUS: dict[str, Any] = {
    **COMMON,
    "online": True,
    "state": "RUNNING",
    "connected_ms": 1,
    "insecure": False,
    "sw_version": "0.1.0",
}
META: dict[str, Any] = {
    **COMMON,
    "sw_version": "0.1.0",
    "outbox_max_bytes": 1,
    "outbox_min_free_bytes": 1,
    "results": "off",
}
KPI: dict[str, Any] = {
    **COMMON,
    **dict.fromkeys(("parts_total", "ok_total", "review_total", "ng_total", "missed_total"), 0),
    **dict.fromkeys(("no_decision_total", "outbox_depth", "outbox_bytes", "outbox_dropped_total"), 0),
    **dict.fromkeys(("broker_rejected_total", "no_subscriber_total", "reconnects_total"), 0),
    **dict.fromkeys(("ng_rate", "fps", "infer_ms_p50", "infer_ms_p99", "latency_ms_p99"), 0.0),
    "outbox_oldest_s": 0.0,
}
ALARM: dict[str, Any] = {
    **COMMON,
    **dict.fromkeys(("latched", "shelved", "suppressed", "out_of_service", "chattering"), False),
    **dict.fromkeys(("value", "limit", "deadband"), 1.0),
    "alarm": "disk_low",
    "state": "UNACK",
    "active": True,
    "acked": False,
    "priority": 2,
    "severity": 500,
    "unit": "GB",
    "occurrence": 1,
    "message": "m",
    "operator_action": "o",
}
SUMMARY: dict[str, Any] = {
    **COMMON,
    **dict.fromkeys(("active_count", "unacked_count", "shelved_count", "highest_priority"), 1),
}
LAST: dict[str, Any] = {
    **COMMON,
    **dict.fromkeys(("score", "threshold", "margin", "infer_ms"), 1.0),
    "camera": "c",
    "part_id": "p",
    "model_id": "m",
    "threshold_rev": 1,
    "verdict": "OK",
    "severity": 1,
}
AUDIT: dict[str, Any] = {**COMMON, "kind": "gap", "actor": "station", "subject": "event/result"}
REPLY: dict[str, Any] = {**COMMON, "action": "ack", "cmd_id": "1", "ok": True}
EXAMPLES: dict[type[Payload], dict[str, Any]] = {
    Anomaly: ANOMALY,
    PartResult: RESULT,
    Status: STATUS,
    Meta: META,
    Kpi: KPI,
    Alarm: ALARM,
    AlarmEvent: {**ALARM, "transition": "raise"},
    AlarmSummary: SUMMARY,
    CameraLast: LAST,
    Audit: AUDIT,
    Reply: REPLY,
}
every_payload = pytest.mark.parametrize(("model", "fields"), EXAMPLES.items())


def test_there_is_an_example_of_every_payload() -> None:
    assert set(EXAMPLES) == set(PAYLOADS)


@every_payload
def test_payloads_are_flat_and_whole(model: type[Payload], fields: dict[str, Any]) -> None:
    body = json.loads(model(**fields).to_json())
    assert all(type(value) in (str, int, float, bool) for value in body.values())
    assert set(body) == {field.alias or name for name, field in model.model_fields.items()}
    assert body["schema"] == f"kenpin.{model.title}.v1"
    assert {"id", "seq", "ts_ms", "ts", "clock_ok", "late", "station", "session_id", "test"} <= set(body)


@every_payload
def test_unknown_and_missing_fields_are_refused(model: type[Payload], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model(**fields, extra=1)
    with pytest.raises(ValidationError):
        model(**{k: v for k, v in fields.items() if k != "station"})


@every_payload
def test_no_payload_takes_null_list_or_nan(model: type[Payload], fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        wrong = [None, [value], *([math.nan, math.inf] if isinstance(value, float) else [])]
        for other in wrong:
            with pytest.raises(ValidationError):
                model(**{**fields, name: other})


@every_payload
def test_payloads_fit_their_committed_schema(model: type[Payload], fields: dict[str, Any]) -> None:
    schema = json.loads((DOCS / f"schemas/{model.title}.schema.json").read_text())
    body = json.loads(model(**fields).to_json())
    assert misfits(body, schema) == []
    assert misfits({**body, "station": None}, schema) == ["station is no string"]
    assert misfits({**body, "more": 1}, schema) == ["more is not known"]
    assert misfits({k: v for k, v in body.items() if k != "late"}, schema) == ["late is missing"]
    assert misfits({**body, "schema": "x"}, schema) == ["schema is not allowed: x"]


def test_the_generated_documents_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/event_docs.py", "--check"], cwd=DOCS.parent, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert {path.name for path in (DOCS / "schemas").iterdir()} == {f"{m.title}.schema.json" for m in PAYLOADS}


def test_the_asyncapi_document_knows_every_topic_of_the_page() -> None:
    channels = json.loads((DOCS / "asyncapi.json").read_text())["channels"].values()
    rows = re.findall(r"^\| `([a-z_/<>]+)` \|", (DOCS / "events.md").read_text(), re.MULTILINE)
    told = {re.sub(r"<[a-z]+>", "*", topic) for topic in rows if topic != "output"}
    assert told == {re.sub(r"\{[a-z]+\}", "*", c["address"].removeprefix("{prefix}/")) for c in channels}


@pytest.mark.parametrize(
    ("payload", "address"),
    [
        (Alarm(**ALARM), "alarm/disk_low"),
        (CameraLast(**LAST), "camera/c/last"),
        (Reply(**REPLY), "reply/ack"),
        (AlarmEvent(**EXAMPLES[AlarmEvent]), "event/alarm"),
    ],
)
def test_topics_name_what_they_are_about(payload: Payload, address: str) -> None:
    assert payload.address == address


@pytest.mark.parametrize(("model", "field"), [(Alarm, "alarm"), (CameraLast, "camera"), (Reply, "action")])
def test_nothing_can_break_out_of_its_topic(model: type[Payload], field: str) -> None:
    for wrong in ("a/b", "+", "#", "", "a" * 65):
        with pytest.raises(ValidationError):
            model(**{**EXAMPLES[model], field: wrong})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, [1.0]])
def test_no_null_list_or_nan(value: object) -> None:
    with pytest.raises(ValidationError):
        Anomaly(**{**ANOMALY, "score": value})


def test_anomaly_is_small() -> None:
    assert len(Anomaly(**ANOMALY).to_json()) < MAX_BYTES / 4


def test_what_is_too_long_to_be_sent_is_said() -> None:
    with pytest.raises(KenpinError, match="too long to be sent"):
        Anomaly(**{**ANOMALY, "part_id": "x" * MAX_BYTES}).to_json()


@given(st.integers(0, 2**48 - 1))
def test_uuid7_has_its_version_variant_and_time(ts_ms: int) -> None:
    parsed = uuid.UUID(uuid7(ts_ms))
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == ts_ms


@given(st.integers(0, 2**48 - 2))
def test_uuid7_is_ordered_by_time(ts_ms: int) -> None:
    assert uuid7(ts_ms) < uuid7(ts_ms + 1)


def test_uuid7_is_unique_within_a_millisecond() -> None:
    assert len({uuid7(7) for _ in range(1000)}) == 1000


@given(st.integers(0, 4102444800000))
def test_rfc3339_gives_the_time_back(ts_ms: int) -> None:
    moment = datetime.strptime(rfc3339(ts_ms), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert round(moment.timestamp() * 1000) == ts_ms


def test_rfc3339_is_written_in_full() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    before = datetime.now(tz=timezone.utc).timestamp() * 1000
    assert before - 1 <= now_ms() <= datetime.now(tz=timezone.utc).timestamp() * 1000 + 1


def test_the_documented_example_is_an_event() -> None:
    page = (Path(__file__).parent.parent / "docs" / "events.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("```")[0]
    event = Anomaly.model_validate_json(example)
    assert list(json.loads(example)) == list(json.loads(event.to_json()))


@pytest.mark.parametrize("model", PAYLOADS, ids=lambda model: model.title)
def test_every_field_says_what_it_means(model: type[Payload]) -> None:
    schema = json.loads((DOCS / f"schemas/{model.title}.schema.json").read_text())
    assert [name for name, field in schema["properties"].items() if not field.get("description")] == []
