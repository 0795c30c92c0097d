"""NVIDIA's own parser and strongly typed builder accept both models. It needs no GPU."""

from __future__ import annotations

import pytest
import tensorrt_rtx as trt
from onnx import ModelProto


def build(model: ModelProto) -> tuple[bool, int, list[str]]:
    """Parse and build; returns whether it parsed, the size of the engine and what was complained about."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(model.SerializeToString())
    complaints = [parser.get_error(n).desc() for n in range(parser.num_errors)]
    engine = builder.build_serialized_network(network, builder.create_builder_config()) if parsed else None
    return parsed, 0 if engine is None else engine.nbytes, complaints


@pytest.mark.parametrize("name", ["float_model", "int8_model"])
def test_builds(name: str, request: pytest.FixtureRequest) -> None:
    parsed, size, complaints = build(request.getfixturevalue(name))
    assert parsed, complaints
    assert size > 0


def test_refuses_what_the_audit_refuses(int8_model: ModelProto) -> None:
    """A zero point other than 0, to be sure that the check above can fail."""
    broken = ModelProto()
    broken.CopyFrom(int8_model)
    name = next(n for n in broken.graph.node if n.op_type == "QuantizeLinear").input[2]
    next(t for t in broken.graph.initializer if t.name == name).raw_data = b"\x03"
    parsed, _, complaints = build(broken)
    assert not parsed
    assert complaints
