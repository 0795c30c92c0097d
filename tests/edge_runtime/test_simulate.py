"""A SCADA that has seen the simulated station has seen everything."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner, Result

from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.simulate_cli import simulate
from kenpin.edge_runtime.simulated_alarm import SimulatedAlarm
from kenpin.edge_runtime.subscribe import Event, Subscription
from kenpin.errors import BrokerError, ConfigError, KenpinError
from kenpin.events import PAYLOADS, AlarmEvent, AlarmState, Anomaly, Audit, PartResult, Reply, Status
from tests.json_schema import misfits

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"
TOPIC = "plant/line/st1"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(simulate, [str(a) for a in arguments], catch_exceptions=True)


def heard(consumer: Subscription, state: Path, before: int = 0) -> list[Event]:
    """All events that were told, but for the first ones, and that no other comes."""
    with closing(sqlite3.connect(state / "simulation.db")) as connection:
        (told,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
    events = []
    for _ in range(told - before):
        event = consumer.receive(timeout_s=180)
        assert event is not None
        events.append(event)
    assert consumer.receive(timeout_s=1) is None
    return events


def error_of(result: Result) -> KenpinError:
    assert isinstance(result.exception, KenpinError), result.output
    return result.exception


def test_it_says_everything_and_all_of_it_fits_the_schemas(
    mosquitto: Any, make_subscriber: Any, wait_for: Any, tmp_path: Path
) -> None:
    scada = make_subscriber(mosquitto.port)
    consumer = Subscription(BrokerAddress("127.0.0.1", mosquitto.port, "consumer"), TOPIC)
    with consumer:
        url = f"mqtt://127.0.0.1:{mosquitto.port}"
        result = run("--url", url, "--topic", TOPIC, "--pause-s", 0, "--state", tmp_path / "state")
        assert result.exit_code == 0, result.output
        wait_for(lambda: scada.payloads("status")[-1]["reason"] == "shutdown", "the goodbye")
        events = heard(consumer, tmp_path / "state")
        assert (consumer.missing, consumer.doubles, consumer.foreign) == ({}, 0, 0)
    assert sorted(event.payload["seq"] for event in events) == list(range(1, len(events) + 1))

    said: dict[str, list[dict[str, Any]]] = {}
    for message in [m for m in scada.messages if m["topic"] != "ready"]:
        payload = json.loads(message["payload"])
        kind = payload["schema"].split(".")[1]
        assert misfits(payload, json.loads((SCHEMAS / f"{kind}.schema.json").read_text())) == []
        assert payload["test"] is True
        said.setdefault(kind, []).append(payload)
    assert set(said) == {model.title for model in PAYLOADS}

    def values(model: Any, field: str) -> set[Any]:
        return {payload[field] for payload in said[model.title]}

    assert values(PartResult, "verdict") == {verdict.value for verdict in Verdict}
    assert values(Anomaly, "verdict") == {"NG", "REVIEW"}
    assert values(Audit, "kind") == set(get_args(Audit.model_fields["kind"].annotation))
    assert values(Reply, "ok") == {True, False}
    assert values(AlarmEvent, "alarm") == {alarm.key for alarm in CATALOGUE}
    last = {payload["alarm"]: payload["state"] for payload in said["alarm"]}
    assert set(last.values()) == {"NORM"}
    assert values(Status, "state") >= {"STOPPED"}
    assert said["alarm_summary"][-1]["active_count"] == 0
    assert said["camera_last"][-1]["part_id"] == said["result"][-1]["part_id"]


@pytest.mark.parametrize("alarm", CATALOGUE, ids=lambda alarm: alarm.key)
def test_an_alarm_goes_through_every_state_that_it_has(alarm: Any) -> None:
    one = SimulatedAlarm(alarm)
    walked = list(one.walk())
    states = set(get_args(AlarmState))
    if not alarm.latching:
        states -= {"LATCH_UNACK", "LATCH_ACKED"}
    else:
        states -= {"RTN_UNACK"}
    if not alarm.max_shelve_min:
        states -= {"SHELVED"}
    assert {transition.after.value for transition in walked} == states
    assert one.standing.state.value == "NORM"
    assert not one.standing.chattering


def test_its_numbers_go_on_the_next_time(mosquitto: Any, tmp_path: Path, wait_for: Any) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    arguments = ("--url", url, "--topic", TOPIC, "--pause-s", 0, "--state", tmp_path)
    with Subscription(BrokerAddress("127.0.0.1", mosquitto.port, "consumer"), TOPIC) as consumer:
        assert run(*arguments).exit_code == 0
        first = heard(consumer, tmp_path)
        assert run(*arguments).exit_code == 0
        assert len(heard(consumer, tmp_path, before=len(first))) == len(first)
        assert consumer.missing == {}


def test_a_configuration_names_the_broker_and_the_topic(
    mosquitto: Any, workshop: Any, make_subscriber: Any, wait_for: Any, tmp_path: Path
) -> None:
    workshop.port = mosquitto.port
    scada = make_subscriber(mosquitto.port)
    toml = workshop.toml("synthetic:board")
    assert run("--config", toml, "--pause-s", 0, "--state", tmp_path / "simulated").exit_code == 0
    wait_for(lambda: scada.payloads("meta"), "what it is made of")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either --url"),
        (("--url", "mqtt://h"), "either --url"),
        (("--url", "mqtt://h", "--topic", "a", "--config", "c"), "either --url"),
        (("--url", "http://h", "--topic", "a"), "mqtt://host"),
        (("--url", "mqtt://h", "--topic", "a/#"), "levels of"),
    ],
)
def test_wrong_usage_is_said(arguments: tuple[str, ...], said: str) -> None:
    error = error_of(run(*arguments))
    assert isinstance(error, ConfigError)
    assert said in str(error)


def test_a_configuration_without_a_broker_is_said(workshop: Any) -> None:
    assert "set mqtt.url" in str(error_of(run("--config", workshop.toml("synthetic:board"))))


def test_a_broker_that_is_not_there_is_said(
    free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.edge_runtime.simulate_cli._CONNECT_S", 0.2)
    error = error_of(run("--url", f"mqtt://127.0.0.1:{free_port}", "--topic", TOPIC, "--state", tmp_path))
    assert isinstance(error, BrokerError)
    assert "no connection to the broker" in str(error)


def test_a_broker_that_takes_nothing_is_said(
    make_mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.edge_runtime.simulate_cli._DRAIN_S", 0.5)
    (tmp_path / "acl").write_text("topic read #\n")
    broker = make_mosquitto(f"acl_file {tmp_path}/acl")
    broker.start()
    url = f"mqtt://127.0.0.1:{broker.port}"
    error = error_of(run("--url", url, "--topic", TOPIC, "--pause-s", 0, "--state", tmp_path / "state"))
    assert "events still wait" in str(error)
