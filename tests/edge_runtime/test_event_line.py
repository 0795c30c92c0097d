from __future__ import annotations

from typing import Any

import pytest

from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.alarm_standing import AlarmState, Standing, alarm_fields
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.event_line import event_line
from kenpin.events import AlarmEvent, Anomaly, Audit, PartResult, Payload, Reply

COMMON = Identity("st1", test=True).common(0)
PART: dict[str, Any] = {
    "camera": "c",
    "part_id": "p7",
    "model_id": "m",
    "model_sha256": "ab",
    "engine_precision": "int8",
    "threshold_rev": 1,
    "score": 2.5,
    "threshold": 2.0,
    "margin": 0.5,
    "score_coarse": 1.0,
    "score_mid": 1.0,
    "score_fine": 1.0,
    "level": "mid",
    "severity": 600,
    "infer_ms": 1.0,
    "ng_rate_window": 0.0,
}
ROI = {"roi_x_px": 0, "roi_y_px": 0, "roi_w_px": 1, "roi_h_px": 1, "area_px": 1}
ACKED: dict[str, Any] = alarm_fields(CATALOGUE[0], Standing(AlarmState.ACKED, acked_by="sato"), 1)
GAP = {"gap_first_seq": 3, "gap_last_seq": 9, "gap_count": 4, "reason": "full"}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Anomaly(**COMMON, **PART, **ROI, verdict="NG"), "NG          p7  score 2.5 (threshold 2)"),
        (PartResult(**COMMON, **PART, verdict="MISSED", reason="no frame"), "MISSED      p7  no frame"),
        (AlarmEvent(**COMMON, **ACKED, transition="ack"), "ack by sato: ng_rate is ACKED. The share"),
        (
            Audit(**COMMON, kind="gap", actor="station", subject="x", **GAP),
            "4 of x thrown away, within 3 to 9: full",
        ),
        (Audit(**COMMON, kind="user", actor="sato", subject="door"), "user door by sato  (test)"),
        (Audit(**COMMON, kind="model", actor="sato", subject="m", new="b"), "model m by sato: nothing -> b"),
        (Reply(**COMMON, action="ack", cmd_id="1", ok=True), "reply/ack done"),
        (Reply(**COMMON, action="ack", cmd_id="1", ok=False, reason="expired"), "refused: expired  (test)"),
    ],
)
def test_every_event_has_a_line(event: Payload, said: str) -> None:
    line = event_line(event.address, {**event.model_dump(), "seq": 12})
    assert line.startswith("      12  1970-01-01T00:00:00.000Z  ")
    assert said in line
    assert line.endswith("(test)")


def test_an_event_of_a_later_version_has_one_too() -> None:
    assert event_line("event/new", {"seq": 1, "ts": "t"}) == "       1  t  new"


def test_what_a_name_brings_along_reaches_no_terminal() -> None:
    event = Anomaly(**{**COMMON, **PART, **ROI, "part_id": "p7\n\x1b[2Jp8"}, verdict="NG").model_dump()
    assert event_line(Anomaly.topic, event).isprintable()
