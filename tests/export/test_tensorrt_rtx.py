"""NVIDIA's own parser and strongly typed builder accept what export writes. It needs no GPU."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import types
from pathlib import Path

import pytest
import torch
from onnx import ModelProto
from rtx_build import build_with_rtx, has_rtx

from kenpin.errors import EngineError
from kenpin.export.audit import audit
from kenpin.export.build_engine import BuildOrder, build_plan
from kenpin.export.equalise import equalise
from kenpin.export.fallback import Recipe
from kenpin.export.half import to_half
from kenpin.export.onnx_model import ENCODER, to_onnx
from kenpin.export.placement import find_placement
from kenpin.export.quantize import quantize
from kenpin.export.scheme import Scheme
from kenpin.precision import Precision
from kenpin.train.run import load_inspector
from tests.export.conftest import waves


@pytest.mark.parametrize("name", ["float_model", "int8_model", "pair_model", "half_model"])
def test_builds(name: str, request: pytest.FixtureRequest) -> None:
    assert has_rtx()
    built = build_with_rtx(request.getfixturevalue(name))
    assert built.parsed, built.complaints
    assert built.engine_bytes > 0


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_builds_with_convolutions_returned_to_float(
    float_model: ModelProto, ranges: dict[str, float], precision: str
) -> None:
    floats = [f"{ENCODER}{name}.weight" for name in ("conv1", "layer2.0.downsample.0", "layer3.1.conv2")]
    mixed = quantize(float_model, find_placement(float_model, floats=floats), ranges, Scheme("fp16"))
    mixed = to_half(mixed) if precision == "fp16" else mixed
    audit(mixed, floats=floats)
    built = build_with_rtx(mixed)
    assert built.parsed, built.complaints
    assert built.engine_bytes > 0


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_builds_equalised_with_the_head_stored_small(run: Path, precision: Precision) -> None:
    """The real head: banks and components as int8, maps as fp16."""
    even = equalise(to_onnx(load_inspector(run), shape=(64, 64)), waves(4, seed=0))
    placement = find_placement(even)
    recipe = Recipe(even, dict.fromkeys(placement.activations, 20.0), Scheme(precision))
    built = build_with_rtx(recipe.make(placement))
    assert built.parsed, built.complaints
    assert built.engine_bytes > 0


@pytest.mark.parametrize("shape", [(32, 112), (112, 32), (16, 208)])
def test_builds_with_strips(run: Path, shape: tuple[int, int]) -> None:
    built = build_with_rtx(to_onnx(load_inspector(run), shape=shape))
    assert built.parsed, built.complaints
    assert built.engine_bytes > 0


def test_refuses_what_the_audit_refuses(int8_model: ModelProto) -> None:
    """A zero point other than 0, to be sure that the check above can fail."""
    broken = ModelProto()
    broken.CopyFrom(int8_model)
    name = next(n for n in broken.graph.node if n.op_type == "QuantizeLinear").input[2]
    next(t for t in broken.graph.initializer if t.name == name).raw_data = b"\x03"
    built = build_with_rtx(broken)
    assert not built.parsed
    assert built.complaints
    assert built.engine_bytes == 0


@pytest.fixture
def rtx_as_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("tensorrt")
    stand_in.__dict__.update(vars(importlib.import_module("tensorrt_rtx")), __version__="10.0.rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)


@pytest.mark.parametrize("phase", ["Building engine", "Timing tactics"])
@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
def test_ctrl_c_ends_a_build(
    pair_model: ModelProto, tmp_path: Path, rtx_as_tensorrt: None, ctrl_c: None, phase: str
) -> None:
    """NVIDIA's bindings print an exception and go on; the signal comes up in their next call to Python."""
    pressed = threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGINT))

    def listen(name: str, _share: float) -> None:
        if name == phase and pressed.ident is None:
            pressed.start()  # comes up after this call

    order = BuildOrder(pair_model.SerializeToString(), 256, tmp_path / "cache", b"key", listen)
    with pytest.raises(KeyboardInterrupt):
        build_plan(order)
    assert not (tmp_path / "cache").exists()  # it did not go on to its end


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
def test_what_a_station_asks_of_tensorrt_exists_up_to_the_engine(
    pair_model: ModelProto, tmp_path: Path, rtx_as_tensorrt: None
) -> None:
    """NVIDIA's own objects take every call of a build; only loading the engine needs a GPU."""
    heard: list[str] = []
    model = pair_model.SerializeToString()
    order = BuildOrder(model, 256, tmp_path / "cache", b"key", lambda phase, _: heard.append(phase))
    with pytest.raises(EngineError, match=r"cannot load the engine that it has just built: .*CUDA driver"):
        build_plan(order)
    assert (tmp_path / "cache").exists()
