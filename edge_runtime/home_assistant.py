"""What Home Assistant needs to find a station by itself: one retained message (MQTT device discovery).

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload. The station's alarms become binary
sensors, its counters sensors; all are unavailable while the status says that the station is offline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kenpin.edge_runtime.alarm_catalogue import CATALOGUE, AlarmSpec
from kenpin.events import Alarm, AlarmSummary, Kpi, Status


@dataclass(frozen=True)
class _Number:
    field: str
    name: str
    unit: str = ""
    more: tuple[tuple[str, str], ...] = ()


_TOTAL = (("state_class", "total_increasing"),)
_NOW = (("state_class", "measurement"),)
_NUMBERS = (
    _Number("parts_total", "Parts", more=_TOTAL),
    _Number("ng_total", "NG parts", more=_TOTAL),
    _Number("ng_rate", "NG share", more=_NOW),
    _Number("latency_ms_p99", "Latency p99", "ms", (*_NOW, ("device_class", "duration"))),
    _Number("outbox_depth", "Events waiting", more=_NOW),
)


def discovery_topic(station: str) -> str:
    """Where the message goes, retained. An empty one there makes Home Assistant forget the station.

    Args:
        station: The station's id. Home Assistant allows no dot in it, so one becomes `_`.
    """
    return f"homeassistant/device/{station.replace('.', '_')}/config"


def discovery(topic: str, *, sw_version: str) -> bytes:
    """The message, JSON.

    Args:
        topic: The station's prefix.
        sw_version: Of kenpin.
    """
    station = topic.rpartition("/")[2]
    components = {
        "state": _sensor(f"{topic}/{Status.topic}", "state", "State"),
        "alarms": _sensor(f"{topic}/{AlarmSummary.topic}", "active_count", "Active alarms"),
        **{number.field: _number(topic, number) for number in _NUMBERS},
        **{f"alarm_{alarm.key}": _alarm(topic, alarm) for alarm in CATALOGUE},
    }
    for key, component in components.items():
        component["unique_id"] = f"kenpin_{station}_{key}"
    message = {
        "device": {"identifiers": [f"kenpin_{station}"], "name": station, "sw_version": sw_version},
        "origin": {"name": "kenpin", "sw_version": sw_version},
        "components": components,
        "availability_topic": f"{topic}/{Status.topic}",
        "availability_template": "{{ 'online' if value_json.online else 'offline' }}",
        "qos": 1,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _sensor(topic: str, field: str, name: str) -> dict[str, Any]:
    return {
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": f"{{{{ value_json.{field} }}}}",
        "json_attributes_topic": topic,
    }


def _number(topic: str, number: _Number) -> dict[str, Any]:
    unit = {"unit_of_measurement": number.unit} if number.unit else {}
    sensor = _sensor(f"{topic}/{Kpi.topic}", number.field, number.name)
    del sensor["json_attributes_topic"]  # the whole kpi at each number, every ten seconds
    return {**sensor, **unit, **dict(number.more)}


def _alarm(topic: str, alarm: AlarmSpec) -> dict[str, Any]:
    place = f"{topic}/{Alarm.topic.format(alarm=alarm.key)}"
    sensor = _sensor(place, "active", alarm.message)
    is_on = "{{ 'ON' if value_json.active else 'OFF' }}"
    return {**sensor, "platform": "binary_sensor", "device_class": "problem", "value_template": is_on}
