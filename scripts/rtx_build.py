"""A dry run with NVIDIA's own parser and strongly typed builder, TensorRT-RTX, which needs no GPU.

It shows that the graph is one that TensorRT takes. It says nothing about speed or numbers on a Jetson: it
builds for other GPUs, and the engine runs nowhere here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from onnx import ModelProto


@dataclass(frozen=True)
class RtxBuild:
    """What NVIDIA's builder made of a graph.

    Attributes:
        version: Of TensorRT-RTX.
        parsed: Whether the parser took it.
        engine_bytes: Size of the engine; 0 where none was built.
        complaints: What the parser said.
    """

    version: str
    parsed: bool
    engine_bytes: int
    complaints: tuple[str, ...]


def has_rtx() -> bool:
    """Whether TensorRT-RTX is installed (the extra `rtx-check`)."""
    return find_spec("tensorrt_rtx") is not None


def build_with_rtx(model: ModelProto) -> RtxBuild:
    """Parse and build a graph. TensorRT-RTX must be installed."""
    # Large and proprietary: installed only where somebody asked for it.
    import tensorrt_rtx  # noqa: PLC0415

    trt: Any = tensorrt_rtx
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(model.SerializeToString())
    complaints = tuple(parser.get_error(n).desc() for n in range(parser.num_errors))
    engine = builder.build_serialized_network(network, builder.create_builder_config()) if parsed else None
    return RtxBuild(trt.__version__, parsed, 0 if engine is None else engine.nbytes, complaints)
