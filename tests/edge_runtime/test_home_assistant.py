from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from kenpin import __version__
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.home_assistant import discovery, discovery_topic
from kenpin.edge_runtime.station import Station
from kenpin.events import PAYLOADS, Payload

TOPIC = "acme/plant1/press/line2/st.01"
# Of what Home Assistant demands: https://www.home-assistant.io/integrations/mqtt/#discovery-topic
LEVEL = re.compile(r"[a-zA-Z0-9_-]+")


def message() -> dict[str, Any]:
    return dict(json.loads(discovery(TOPIC, sw_version="1.2")))


def payload_of(topic: str) -> type[Payload]:
    """The payload that a station publishes there."""
    below = topic.removeprefix(f"{TOPIC}/")
    (found,) = (p for p in PAYLOADS if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", p.topic), below))
    return found


def test_the_topic_has_only_levels_that_home_assistant_takes() -> None:
    assert all(LEVEL.fullmatch(level) for level in discovery_topic("st.01").split("/"))
    assert discovery_topic("st-01") == "homeassistant/device/st-01/config"


def test_every_template_reads_a_field_that_is_published() -> None:
    for component in message()["components"].values():
        field = re.search(r"value_json\.(\w+)", component["value_template"])
        assert field is not None
        assert field[1] in payload_of(component["state_topic"]).model_fields


def test_every_alarm_is_there_and_nothing_twice() -> None:
    components = message()["components"]
    assert {f"alarm_{alarm.key}" for alarm in CATALOGUE} <= set(components)
    ids = [component["unique_id"] for component in components.values()]
    assert len(set(ids)) == len(ids)
    assert all(c["platform"] in ("sensor", "binary_sensor") for c in components.values())


def test_it_says_who_made_it_and_when_the_station_is_there() -> None:
    made = message()
    assert made["origin"] == {"name": "kenpin", "sw_version": "1.2"}
    assert made["device"]["identifiers"] == ["kenpin_st.01"]
    assert made["availability_topic"] == f"{TOPIC}/status"
    assert "online" in payload_of(made["availability_topic"]).model_fields


def test_the_broker_keeps_it(workshop: Any, mosquitto: Any) -> None:
    workshop.port = mosquitto.port
    config = workshop.ready().config(f"folder:{workshop.pictures(10)}")
    section = config.homeassistant.model_copy(update={"enabled": True})
    with Station(config.model_copy(update={"homeassistant": section})) as station:
        station.run()
    where = ["-h", "127.0.0.1", "-p", str(mosquitto.port), "-t", "homeassistant/#", "-C", "1", "-W", "10"]
    told = subprocess.run(
        ["mosquitto_sub", *where, "-F", "%t %r %p"], capture_output=True, text=True, check=True
    )
    topic, retained, body = told.stdout.split(" ", 2)
    assert (topic, retained) == (discovery_topic("st1"), "1")
    assert json.loads(body) == json.loads(discovery("plant/line/st1", sw_version=__version__))
