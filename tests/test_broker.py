"""The demo's brokers: each starts, carries a message, and is gone afterwards."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from paho.mqtt.publish import single

from kenpin import broker
from kenpin.broker import demo_broker, held_port
from kenpin.demo_subscriber import Subscriber
from kenpin.errors import BrokerError


@pytest.fixture(params=["mosquitto", "amqtt"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "amqtt":
        monkeypatch.setattr(broker, "_search_path", lambda: str(tmp_path))
    elif not shutil.which("mosquitto", path=broker._search_path()):
        pytest.skip("mosquitto is not installed")
    return str(request.param)


def publish(url: str, topic: str, payload: object) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    single(topic, json.dumps(payload), qos=1, hostname=parts.hostname, port=parts.port)


def is_up(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((str(parts.hostname), parts.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def test_carries_events_to_an_independent_reader(kind: str, tmp_path: Path) -> None:
    with demo_broker(None, tmp_path) as running:
        assert running.name == kind
        assert running.url.startswith("mqtt://127.0.0.1:")
        with Subscriber(running.url, "a/b") as reader:
            before = time.time_ns()
            single("a/b/event/anomaly", b"no JSON", hostname="127.0.0.1", port=urlsplit(running.url).port or 0)
            for event in ("one", "two", "two"):
                publish(running.url, "a/b/event/anomaly", {"id": event})
            publish(running.url, "a/c/event/anomaly", {"id": "of another station"})
            reader.wait_for(["one", "two"])
            assert set(reader.received_ns) == {"one", "two"}
            assert before < reader.received_ns["one"] <= reader.received_ns["two"] < time.time_ns()
            reader.wait_for(["never"], timeout_s=0.1)
        assert reader.duplicates == 1
    assert not is_up(running.url)


def test_a_given_broker_is_used_and_left_alone(tmp_path: Path) -> None:
    with demo_broker(None, tmp_path) as running:
        with demo_broker(running.url, tmp_path) as given:
            assert (given.url, given.name) == (running.url, "given")
        assert is_up(running.url)


def test_a_given_broker_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="no broker answers"), demo_broker("mqtt://127.0.0.1:1", tmp_path):
        pass


def test_the_broker_ends_with_an_interrupted_block(kind: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), demo_broker(None, tmp_path) as running:
        raise KeyboardInterrupt
    assert not is_up(running.url)


def test_a_broker_that_dies_at_start_is_reported_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mosquitto").symlink_to("/bin/false")
    monkeypatch.setattr(broker, "_search_path", lambda: str(tmp_path))
    with pytest.raises(BrokerError, match="does not start") as caught, demo_broker(None, tmp_path):
        pass
    assert caught.value.where.endswith("mosquitto.log")


def test_a_held_port_is_nobody_elses_and_a_server_listens_at_it() -> None:
    with held_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)) as server:
            with socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", port))
