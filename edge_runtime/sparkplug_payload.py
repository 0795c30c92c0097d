"""Payloads of Sparkplug B 3.0: written in full, read as far as a command needs.

A payload is a message of Protocol Buffers. The dozen fields that a station uses are written here by hand, so
that no station needs protobuf. There are no aliases, which every tool would have to resolve, and no UInt32,
which hosts read from two different fields.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from kenpin.errors import BrokerError
from kenpin.proto_fields import BYTES, FIXED64, VARINT, read_fields


class DataType(IntEnum):
    """Data types of metrics, of those in the specification's section 6.4.16."""

    INT32 = 3
    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13  # milliseconds since 1970 in UTC


Scalar: TypeAlias = int | float | bool | str | None
Value: TypeAlias = tuple[DataType, Scalar]

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"
_RANGES = {
    DataType.INT32: range(-(1 << 31), 1 << 31),
    DataType.INT64: range(-(1 << 63), 1 << 63),
    DataType.DOUBLE: range(-(1 << 53), (1 << 53) + 1),  # integers that a double holds exactly
    DataType.DATETIME: range(1 << 63),
}
_KINDS = {DataType.DOUBLE: float, DataType.BOOLEAN: bool, DataType.STRING: str}
# Fields of a payload and of a metric.
_SENT_MS, _METRICS, _SEQ = 1, 2, 3
_NAME, _TIME_MS, _DATATYPE, _IS_NULL = 1, 3, 4, 7
_INT, _LONG, _DOUBLE, _BOOLEAN, _STRING = 10, 11, 13, 14, 15


@dataclass(frozen=True)
class Metric:
    """A metric as it is sent.

    Attributes:
        name: Its name; `/` makes folders.
        value: Data type and value; `None` = null.
        time_ms: When the value was taken, UTC.
    """

    name: str
    value: Value
    time_ms: int


@dataclass(frozen=True)
class Command:
    """A metric of an NCMD or a DCMD.

    Attributes:
        name: Its name; empty where only an alias came, which a station never gives out.
        value: What it is to become, where it is a Boolean; else `None`.
    """

    name: str
    value: bool | None


def checked(name: str, value: Value) -> Value:
    """Check a value before it is kept; a number that is not finite becomes null, which every host knows.

    Raises:
        BrokerError: The name is empty or Sparkplug's own, or the value is not of its data type.
    """
    datatype, scalar = value
    if name in ("", REBIRTH, BD_SEQ):
        raise BrokerError(
            f"a Sparkplug metric cannot have the name {name!r}", where=value, cure="give it a name of its own"
        )
    if scalar is not None and not _fits(datatype, scalar):
        raise BrokerError(
            f"{scalar!r} is no {datatype.name} of Sparkplug", where=name, cure="give a data type that holds it"
        )
    if isinstance(scalar, float) and not math.isfinite(scalar):
        return datatype, None
    return value


def encode_payload(metrics: list[Metric], *, sent_ms: int, seq: int | None) -> bytes:
    """Write a payload.

    Args:
        metrics: What it tells, with values that `checked` let pass.
        sent_ms: When it is sent, UTC.
        seq: Number of the message, 0 to 255; `None` = without one, as an NDEATH must be.
    """
    told = b"".join(_sized(_METRICS, _encode_metric(metric)) for metric in metrics)
    return _number(_SENT_MS, sent_ms) + told + (b"" if seq is None else _number(_SEQ, seq))


def decode_commands(body: bytes) -> list[Command]:
    """Read the payload of an NCMD or a DCMD.

    Raises:
        BrokerError: It is not a payload of Sparkplug B.
    """
    try:
        fields = read_fields(memoryview(body))
        return [_decode_metric(_as_bytes(value)) for number, value in fields if number == _METRICS]
    except ValueError as error:
        raise BrokerError(
            f"the command is no payload of Sparkplug B: {error}",
            where=body[:32].hex(),
            cure="let the host send Sparkplug B 3.0",
        ) from None


def _fits(datatype: DataType, scalar: Scalar) -> bool:
    if isinstance(scalar, int) and not isinstance(scalar, bool):
        return scalar in _RANGES.get(datatype, ())
    return datatype in _KINDS and isinstance(scalar, _KINDS[datatype])


def _encode_metric(metric: Metric) -> bytes:
    datatype, scalar = metric.value
    head = _sized(_NAME, _text(metric.name)) + _number(_TIME_MS, metric.time_ms)
    return head + _number(_DATATYPE, datatype) + _encode_value(datatype, scalar)


def _encode_value(datatype: DataType, scalar: Scalar) -> bytes:
    """The field is that of the data type; a negative integer is the two's complement of its width."""
    if scalar is None:
        return _number(_IS_NULL, 1)
    if isinstance(scalar, str):
        return _sized(_STRING, _text(scalar))
    if datatype is DataType.BOOLEAN:
        return _number(_BOOLEAN, int(scalar))
    if datatype is DataType.DOUBLE:
        return _tag(_DOUBLE, FIXED64) + struct.pack("<d", scalar)
    if datatype is DataType.INT32:
        return _number(_INT, int(scalar) % (1 << 32))
    return _number(_LONG, int(scalar) % (1 << 64))


def _text(text: str) -> bytes:
    # Half a surrogate pair, as in the name of a file, is no text elsewhere.
    return text.encode(errors="replace")


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _number(number: int, value: int) -> bytes:
    return _tag(number, VARINT) + _varint(value)


def _sized(number: int, body: bytes) -> bytes:
    return _tag(number, BYTES) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last one carry the highest bit."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _decode_metric(body: memoryview) -> Command:
    name, value = "", None
    for number, field in read_fields(body):
        if number == _NAME:
            name = str(_as_bytes(field), "utf-8")
        elif number in (_INT, _LONG, _DOUBLE, _BOOLEAN, _STRING):
            value = bool(field) if number == _BOOLEAN else None
    return Command(name, value)


def _as_bytes(field: int | memoryview) -> memoryview:
    if isinstance(field, int):
        raise ValueError("a number stands where a text or a metric should")
    return field
