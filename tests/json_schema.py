"""As much of JSON Schema as flat objects need: what is published is checked by other code than made it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_KEYWORDS = {"type", "const", "enum", "default", "minimum", "maximum", "pattern", "anyOf", "description"}
_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def misfits(body: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Why an object does not fit, in words."""
    known, needed = schema["properties"], schema["required"]
    assert schema["additionalProperties"] is False
    found = [f"{name} is missing" for name in needed if name not in body]
    found += [f"{name} is not known" for name in body if name not in known]
    for name, rule in known.items():
        if name in body:
            found += [f"{name} {misfit}" for misfit in _misfits(body[name], rule)]
    return found


def _misfits(value: Any, rule: Mapping[str, Any]) -> Iterable[str]:
    assert rule.keys() <= _KEYWORDS, rule
    if "anyOf" in rule:
        if all(list(_misfits(value, one)) for one in rule["anyOf"]):
            yield f"is not allowed: {value}"
        return
    if not isinstance(value, _TYPES[rule["type"]]) or isinstance(value, bool) != (rule["type"] == "boolean"):
        yield f"is no {rule['type']}"
        return
    if value not in rule.get("enum", [rule.get("const", value)]):
        yield f"is not allowed: {value}"
    if not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        yield f"is out of range: {value}"
    if "pattern" in rule and not re.search(rule["pattern"], value):
        yield f"is not spelt right: {value}"
