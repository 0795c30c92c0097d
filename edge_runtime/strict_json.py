"""JSON from the network, read so that no two programs can understand it differently (RFC 8259, I-JSON)."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def read_object(data: bytes, *, max_depth: int) -> dict[str, Any]:
    """Read one JSON object.

    Args:
        data: UTF-8 without a byte order mark.
        max_depth: Objects and lists in each other; an object of plain values has depth 1.

    Returns:
        The object. Every number in it is finite, every text can be encoded as UTF-8.

    Raises:
        ValueError: It is anything else, or a key stands in it twice.
    """
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    _check(value, max_depth)
    return value


def _check(value: object, depth: int) -> None:
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair raises: it passes as an escape, but is no text
    elif isinstance(value, dict | list):
        if not depth:
            raise ValueError("nested too deeply")
        for inner in value:
            _check(inner, depth - 1)
        for inner in value.values() if isinstance(value, dict) else ():
            _check(inner, depth - 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
