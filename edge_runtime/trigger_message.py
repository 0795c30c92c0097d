"""The message that triggers a station, from a program of this machine or over MQTT."""

from __future__ import annotations

import json

from kenpin.edge_runtime.source import Trigger

MAX_BYTES = 1024
_MAX_ID_CHARS = 200


def read_trigger(data: bytes) -> Trigger | None:
    """Read a trigger: a number, or JSON with `trigger_id` and perhaps `part_id`; `None` if it is neither."""
    if len(data) > MAX_BYTES:
        return None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, int):
        content = {"trigger_id": content}
    if not isinstance(content, dict) or content.keys() - {"trigger_id", "part_id"}:
        return None
    number, part_id = content.get("trigger_id"), content.get("part_id", "")
    if type(number) is not int or not 0 <= number < 2**63:
        return None
    if not isinstance(part_id, str) or len(part_id) > _MAX_ID_CHARS or not part_id.isprintable():
        return None
    return Trigger(number, part_id)
