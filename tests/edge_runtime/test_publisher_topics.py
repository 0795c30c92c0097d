"""What a real broker and an independent subscriber get: every topic, its flags, its schema, and its order."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from kenpin.commit import git_commit
from kenpin.edge_runtime import announce, part_news
from kenpin.edge_runtime import link as link_module
from kenpin.edge_runtime import publisher as publisher_module
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.alarm_standing import Standing, alarm_fields
from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.cloud_event import attributes
from kenpin.edge_runtime.counters import Counters, Snapshot
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.equipment import Equipment
from kenpin.edge_runtime.outbox import Depth, Outbox
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.part_news import PartNews
from kenpin.edge_runtime.region import Region
from kenpin.edge_runtime.room import Gap
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.traffic import Traffic
from kenpin.errors import StoreError
from kenpin.events import MAX_BYTES, PAYLOADS, Alarm, AlarmEvent, AlarmSummary, Meta, Payload, Reply, now_ms
from tests import specimens
from tests.edge_runtime.conftest import Clock
from tests.edge_runtime.publishing_line import FAST, PublishingLine
from tests.json_schema import misfits

DOCS = Path(__file__).parents[2] / "docs"
PREFIX = "plant/line/st1"
IDENTITY = Identity("st1")
RECORD = specimens.record(rev=3)


def part(score: float | None = None, verdict: Verdict = Verdict.NG, **more: Any) -> Part:
    scored = (
        None if score is None else Scored(score, (score, score / 2, score / 4), np.zeros((2, 2), np.float32))
    )
    judged = Part("part/7", "cam", "s", now_ms(), time.monotonic_ns(), Decision(verdict, scored=scored), 3.0)
    made = replace(judged, model=Model("lamp-1", "ab" * 32, "int8"), record=RECORD, frame_id=1, trigger_id=7)
    return replace(made, region=Region(1, 2, 3, 4, 5), **more)


def told_of(part: Part) -> list[dict[str, Any]]:
    """What all topics say of it."""
    made: list[Payload] = [announce.result(IDENTITY, part, ng_rate=0.25), announce.camera_last(IDENTITY, part)]
    if part.decision.verdict in (Verdict.NG, Verdict.REVIEW):
        made.append(announce.anomaly(IDENTITY, part, ng_rate=0.25))
    return [told.model_dump() for told in made]


def test_what_is_told_of_a_part_is_what_it_says() -> None:
    scored = Scored(1.7, (0.3, 0.9, 0.6), np.zeros((2, 2), np.float32))
    made = part(part_id="x" * 300 + "end", camera="cam/1 é", image_ref="a.jpg", infer_ms=3.5, ts_ms=1234)
    made = replace(made, decision=Decision(Verdict.REVIEW, scored=scored), trigger_id=0)
    result, last, anomaly = told_of(made)
    of_all = {
        "score": 1.7,
        "threshold": 1.0,
        "margin": 0.7,
        "severity": 400,
        "infer_ms": 3.5,
        "image_ref": "a.jpg",
    }
    of_all |= {"part_id": "x" * 197 + "end", "verdict": "REVIEW", "model_id": "lamp-1", "threshold_rev": 3}
    of_all |= {"ts_ms": 1234, "station": "st1", "session_id": IDENTITY.session_id, "test": False}
    of_scores = {
        "score_coarse": 0.3,
        "score_mid": 0.9,
        "score_fine": 0.6,
        "level": "mid",
        "ng_rate_window": 0.25,
    }
    of_scores |= {"camera": "cam/1 é", "model_sha256": "ab" * 8, "engine_precision": "int8"}
    place = {"roi_x_px": 1, "roi_y_px": 2, "roi_w_px": 3, "roi_h_px": 4, "area_px": 5}
    for told, says in (
        (result, of_all | of_scores | {"trigger_id": 0, "reason": "", "cause": ""}),
        (last, of_all | {"camera": "cam_1__", "reason": ""}),
        (anomaly, of_all | of_scores | place),
    ):
        assert {name: told[name] for name in says} == pytest.approx(says)


def test_what_is_told_of_a_part_without_a_decision_says_why() -> None:
    made = part(camera="c" * 99, trigger_id=None, model=None, record=None)
    result, last = told_of(replace(made, decision=Decision(Verdict.NO_DECISION, "why" * 999, None, "engine")))
    says = {
        "verdict": "NO_DECISION",
        "reason": ("why" * 999)[:500],
        "severity": 1,
        "threshold_rev": 0,
        "model_id": "",
    }
    assert {name: result[name] for name in says} == {name: last[name] for name in says} == says
    assert (result["trigger_id"], result["cause"], result["level"]) == (-1, "engine", "")
    assert (result["model_sha256"], result["engine_precision"], last["camera"]) == ("", "", "c" * 64)
    scored = told_of(part(1.5, Verdict.NO_DECISION, record=None))[0]
    assert (scored["score"], scored["threshold"], scored["severity"]) == (1.5, 0.0, 1)


@pytest.mark.parametrize(
    ("score", "good", "severity"),
    [
        (0.0, {"a": 0.5}, 1),
        (0.8, {"a": 0.5}, 100),
        (0.8, {"a": 0.5, "b": 0.5, "c": 1.9}, 100),
        (2.0, {"a": 0.5}, 500),
        (3.2, {"a": 0.5}, 900),
        (1e9, {"a": 0.5}, 1000),
        (1.5, {}, 250),  # without scores of good parts T1 stands for them
        (2.0, {"a": 2.0}, 1000),
        (1.9, {"a": 2.0}, 500),
    ],
)
def test_how_bad_a_part_is(score: float, good: dict[str, float], severity: int) -> None:
    record = RECORD.model_copy(update={"good": good})
    assert told_of(part(score, Verdict.REVIEW, record=record))[0]["severity"] == severity


@pytest.mark.parametrize("is_set", [True, False])
def test_the_status_says_how_the_station_and_its_clock_are(
    monkeypatch: pytest.MonkeyPatch, *, is_set: bool
) -> None:
    monkeypatch.setattr(announce, "clock_is_synchronised", lambda: is_set)
    how: Any = ("FAULT", "why" * 999)
    told = announce.status(IDENTITY, how, online=True, connected_ms=5, insecure=is_set)
    assert (told.state, told.reason, told.online, told.connected_ms) == ("FAULT", ("why" * 999)[:500], True, 5)
    assert (told.clock_ok, told.insecure) == (is_set, is_set)


def test_the_kpi_says_what_was_counted() -> None:
    parts = {Verdict.OK: 1, Verdict.REVIEW: 2, Verdict.NG: 4, Verdict.MISSED: 8, Verdict.NO_DECISION: 16}
    now = Snapshot(parts, {}, {}, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    traffic = Traffic(acked=20, rejected=21, no_subscriber=22, connections=23)
    told = announce.kpi(IDENTITY, now, Depth(24, 25, 2.6, 27), traffic, fps=2.8).model_dump()
    names = ("ok", "review", "ng", "missed", "no_decision", "parts")
    assert [told[f"{name}_total"] for name in names] == [1, 2, 4, 8, 16, 31]
    measured = (
        "latency_ms_p99",
        "infer_ms_p50",
        "infer_ms_p99",
        "score_psi",
        "gpu_temp_c",
        "power_w",
        "outbox_oldest_s",
        "fps",
    )
    assert [told[name] for name in measured] == [0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 2.6, 2.8]
    assert told["ng_rate"] == pytest.approx(4 / 7)
    counted = ("broker_rejected", "no_subscriber", "reconnects", "outbox_dropped")
    assert [told[f"{name}_total"] for name in counted] == [21, 22, 22, 27]
    assert (told["outbox_depth"], told["outbox_bytes"]) == (24, 25)
    assert announce.kpi(IDENTITY, now, Depth(0, 0, 0.0, 0), Traffic(), fps=0.0).reconnects_total == 0


def test_another_start_of_the_station_is_news_and_so_is_another_source() -> None:
    who = Identity("st1", session_id="a")
    told = [who.follow(session_id, test=test) for session_id, test in (("b", False), ("b", False), ("b", True))]
    assert (told, who.session_id, who.test) == ([True, False, True], "b", True)
    assert who.common(0)["test"]


def alarm_payloads() -> tuple[Alarm, AlarmEvent]:
    fields: Any = alarm_fields(CATALOGUE[0], Standing(), 1)
    common = IDENTITY.common(now_ms())
    return Alarm(**common, **fields), AlarmEvent(**common, **fields, transition="raise")


def meta() -> Meta:
    model = Model("lamp-1", "ab" * 32, "int8", "A1B2", "cd" * 32, tensorrt="10.3.0", engine_sha256="ef" * 32)
    alarms = [spec.key for spec in CATALOGUE]
    return Equipment(model=model, record=RECORD, cameras=["a", "b"], alarms=alarms).meta(IDENTITY)


def test_meta_names_model_threshold_cameras_and_limits() -> None:
    told = meta()
    assert (told.model_id, told.model_sha256, told.engine_precision, told.threshold_rev) == (
        "lamp-1",
        "ab" * 32,
        "int8",
        3,
    )
    assert (told.signature_key_id, told.dataset_sha256) == ("A1B2", "cd" * 32)
    assert (told.tensorrt, told.engine_sha256) == ("10.3.0", "ef" * 32)
    assert (told.git_version, told.jetpack) == (git_commit(), "")
    assert (told.camera_ids, told.outbox_max_bytes, told.outbox_min_free_bytes) == ("a,b", 256 << 20, 512 << 20)
    empty = Equipment().meta(IDENTITY)
    assert (empty.model_id, empty.engine_precision, empty.threshold_rev) == ("", "", 0)
    assert len(told.to_json()) < MAX_BYTES / 4


def summary(active: int = 0) -> AlarmSummary:
    zero = dict.fromkeys(("unacked_count", "shelved_count", "highest_priority"), 0)
    return AlarmSummary(**IDENTITY.common(now_ms()), active_count=active, **zero)


def everything(path: Path) -> None:
    """One message, at least, of every topic, as the station's processes write them."""
    store = Store(path, news=PartNews(IDENTITY, "all"))
    bad = part(2.5)
    store.commit([(bad, announce.anomaly(IDENTITY, bad, ng_rate=0.5))])
    store.commit(
        [(part(verdict=Verdict.MISSED, camera="cam 2", trigger_id=None, model=None, record=None), None)]
    )
    current, transition = alarm_payloads()
    reply = Reply(**IDENTITY.common(now_ms()), action="ack", cmd_id="1", ok=True)

    def write(_: object, outbox: Outbox) -> None:
        outbox.set_state(summary())
        outbox.set_state(current)
        outbox.set_state(meta())
        outbox.put(transition)
        outbox.put(reply)
        outbox.put(announce.gap(IDENTITY, Gap("event/result", 1, 2, 2)))

    store.change(write)
    store.close()


