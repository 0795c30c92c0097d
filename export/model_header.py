"""The first look at an ONNX file, without the package onnx: is it one, and can TensorRT know its operators?"""

from __future__ import annotations

from collections.abc import Iterator

from kenpin.errors import EngineError

# TensorRT 10.3 takes opsets 9 to 20; its parser does not refuse newer ones, it misreads them.
OPSETS = range(9, 21)
NEWEST_IR = 10
_IR_VERSION, _GRAPH, _OPSET_IMPORT = 1, 7, 8
_VARINT, _I64, _BYTES, _I32 = 0, 1, 2, 5
_EXPORT_AGAIN = "export the bundle again with this version of kenpin, or update kenpin on this station"


def check_header(model: bytes) -> None:
    """Refuse what is no ONNX file, and opsets that the oldest supported TensorRT does not know.

    Raises:
        EngineError: It says which.
    """
    try:
        fields = list(_fields(memoryview(model)))
        imports = [dict(_fields(v)) for n, v in fields if n == _OPSET_IMPORT and isinstance(v, memoryview)]
    except (IndexError, ValueError):
        raise EngineError("the model is not an ONNX file", cure=_EXPORT_AGAIN) from None
    ir_version = next((v for n, v in fields if n == _IR_VERSION and isinstance(v, int)), 0)
    # The default domain has no name in the file.
    opset = next((v[2] for v in imports if isinstance(v.get(2), int) and not v.get(1)), 0)
    if not any(n == _GRAPH for n, _ in fields) or not ir_version:
        raise EngineError("the model is not an ONNX file", cure=_EXPORT_AGAIN)
    if opset not in OPSETS or ir_version > NEWEST_IR:
        raise EngineError(
            f"the model has opset {opset} and IR version {ir_version}; TensorRT 10.3 reads opsets "
            f"{OPSETS[0]} to {OPSETS[-1]} and IR versions up to {NEWEST_IR}",
            cure=_EXPORT_AGAIN,
        )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of a message's fields, not decoded further.

    https://protobuf.dev/programming-guides/encoding/
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("no field has the number 0")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_I32, _I64):
            size = 4 if kind == _I32 else 8
        else:
            raise ValueError("no such kind of field")
        if at + size > len(message):
            raise ValueError("cut short")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than ten bytes")
