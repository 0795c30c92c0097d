"""The first look at an ONNX file, without the package onnx: is it one, and can TensorRT know its operators?"""

from __future__ import annotations

from kenpin.errors import EngineError
from kenpin.proto_fields import read_fields

# TensorRT 10.3 takes opsets 9 to 20; its parser does not refuse newer ones, it misreads them.
OPSETS = range(9, 21)
NEWEST_IR = 10
_IR_VERSION, _GRAPH, _OPSET_IMPORT = 1, 7, 8
_EXPORT_AGAIN = "export the bundle again with this version of kenpin, or update kenpin on this station"


def check_header(model: bytes) -> None:
    """Refuse what is no ONNX file, and opsets that the oldest supported TensorRT does not know.

    Raises:
        EngineError: It says which.
    """
    try:
        fields = list(read_fields(memoryview(model)))
        imports = [dict(read_fields(v)) for n, v in fields if n == _OPSET_IMPORT and isinstance(v, memoryview)]
    except ValueError:
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
