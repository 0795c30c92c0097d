"""The fields of a message of Protocol Buffers, read without its package, which no station needs.

Encoding: protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

# Wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The number and the value of each field, not decoded further.

    Raises:
        ValueError: It is no such message; it says why.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("no field has the number 0")
        if wire == VARINT:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if wire == BYTES:
            size, at = _read_varint(message, at)
        elif wire in _WIDTHS:
            size = _WIDTHS[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError("it is cut off")
        yield number, message[at : at + size]
        at += size


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("it is cut off" if len(message) - at < _LONGEST_VARINT else "a number does not end")
