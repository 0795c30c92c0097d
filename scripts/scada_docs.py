"""Write the generated files of docs/scada/ from the payload models and the alarm catalogue, or check them.

    python scripts/scada_docs.py [--check]

`topics.md`, `fields.md`, `alarms.md` and `ignition-tags.json` are not to be edited by hand; the others are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from event_docs import RETAINED, meanings, summary, write_or_check
from pydantic.fields import FieldInfo

from kenpin.edge_runtime.alarm_catalogue import CATALOGUE, AlarmSpec
from kenpin.events import PAYLOADS, Alarm, AlarmSummary, Kpi, Meta, Payload, Status

DOCS = Path(__file__).parent.parent / "docs/scada"
MADE = "<!-- Written by scripts/scada_docs.py; not to be edited by hand. -->\n\n"
MOMENTS = ("ts_ms", "raised_ms", "acked_ms", "cleared_ms", "shelved_until_ms", "connected_ms")
UNITS = {"ms": "ms", "s": "s", "px": "px", "mm2": "mm2", "c": "degC", "w": "W", "bytes": "B", "fps": "1/s"}
SHARES = ("ng_rate", "ng_rate_window")
PRIORITIES = ("Diagnostic", "Low", "Medium", "High", "Critical")
# Int8 has eight bytes in Ignition.
IGNITION = {"string": "String", "whole number": "Int8", "number": "Float8", "true or false": "Boolean"}
TYPES: dict[Any, str] = {str: "string", int: "whole number", float: "number", bool: "true or false"}


def documents() -> dict[Path, str]:
    """Every generated file and its text."""
    return {
        DOCS / "topics.md": MADE + topics(),
        DOCS / "fields.md": MADE + fields(),
        DOCS / "alarms.md": MADE + alarms(),
        DOCS / "ignition-tags.json": json.dumps(ignition(), indent=1) + "\n",
    }


def topics() -> str:
    """The topic map."""
    rows = [_topic(model) for model in PAYLOADS]
    command = ("`cmd/<action>`", "1", "**never**", "", "kenpin.command.v1", "SCADA -> station: signed commands")
    head = ("topic", "QoS", "retained", "expires", "schema", "what")
    return (
        "# Topics\n\nBelow the station's topic, such as `acme/plant1/press/line2/st-01`; its last level is the "
        "station's id. `expires`: MQTT 5 only.\n\n" + _table(head, [*rows, command])
    )


def fields() -> str:
    """Every field of every payload."""
    parts = [
        "# Fields\n",
        "Every key is always there, never null. Integers fit into 64 bits.\n",
        "## All payloads\n",
    ]
    parts.append(_field_table(Payload, list(Payload.model_fields)))
    for model in PAYLOADS:
        own = [name for name in model.model_fields if name not in Payload.model_fields]
        parts.append(f"## `{_shown(model)}`\n\n{summary(model)}\n")
        parts.append(_field_table(model, own))
    return "\n".join(parts)


def alarms() -> str:
    """The alarm response table, by priority."""
    ordered = sorted(CATALOGUE, key=lambda alarm: (-alarm.priority, -alarm.severity))
    head = (
        "alarm",
        "priority",
        "severity",
        "what is wrong",
        "what the operator does",
        "raised",
        "over",
        "shelf",
    )
    return (
        "# Alarm response\n\nA part judged NG is an event and no alarm. `raised`: from this value on, after "
        "this time; `over`: below this value, after this time; a latching alarm then waits for a reset. "
        "`shelf`: the longest time it may be silenced.\n\n"
        + _table(head, [_alarm_row(alarm) for alarm in ordered])
    )


def ignition() -> dict[str, Any]:
    """A tag export of Ignition 8: a type of station whose tags refer to what MQTT Engine has received."""
    folders: dict[str, list[dict[str, Any]]] = {}
    for model in (Status, Meta, AlarmSummary, Kpi):
        folders[model.topic] = [_tag(model, name, model.topic) for name in model.model_fields]
    names = (
        "state",
        "active",
        "acked",
        "shelved",
        "value",
        "raised_ms",
        "acked_by",
        "occurrence",
        "chattering",
    )
    for alarm in CATALOGUE:
        path = Alarm.topic.format(alarm=alarm.key)
        tags = [_tag(Alarm, name, path) for name in names]
        tags[1]["alarms"] = [_ignition_alarm(alarm)]
        folders[f"alarm_{alarm.key}"] = tags
    source = {"dataType": "String", "value": "[MQTT Engine]kenpin/acme/plant1/press/line2/st-01"}
    station = {"name": "KenpinStation", "tagType": "UdtType", "parameters": {"source": source}}
    return {**station, "tags": [_folder(name, tags) for name, tags in folders.items()]}


def _topic(model: type[Payload]) -> tuple[str, ...]:
    is_retained = "yes" if model in RETAINED else "no"
    expires = f"{model.expiry_s} s" if model.expiry_s else ""
    schema = model.model_fields["schema_"].default
    return f"`{_shown(model)}`", "0" if model is Kpi else "1", is_retained, expires, schema, summary(model)


def _shown(model: type[Payload]) -> str:
    return re.sub(r"\{(\w+)\}", r"<\1>", model.topic)


def _field_table(model: type[Payload], names: list[str]) -> str:
    told = meanings(model)
    keys = {name: _key(model, name) for name in names}
    rows = [
        (f"`{key}`", _kind(model.model_fields[name]), _unit(name), told.get(key, ""))
        for name, key in keys.items()
    ]
    return _table(("field", "type", "unit", "meaning"), rows)


def _key(model: type[Payload], name: str) -> str:
    return model.model_fields[name].alias or name


def _kind(field: FieldInfo) -> str:
    if field.annotation in TYPES:
        return TYPES[field.annotation]
    return "one of: " + ", ".join(f"`{word}`" if word else "empty" for word in _words(field.annotation))


def _words(annotation: Any) -> Iterator[str]:
    for part in get_args(annotation):
        yield from [part] if isinstance(part, str) else _words(part)


def _unit(name: str) -> str:
    if name in MOMENTS:
        return "ms since 1970, UTC"
    if name in SHARES:
        return "share, 0 to 1"
    parts = [UNITS[part] for part in name.split("_") if part in UNITS]
    return parts[-1] if parts else ""


def _alarm_row(alarm: AlarmSpec) -> tuple[str, ...]:
    m, n = alarm.of_last
    some = f", {m} of the last {n} parts" if n > 1 else ""
    leaves = alarm.limit - alarm.deadband
    return (
        f"`{alarm.key}`",
        f"{alarm.priority} {PRIORITIES[alarm.priority].lower()}",
        str(alarm.severity),
        alarm.message,
        alarm.operator_action,
        f"{_amount(alarm.limit, alarm.unit)}{some}, {alarm.on_delay_s:g} s",
        f"{_amount(leaves, alarm.unit)}, {alarm.off_delay_s:g} s{'; latches' if alarm.latching else ''}",
        f"{alarm.max_shelve_min} min" if alarm.max_shelve_min else "never",
    )


def _amount(value: float, unit: str) -> str:
    return "condition" if unit == "bool" else f"{value:g}" + ("" if unit == "1" else f" {unit}")


def _folder(name: str, tags: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "tagType": "Folder", "tags": tags}


def _tag(model: type[Payload], name: str, path: str) -> dict[str, Any]:
    key = _key(model, name)
    kind = _kind(model.model_fields[name])
    tag = {
        "name": key,
        "tagType": "AtomicTag",
        "valueSource": "reference",
        "dataType": IGNITION.get(kind, "String"),
        "sourceTagPath": {"bindType": "parameter", "binding": f"{{source}}/{path}/{key}"},
    }
    told = {"engUnit": _unit(name), "documentation": meanings(model).get(key, "")}
    return {**tag, **{key: text for key, text in told.items() if text}}


def _ignition_alarm(alarm: AlarmSpec) -> dict[str, Any]:
    """An alarm that is active while the tag is true."""
    return {
        "name": alarm.key,
        "mode": "Equality",
        "setpointA": 1,
        "priority": PRIORITIES[alarm.priority],
        "label": alarm.message,
        "notes": alarm.operator_action,
    }


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(write_or_check(documents(), __doc__))
