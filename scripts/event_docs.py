"""Write docs/schemas/ and docs/asyncapi.json from the payload models, or check that they are up to date.

    python scripts/event_docs.py [--check]

JSON Schema is of draft 2020-12; AsyncAPI is 3.0. Nothing is to be edited there by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kenpin.edge_runtime.command import Envelope
from kenpin.events import PAYLOADS, Alarm, AlarmSummary, CameraLast, Kpi, Meta, Payload, Status

DOCS = Path(__file__).parent.parent / "docs"
RETAINED = (Status, Meta, Alarm, AlarmSummary, CameraLast)
NOT_ACKNOWLEDGED = (Kpi,)
COMMAND = "command"
PARAMETERS = {
    "prefix": "The station's topic, for example acme/plant1/press/line2/st-01: at most eight levels.",
    "alarm": "Key of the alarm, from a fixed list (`alarm_keys` in `meta`).",
    "camera": "Name of the camera (`camera_ids` in `meta`).",
    "action": "Name of the command.",
}
USER_PROPERTIES = {
    "type": "object",
    "description": "User properties of MQTT 5: a CloudEvent 1.0 in binary mode. MQTT 3.1.1 has none.",
    "required": ["specversion", "id", "source", "type", "time"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string"},
        "source": {"type": "string"},
        "type": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
    },
}


def write_or_check(made: dict[Path, str], description: str | None) -> int:
    """Write the files, or check them with `--check`; 1 where one is not up to date.

    Args:
        made: What stands in each of them.
        description: What `--help` says.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'not up to date' if check else 'written'}: {path}", file=sys.stderr)  # noqa: T201
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path])
    return 1 if check and stale else 0


def documents() -> dict[Path, str]:
    """Every generated file and its text."""
    found: dict[Path, Any] = {DOCS / "schemas" / f"{m.title}.schema.json": schema(m) for m in PAYLOADS}
    found[DOCS / "asyncapi.json"] = asyncapi()
    return {path: json.dumps(content, indent=1) + "\n" for path, content in found.items()}


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a payload."""
    made = model.model_json_schema(by_alias=True, mode="serialization")
    made["description"] = summary(model)
    told = meanings(model)
    for name, field in made["properties"].items():
        field.pop("title", None)  # the name once more
        if name in told:
            field["description"] = told[name]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def summary(model: type[BaseModel]) -> str:
    """What a payload is, from its docstring."""
    return " ".join((model.__doc__ or "").split("Attributes:")[0].split())


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and of those it is made of say of the fields, by key of the JSON."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        attributes = (base.__doc__ or "").partition("Attributes:\n")[2]
        for entry in re.split(r"\n(?=\s{0,8}\w+: )", attributes):
            name, colon, text = entry.strip().partition(": ")
            if colon and name in model.model_fields:
                found[model.model_fields[name].alias or name] = " ".join(text.split())
    return found


def asyncapi() -> dict[str, Any]:
    """What a station sends and what it takes, in AsyncAPI 3.0."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "kenpin station",
            "version": "1",
            "description": "What a station publishes over MQTT, and the commands it takes. See events.md.",
        },
        "defaultContentType": "application/json",
        "channels": {m.title: _channel(m) for m in PAYLOADS} | {COMMAND: _command_channel()},
        "operations": {f"send_{m.title}": _operation(m) for m in PAYLOADS} | {"receive_command": _reception()},
        "components": {"messages": {m.title: _message(m) for m in PAYLOADS} | {COMMAND: _command()}},
    }


def _channel(model: type[Payload]) -> dict[str, Any]:
    return _at(f"{{prefix}}/{model.topic}", model.title)


def _command_channel() -> dict[str, Any]:
    return _at("{prefix}/cmd/{action}", COMMAND)


def _at(address: str, name: str) -> dict[str, Any]:
    return {
        "address": address,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {p: {"description": text} for p, text in PARAMETERS.items() if f"{{{p}}}" in address},
    }


def _operation(model: type[Payload]) -> dict[str, Any]:
    binding: dict[str, Any] = {
        "qos": 0 if model in NOT_ACKNOWLEDGED else 1,
        "retain": model in RETAINED,
        "bindingVersion": "0.2.0",
    }
    if model.expiry_s:
        binding["messageExpiryInterval"] = model.expiry_s
    return _doing("send", model.title, binding)


def _reception() -> dict[str, Any]:
    return _doing("receive", COMMAND, {"qos": 1, "retain": False, "bindingVersion": "0.2.0"})


def _doing(action: str, name: str, binding: dict[str, Any]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "bindings": {"mqtt": binding},
    }


def _message(model: type[Payload]) -> dict[str, Any]:
    return {
        "name": model.title,
        "contentType": "application/json",
        "headers": USER_PROPERTIES,
        "payload": {"$ref": f"schemas/{model.title}.schema.json"},
    }


def _command() -> dict[str, Any]:
    payload = Envelope.model_json_schema()
    return {"name": COMMAND, "contentType": "application/json", "payload": payload}


if __name__ == "__main__":
    sys.exit(write_or_check(documents(), __doc__))