def channels() -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    """Topics as a pattern, with the name and the MQTT binding of their message."""
    document = json.loads((DOCS / "asyncapi.json").read_text())
    return [
        (
            re.compile(re.sub(r"\{(\w+)\}", lambda m: PREFIX if m[1] == "prefix" else r"[^/]+", c["address"])),
            name,
            document["operations"][f"{'receive' if name == 'command' else 'send'}_{name}"]["bindings"]["mqtt"],
        )
        for name, c in document["channels"].items()
    ]


def describe(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and binding of the one channel that a message belongs to."""
    ((name, binding),) = [(n, b) for p, n, b in channels() if p.fullmatch(message["topic"])]
    return name, binding


def test_all_that_is_published_is_what_the_documents_say(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    everything(line.path)
    line.publish(mosquitto.port)
    names = {model.title for model in PAYLOADS}

    def told() -> list[dict[str, Any]]:
        return [m for m in list(scada.messages) if m["topic"].startswith(PREFIX)]

    wait_for(lambda: {describe(m)[0] for m in told()} == names, "every topic")
    wait_for(lambda: line.waiting() == 0, "the acknowledgements")
    for message in told():
        name, binding = describe(message)
        body = json.loads(message["payload"])
        schema = json.loads((DOCS / f"schemas/{name}.schema.json").read_text())
        assert misfits(body, schema) == [], name
        assert message["qos"] == binding["qos"], name
        expected = dict(attributes(message["payload"].encode(), source=PREFIX))
        assert message["properties"]["user-properties"] == expected, name
        assert expected["id"] == body["id"]
        assert message["properties"]["content-type"] == "application/json"
        assert ("message-expiry-interval" in message["properties"]) == ("messageExpiryInterval" in binding), (
            name
        )
    newcomer = make_subscriber(mosquitto.port)
    wanted = {name for _, name, binding in channels() if binding["retain"]}

    def kept() -> set[str]:
        return {
            describe(m)[0] for m in list(newcomer.messages) if m["topic"].startswith(PREFIX) and m["retain"]
        }

    wait_for(lambda: kept() >= wanted, "what is retained")
    assert kept() == wanted


def test_the_last_will_is_a_cloud_event_of_the_documented_form(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("status"), "the status")
    first = line.link._client.socket()
    line.link.break_off()
    wait_for(lambda: any(s["reason"] == "lwt" for s in scada.payloads("status")), "the last will")
    wait_for(lambda: line.link._client.socket() not in (None, first), "the next connection")
    (will,) = [m for m in scada.messages if m["topic"].endswith("status") and '"lwt"' in m["payload"]][:1]
    assert (
        misfits(json.loads(will["payload"]), json.loads((DOCS / "schemas/status.schema.json").read_text()))
        == []
    )
    assert will["properties"]["user-properties"]["type"] == "kenpin.status.v1"
    assert json.loads(will["payload"])["session_id"] == scada.payloads("status")[0]["session_id"]


def test_a_station_that_connects_anew_by_itself_is_not_told_as_gone(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port)
    for connections in range(1, 11):
        wait_for(lambda n=connections: publisher.traffic.connections == n, "a connection")
        wait_for(lambda n=connections: len(scada.payloads("status")) >= n, "its status")
        publisher.renew(BrokerAddress("127.0.0.1", mosquitto.port, "st1"))
    assert {status["online"] for status in scada.payloads("status")} == {True}
    line.stop()


def test_each_connection_carries_its_own_time_in_the_last_will(line: PublishingLine, mosquitto: Any) -> None:
    publisher = line.publish(mosquitto.port)
    bodies = [json.loads(publisher._herald.last_will()) for _ in range(2)]
    assert bodies[0]["id"] != bodies[1]["id"]
    assert bodies[0]["connected_ms"] <= bodies[1]["connected_ms"]


def test_after_a_connection_status_then_meta_then_states_then_events(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    everything(line.path)
    states = {"alarm_summary", "camera/cam/last", "camera/cam_2/last", f"alarm/{CATALOGUE[0].key}"}
    for connection in (1, 2):
        first = len(scada.messages)
        line.publish(mosquitto.port)
        wait_for(lambda: line.waiting() == 0, "the events")
        line.stop()
        wait_for(
            lambda n=connection: sum(s["reason"] == "shutdown" for s in scada.payloads("status")) == n,
            "the end",
        )
        topics = [m["topic"].removeprefix(f"{PREFIX}/") for m in scada.messages[first:]]
        told = [topic for topic in topics if topic not in ("status", "kpi", "ready")]
        assert topics[0] == "status"
        assert told[0] == "meta"
        assert set(told[1:5]) == states  # all of them, on each connection
        assert told[5].startswith("event/")
        assert not states & {*told[5:]}
        line.commit(1)


def test_a_retained_topic_is_sent_with_its_latest_value_only(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    for active in range(50):
        line.store.change(lambda _, outbox, active=active: outbox.set_state(summary(active)))  # type: ignore[misc]
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("alarm_summary"), "the summary")
    line.store.change(lambda _, outbox: outbox.set_state(summary(99)))
    publisher.wake()
    wait_for(lambda: len(scada.payloads("alarm_summary")) == 2, "the change")
    assert [s["active_count"] for s in scada.payloads("alarm_summary")] == [49, 99]


def test_a_refused_topic_keeps_neither_the_others_nor_events_back(
    line: PublishingLine, make_mosquitto: Any, make_subscriber: Any, tmp_path: Path, wait_for: Any
) -> None:
    acl = tmp_path / "acl"
    free = ("status", "alarm_summary", "event/#", "kpi")
    acl.write_text("".join(f"topic readwrite {PREFIX}/{t}\n" for t in free) + "topic readwrite ready\n")
    broker = make_mosquitto(f"acl_file {acl}")
    broker.start()
    scada = make_subscriber(broker.port)
    for state in (meta(), alarm_payloads()[0], summary(7)):
        line.store.change(lambda _, outbox, state=state: outbox.set_state(state))  # type: ignore[misc]
    line.commit(3)
    line.publish(broker.port)
    wait_for(lambda: line.waiting() == 0 and scada.payloads("alarm_summary"), "what is allowed")
    assert scada.payloads("meta") == []


def test_what_changes_is_published_while_another_topic_is_refused(
    line: PublishingLine, make_mosquitto: Any, make_subscriber: Any, tmp_path: Path, wait_for: Any
) -> None:
    acl = tmp_path / "acl"
    free = ("status", "alarm_summary", "kpi")
    acl.write_text("".join(f"topic readwrite {PREFIX}/{t}\n" for t in free) + "topic readwrite ready\n")
    broker = make_mosquitto(f"acl_file {acl}")
    broker.start()
    scada = make_subscriber(broker.port)
    for state in (meta(), summary(0)):
        line.store.change(lambda _, outbox, state=state: outbox.set_state(state))  # type: ignore[misc]
    publisher = line.publish(broker.port)
    wait_for(lambda: publisher.is_denied and scada.payloads("alarm_summary"), "the first answers")
    for active in (1, 2, 3):
        line.store.change(lambda _, outbox, active=active: outbox.set_state(summary(active)))  # type: ignore[misc]
        publisher.wake()
        wait_for(
            lambda active=active: scada.payloads("alarm_summary")[-1]["active_count"] == active, "the change"
        )
    assert publisher.is_denied


def test_the_status_is_told_again_though_nothing_has_changed(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    """A broker may have forgotten it, and who reads it sees that the station still lives."""
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port, replace(FAST, status_s=0.3))
    running = lambda: [s for s in scada.payloads("status") if s["state"] == "RUNNING"]  # noqa: E731
    wait_for(lambda: len(running()) >= 3, "the same once more")


def test_every_new_connection_gets_what_is_retained(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    line.store.change(lambda _, outbox: outbox.set_state(summary(7)))
    publisher = line.publish(mosquitto.port)
    for connection in (1, 2, 3):
        wait_for(lambda n=connection: len(scada.payloads("alarm_summary")) == n, "the summary")
        line.link.break_off()
        wait_for(lambda n=connection: publisher.traffic.connections > n, "the next connection")


def test_the_rate_of_parts_outlives_a_restart_of_the_station(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    def counted(parts: int, elapsed_s: float) -> Snapshot:
        none = Counters().snapshot()
        return replace(none, parts={**none.parts, Verdict.OK: parts}, elapsed_s=elapsed_s)

    now = [counted(1000, 100.0)]
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port, counters=lambda: now[0])
    wait_for(lambda: scada.payloads("kpi"), "the first kpi")
    for parts, elapsed_s, fps in ((1020, 104.0, 5.0), (21, 3.0, 7.0), (1, 4.0, 0.25)):
        now[0] = counted(parts, elapsed_s)
        wait_for(lambda: scada.payloads("kpi")[-1]["parts_total"] == parts, "the kpi")  # noqa: B023 at once
        assert next(k["fps"] for k in scada.payloads("kpi") if k["parts_total"] == parts) == fps


def test_the_status_and_what_finds_the_station_are_told_again_on_request(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port, discovery=("plant/line/st1/config", b'{"dev": "st1"}'))
    wait_for(lambda: any(p["state"] == "RUNNING" for p in scada.payloads("status")), "the status")
    before = len(scada.payloads("status"))
    publisher.tell_again()
    wait_for(lambda: len(scada.payloads("status")) > before, "the status again")
    wait_for(lambda: len(scada.payloads("config")) == 2, "the discovery again")


def test_a_gap_is_told_on_the_broker(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    line.store._connection.execute("INSERT INTO gap VALUES ('event/result', 5, 9, 4)")
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("event/audit"), "the gap")
    (told,) = scada.payloads("event/audit")
    assert (told["kind"], told["subject"], told["gap_first_seq"], told["gap_last_seq"], told["gap_count"]) == (
        "gap",
        "event/result",
        5,
        9,
        4,
    )


def test_acknowledged_events_are_sent_once_more_on_request(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    line.publish(mosquitto.port)
    line.commit(10)
    wait_for(lambda: line.waiting() == 0 and len(scada.events()) == 10, "the events")
    line.send_again(since=4, count=3)
    wait_for(lambda: len(scada.events()) == 13, "three of them again")
    assert [(e["seq"], e["late"]) for e in scada.events()[10:]] == [(4, True), (5, True), (6, True)]
    wait_for(lambda: line.waiting() == 0, "the acknowledgements")


def test_a_result_that_is_worth_something_now_or_never_is_not_kept(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, free_port: int, wait_for: Any
) -> None:
    result = Result("early", 1, Verdict.OK)
    publisher = line.publish(free_port)
    publisher.tell_result(result)
    wait_for(publisher._tasks.empty, "the end of the early one")
    line.stop()
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("status"), "the connection")
    publisher.tell_result(Result("now", 1, Verdict.OK))
    wait_for(lambda: scada.payloads("output"), "the result")
    assert [r["part_id"] for r in scada.payloads("output")] == ["now"]


def test_of_all_results_only_ok_passes_and_none_is_retained(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("status"), "the connection")
    for verdict in Verdict:
        publisher.tell_result(Result(verdict.value, 1, verdict))
    wait_for(lambda: len(scada.payloads("output")) == len(Verdict), "every result")
    assert {r["verdict"]: r["pass"] for r in scada.payloads("output")} == {
        v.value: v is Verdict.OK for v in Verdict
    }
    newcomer = make_subscriber(mosquitto.port)
    publisher.tell_result(Result("later", 2, Verdict.OK))
    wait_for(lambda: newcomer.payloads("output"), "the next result")
    assert [r["part_id"] for r in newcomer.payloads("output")] == ["later"]


def test_a_result_that_waited_for_a_disk_that_hung_is_told_no_more(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("status"), "the connection")
    with monkeypatch.context() as hung:
        hung.setattr(publisher_module, "LATE_S", -1.0)
        publisher.tell_result(Result("old", 1, Verdict.OK))
    publisher.tell_result(Result("now", 2, Verdict.OK))
    wait_for(lambda: scada.payloads("output"), "the result")
    assert [r["part_id"] for r in scada.payloads("output")] == ["now"]


class Hearing:
    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        self.heard.append((topic, body, retained))
        if body == b"bad":
            raise ValueError("nobody expected this")


def publish(port: int, topic: str, body: str, *options: str) -> None:
    command = ["mosquitto_pub", "-V", "5", "-p", str(port), "-q", "1", "-t", f"{PREFIX}/{topic}", "-m", body]
    subprocess.run([*command, *options], check=True, timeout=300)


def test_what_others_publish_is_heard_and_cannot_stop_the_publisher(
    line: PublishingLine, mosquitto: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hearing = Hearing()
    publish(mosquitto.port, "cmd/ack", "old", "-r")
    publisher = line.publish(mosquitto.port, listener=hearing)
    wait_for(lambda: publish(mosquitto.port, "cmd/ack", "first") or hearing.heard, "the subscription")
    publish(mosquitto.port, "cmd/reset", "bad")
    publish(mosquitto.port, "other", "not for it")
    publish(mosquitto.port, "cmd/a/b", "not for it")
    publish(mosquitto.port, "cmd/ack", "last", "-r")
    wait_for(lambda: hearing.heard[-1][1] == b"last", "all of them")
    assert {topic for topic, _, _ in hearing.heard} == {"cmd/ack", "cmd/reset"}
    assert not any(body == b"old" for _, body, _ in hearing.heard)  # it was retained before the station came
    assert any("could not be handled" in r.message for r in caplog.records)
    line.commit(1)
    wait_for(lambda: line.waiting() == 0, "an event")
    assert publisher.traffic.connections == 1


def test_a_flood_is_dropped_and_counted(line: PublishingLine, mosquitto: Any, wait_for: Any) -> None:
    publisher = line.publish(mosquitto.port, listener=Hearing())
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    link = line.link

    class Full:
        def qsize(self) -> int:
            return 1000

    link._signals, usual = Full(), link._signals  # type: ignore[assignment]
    wait_for(lambda: publish(mosquitto.port, "cmd/ack", "x") or link.dropped, "a drop")
    link._signals = usual


def test_a_flood_is_not_listened_to_for_a_while(
    line: PublishingLine, mosquitto: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has nothing to deliver then, so no acknowledgement of an event waits behind it."""
    monkeypatch.setattr(link_module, "_DEAF_S", 3600.0)
    hearing = Hearing()
    publisher = line.publish(mosquitto.port, listener=hearing)
    pub = ["mosquitto_pub", "-V", "5", "-p", str(mosquitto.port), "-t", f"{PREFIX}/cmd/ack"]

    def flood() -> str:
        subprocess.run([*pub, "-l"], input=b"x\n" * 5000, check=True, timeout=300)
        return line.link.trouble

    def is_read() -> bool:
        sent = [*pub, "-q", "1", "-m", "one", "-d"]
        return b"RC:16" not in subprocess.run(sent, capture_output=True, check=True, timeout=300).stdout

    def status() -> dict[str, Any]:
        asked = ["mosquitto_sub", "-p", str(mosquitto.port), "-t", f"{PREFIX}/status", "-C", "1"]
        return dict(json.loads(subprocess.run(asked, capture_output=True, check=True, timeout=300).stdout))

    wait_for(flood, "the flood to be noticed")
    wait_for(lambda: not is_read(), "the end of the subscription")
    wait_for(lambda: "commands_flooded" in status()["reason"], "the words")
    assert status()["state"] == "DEGRADED"
    assert publisher.dropped
    assert b"one" not in {body for _, body, _ in hearing.heard}
    mosquitto.kill()
    mosquitto.start()
    wait_for(lambda: publisher.traffic.connections == 2, "a new connection")
    assert not is_read()
    line.link._heard = Allowance(200)  # all this may have taken less than the second that counts
    line.link._deaf_until_s = -math.inf
    wait_for(is_read, "the subscription")
    wait_for(lambda: hearing.heard[-1][1] == b"one", "a message")
    wait_for(lambda: status()["state"] == "RUNNING", "the state")
    assert publisher.is_denied is False


def test_a_station_that_may_not_listen_says_so_once_and_is_denied(
    line: PublishingLine, mosquitto: Any, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Brokers such as EMQX answer SUBSCRIBE with 0x87; mosquitto 2.0 accepts it and delivers nothing."""
    publisher = line.publish(mosquitto.port, listener=Hearing())
    wait_for(lambda: publisher.is_denied is False, "the broker to let it in")
    refused = ReasonCode(PacketTypes.SUBACK, "Not authorized")
    for _ in range(2):
        line.link._on_subscribe(line.link._client, None, 1, [refused], None)
    wait_for(lambda: publisher.is_denied and publisher._tasks.empty(), "both answers to be heard")
    mosquitto.kill()
    mosquitto.start()
    wait_for(lambda: publisher.is_denied is False, "the broker that lets it listen")
    line.stop(drain_s=1)
    assert sum("hear commands (Not authorized)" in r.message for r in caplog.records) == 1


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("off", []), ("ng_and_sample", ["OK", "NG", "MISSED"]), ("all", ["OK", "NG", "MISSED", "OK", "OK"])],
)
def test_results_are_told_as_configured(tmp_path: Path, mode: Any, expected: list[str]) -> None:
    store = Store(tmp_path / "station.db", news=PartNews(IDENTITY, mode))
    verdicts = (Verdict.OK, Verdict.NG, Verdict.MISSED, Verdict.OK, Verdict.OK)
    scores = (0.5, 3.0, None, 0.5, 0.5)
    seqs = store.commit([(part(s, v), None) for s, v in zip(scores, verdicts, strict=True)])
    told = [e.payload() for e in store._outbox.replay(since=0, limit=99)]
    assert [t["verdict"] for t in told] == expected
    if mode == "all":
        assert [round(t["ng_rate_window"], 2) for t in told] == [0.0, 0.5, 0.5, 0.33, 0.25]
        assert [(t["score"], t["threshold"], t["level"]) for t in told[:3]] == [
            (0.5, 1.0, "coarse"),
            (3.0, 2.0, "coarse"),
            (0.0, 0.0, ""),
        ]
        rows = store._connection.execute("SELECT part_seq FROM outbox ORDER BY seq").fetchall()
        assert [s for (s,) in rows] == seqs
    store.close()


def test_a_commit_that_failed_has_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "station.db", news=PartNews(IDENTITY, "ng_and_sample", last_every_s=0.0))
    ok, ng = (part(0.5, Verdict.OK, part_id="a"), None), (part(3.0, Verdict.NG, part_id="b"), None)
    store.commit([ok])
    with monkeypatch.context() as disk:
        disk.setattr(store, "_renew_lease", Mock(side_effect=StoreError("the disk is full")))
        for _ in range(3):
            with pytest.raises(StoreError):
                store.commit([ng, *[ok] * 50])
    assert store._outbox.retained(after=0) == []
    store.flush()
    (last,) = store._outbox.retained(after=0)
    assert json.loads(last.body)["part_id"] == "a"
    store.commit([ng, *[ok] * 98])  # with the first one 99
    told = [e.payload() for e in store._outbox.replay(since=0, limit=99)]
    assert [(t["verdict"], t["ng_rate_window"]) for t in told] == [("OK", 0.0), ("NG", 0.5)]
    store.close()


def test_one_ok_in_a_hundred_is_a_sample(tmp_path: Path) -> None:
    store = Store(tmp_path / "station.db", news=PartNews(IDENTITY, "ng_and_sample"))
    store.commit([(part(0.5, Verdict.OK), None)] * 250)
    assert store.depth().waiting == 3
    store.close()


def test_an_ok_that_is_not_released_never_stands_as_the_last_part(tmp_path: Path) -> None:
    store = Store(tmp_path / "station.db", news=PartNews(IDENTITY, "off", last_every_s=0.0))
    for number in range(3):
        (seq,) = store.commit([(part(0.5, Verdict.OK, part_id=f"p{number}"), None)])
        for last in store._outbox.retained(after=0):
            assert json.loads(last.body)["verdict"] == "NO_DECISION"
        store.note_withheld(seq, "no PLC is connected", "output")
    store.flush()
    (last,) = store._outbox.retained(after=0)
    assert (json.loads(last.body)["part_id"], json.loads(last.body)["verdict"]) == ("p2", "NO_DECISION")
    store.close()


def test_an_ok_that_was_withheld_after_its_record_is_told_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "station.db", news=PartNews(IDENTITY, "all", last_every_s=0.0))
    (seq,) = store.commit([(part(0.5, Verdict.OK), None)])
    store.note_withheld(seq, "the output failed", "output")
    store.flush()
    store.commit([])
    first, second = [e.payload() for e in store._outbox.replay(since=0, limit=99)]
    assert (first["verdict"], second["verdict"], second["cause"]) == ("OK", "NO_DECISION", "output")
    assert (second["part_id"], second["score"]) == (first["part_id"], 0.5)
    (last,) = store._outbox.retained(after=0)
    assert json.loads(last.body)["verdict"] == "NO_DECISION"
    store.close()


@pytest.mark.parametrize("score", [None, float("nan")])
def test_a_score_that_is_no_number_is_told_as_none(tmp_path: Path, score: float | None) -> None:
    store = Store(tmp_path / "station.db", news=PartNews(IDENTITY, "all"))
    store.commit([(part(score, Verdict.NO_DECISION), None)])
    (told,) = [e.payload() for e in store._outbox.replay(since=0, limit=99)]
    assert {told[key] for key in ("score", "threshold", "margin", "score_coarse", "score_fine")} == {0.0}
    assert (told["level"], told["severity"], told["model_id"]) == ("", 1, "lamp-1")
    store.close()


def test_the_last_part_of_a_camera_is_written_once_a_second_and_then_the_newest(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_news, "time", clock)
    store = Store(tmp_path / "station.db", news=PartNews(IDENTITY, "off", last_every_s=0.3))
    for number in range(5):
        store.commit([(part(0.5, Verdict.OK, part_id=f"p{number}"), None)])
    reader = Outbox(connect(store.path))

    def last() -> Any:
        (found,) = reader.retained(after=0)
        return json.loads(found.body)["part_id"], found.version

    version = last()[1]
    store.flush()
    assert last() == ("p0", version)
    clock.sleep(0.4)
    store.flush()  # the line is idle
    assert last()[0] == "p4"
    reader._connection.close()
    store.close()


def test_a_database_lock_does_not_stop_the_publisher(
    line: PublishingLine, mosquitto: Any, wait_for: Any
) -> None:
    publisher = line.publish(mosquitto.port, FAST)
    wait_for(lambda: publisher.traffic.connections == 1, "the connection")
    with transaction(line.store._connection):
        time.sleep(0.3)
    line.commit(2)
    wait_for(lambda: line.waiting() == 0, "the events")


def test_a_disk_that_takes_no_notes_keeps_neither_status_nor_events_back(
    line: PublishingLine, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(mosquitto.port)
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: scada.payloads("status"), "the status")
    publisher._database.execute("PRAGMA query_only = ON")
    line.commit(3)
    wait_for(lambda: len(scada.events()) == 3, "the events")
    publisher.set_state("FAULT", "the disk is full")
    wait_for(lambda: scada.payloads("status")[-1]["reason"] == "the disk is full", "the status")
    line.commit(2)
    wait_for(lambda: len(scada.events()) == 5, "the next ones")
    assert line.waiting() == 5
    publisher._database.execute("PRAGMA query_only = OFF")
    wait_for(lambda: line.waiting() == 0, "the notes")
    assert len(scada.events()) == 5  # none twice
