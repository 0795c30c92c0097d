"""What MQTT 5 says of a message beside its payload: content type, end of life, attributes of CloudEvents 1.0.

The MQTT binding of CloudEvents knows a binary mode for MQTT 5 only: the payload stays as it is, and the
attributes travel as user properties. A message over MQTT 3.1.1 is no CloudEvent.
"""

from __future__ import annotations

import json

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def message_properties(body: bytes, *, source: str, expiry_s: int = 0) -> Properties:
    """Properties of PUBLISH.

    Args:
        body: The payload.
        source: The station's topic: who speaks.
        expiry_s: For how many seconds a broker may keep it for somebody; 0 = for ever.
    """
    properties = _described(PacketTypes.PUBLISH, body, source)
    if expiry_s:
        properties.MessageExpiryInterval = expiry_s
    return properties


def will_properties(body: bytes, *, source: str) -> Properties:
    """The same for the last will."""
    return _described(PacketTypes.WILLMESSAGE, body, source)


def attributes(body: bytes, *, source: str) -> list[tuple[str, str]]:
    """The attributes of CloudEvents; none where the payload is not one of `kenpin.events`.

    Raises:
        ValueError: It is no JSON: it was damaged on the disk.
    """
    payload = json.loads(body) if body else {}
    if not all(isinstance(payload.get(name), str) for name in ("schema", "id", "ts")):
        return []
    return [
        ("specversion", "1.0"),
        ("id", payload["id"]),
        ("source", source),
        ("type", payload["schema"]),
        ("time", payload["ts"]),
    ]


def _described(packet: int, body: bytes, source: str) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json"
    properties.PayloadFormatIndicator = 1  # UTF-8
    found = attributes(body, source=source)
    if found:
        properties.UserProperty = found
    return properties
