"""Large constants of the head, stored small: what they become, what it costs, and what the audit sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from kenpin.export.audit import audit, find_faults
from kenpin.export.half import to_half
from kenpin.export.head_weights import store_head
from kenpin.export.onnx_model import HALF_OPSET, check_model, to_onnx
from kenpin.export.outputs import Fusion, run_onnx
from kenpin.export.parity import sqnr_db
from kenpin.export.placement import find_placement
from kenpin.export.quantize import quantize
from kenpin.export.samples import choose_rows, read_samples
from kenpin.export.scheme import Scheme
from kenpin.train.run import RunFolder, load_inspector

BANKS = ("inspector.head.bank8.bank", "inspector.head.bank16.bank")
BASES = tuple(f"inspector.head.{name}.components.basis" for name in ("pattern", "grain"))
OFFSET = "inspector.head.offset"


@pytest.fixture(scope="module")
def trained(run: Path) -> ModelProto:
    """The real head, in float."""
    return to_onnx(load_inspector(run), shape=(64, 64))


@pytest.fixture(scope="module")
def small(trained: ModelProto) -> ModelProto:
    """All of it in INT8."""
    return store_head(quantize(trained, find_placement(trained), dict.fromkeys(activations(trained), 20.0)))


def activations(model: ModelProto) -> tuple[str, ...]:
    return find_placement(model).activations


def constants(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_banks_and_components_are_int8(trained: ModelProto, small: ModelProto) -> None:
    check_model(small, shape=(64, 64))
    audit(small)
    before, after = constants(trained), constants(small)
    for name, axis in (*((bank, 1) for bank in BANKS), *((basis, 0) for basis in BASES)):
        assert name not in after
        steps, scale = after[f"{name}_int8"], np.expand_dims(after[f"{name}_scale"], 1 - axis)
        assert steps.dtype == np.int8
        assert (np.abs(steps * scale - before[name]) <= 0.5001 * scale).all()
    assert after[f"{OFFSET}_half"].dtype == np.float16 if before[OFFSET].size >= 4096 else OFFSET in after


def test_squares_are_those_of_the_stored_places(small: ModelProto) -> None:
    _check_squares(small)


def test_squares_of_a_large_bank_are_no_less_exact(
    trained: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.export.head_weights.LEAST_NUMBERS", 100)
    _check_squares(store_head(trained))


def _check_squares(model: ModelProto) -> None:
    found = constants(model)
    for bank in BANKS:
        places = found[f"{bank}_int8"] * found[f"{bank}_scale"].astype(np.float64)
        np.testing.assert_allclose(
            found[f"{bank.removesuffix('.bank')}.squares"], (places**2).sum(0), rtol=1e-5
        )


def test_file_is_less_than_three_tenths_of_float(trained: ModelProto, small: ModelProto) -> None:
    assert small.ByteSize() < 0.3 * trained.ByteSize()


@pytest.mark.parametrize("fusion", [Fusion.NONE, Fusion.BASIC])
def test_scores_hardly_move(trained: ModelProto, run: Path, fusion: Fusion) -> None:
    folder = RunFolder(run)
    pictures = read_samples(choose_rows(folder.data), shape=(64, 64)).all
    exact = run_onnx(trained, pictures, fusion=Fusion.FULL)
    stored = run_onnx(store_head(trained), pictures, fusion=fusion)
    assert sqnr_db(exact.anomaly_map, stored.anomaly_map) > 35
    assert np.abs(exact.score - stored.score).max() < 0.05 * exact.score.std()


def test_a_field_that_fp16_does_not_hold_stays_float(trained: ModelProto) -> None:
    loud = ModelProto()
    loud.CopyFrom(trained)
    wide = np.full((6, 32, 32), 0.5, np.float32)
    for tensor in loud.graph.initializer:
        if tensor.name in (OFFSET, "inspector.head.scale"):
            wide[0, 0, 0] = 1e6 if tensor.name == OFFSET else 1
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    found = constants(store_head(loud))
    assert OFFSET in found
    assert found["inspector.head.scale_half"].dtype == np.float16


def test_what_is_no_matrix_stays_float(trained: ModelProto) -> None:
    cube = ModelProto()
    cube.CopyFrom(trained)
    cube.graph.initializer.append(numpy_helper.from_array(np.ones((2, 50, 50), np.float32), "cube"))
    cube.graph.node.append(helper.make_node("MatMul", ["cube", "cube"], ["product"], name="product"))
    cube.graph.initializer.append(numpy_helper.from_array(np.full((90, 90), 1e5, np.float32), "plane"))
    cube.graph.node.append(helper.make_node("Add", ["plane", "plane"], ["sum"], name="sum"))
    found = constants(store_head(cube))
    assert found["cube"].dtype == found["plane"].dtype == np.float32


@pytest.mark.parametrize("faint", [0.0, 1e-45])
def test_a_place_of_zeros_stays_zero(trained: ModelProto, faint: float) -> None:
    """And so does one whose scale would be too small to be a normal number."""
    dead = ModelProto()
    dead.CopyFrom(trained)
    bank = constants(trained)[BANKS[0]].copy()
    bank[:, 3] = faint
    replace(dead, BANKS[0], bank)
    ranges = dict.fromkeys(activations(dead), 20.0)
    small = store_head(quantize(dead, find_placement(dead), ranges))
    audit(small)
    assert not constants(small)[f"{BANKS[0]}_int8"][:, 3].any()


def test_beside_fp16(trained: ModelProto) -> None:
    ranges = dict.fromkeys(activations(trained), 20.0)
    half = store_head(to_half(quantize(trained, find_placement(trained), ranges, Scheme("fp16"))))
    check_model(half, shape=(64, 64), opset=HALF_OPSET)
    audit(half)
    assert constants(half)[f"{BANKS[0]}_scale"].dtype == np.float32


def of_bank(model: ModelProto) -> NodeProto:
    found: NodeProto = next(n for n in model.graph.node if n.output[0] == BANKS[0])
    return found


def replace(model: ModelProto, name: str, value: NDArray[Any]) -> None:
    next(t for t in model.graph.initializer if t.name == name).CopyFrom(numpy_helper.from_array(value, name))


def _zero_point(model: ModelProto) -> None:
    replace(model, f"{BANKS[0]}_zero", np.ones(1000, np.int8))


def _least_step(model: ModelProto) -> None:
    steps = constants(model)[f"{BANKS[0]}_int8"].copy()
    steps.flat[5] = -128
    replace(model, f"{BANKS[0]}_int8", steps)


def _dead_scale(model: ModelProto) -> None:
    scale = constants(model)[f"{BANKS[0]}_scale"].copy()
    scale[7] = 0
    replace(model, f"{BANKS[0]}_scale", scale)


def _infinite_scale(model: ModelProto) -> None:
    scale = constants(model)[f"{BANKS[0]}_scale"].copy()
    scale[7] = np.inf
    replace(model, f"{BANKS[0]}_scale", scale)


def _subnormal_scale(model: ModelProto) -> None:
    replace(model, f"{BANKS[0]}_scale", np.full(1000, 1e-39, np.float32))


def _half_scale(model: ModelProto) -> None:
    replace(model, f"{BANKS[0]}_scale", constants(model)[f"{BANKS[0]}_scale"].astype(np.float16))


def _uint8(model: ModelProto) -> None:
    replace(model, f"{BANKS[0]}_int8", constants(model)[f"{BANKS[0]}_int8"].view(np.uint8))
    replace(model, f"{BANKS[0]}_zero", np.zeros(1000, np.uint8))


def _axis_from_the_end(model: ModelProto) -> None:
    of_bank(model).attribute[0].i = -1


def _one_scale(model: ModelProto) -> None:
    replace(model, f"{BANKS[0]}_scale", np.float32(0.1))
    replace(model, f"{BANKS[0]}_zero", np.int8(0))


def _one_zero(model: ModelProto) -> None:
    replace(model, f"{BANKS[0]}_zero", np.int8(0))


def _computed_scale(model: ModelProto) -> None:
    of_bank(model).input[1] = "score"


def _other_reader(model: ModelProto) -> None:
    next(n for n in model.graph.node if n.op_type == "Gemm" and BANKS[0] in n.input).op_type = "Add"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_zero_point, "its zero point 0"),
        (_least_step, "int8 in -127..127"),
        (_dead_scale, "must be float32, finite and positive"),
        (_infinite_scale, "must be float32, finite and positive"),
        (_subnormal_scale, "must be float32, finite and positive"),
        (_half_scale, "must be float32, finite and positive"),
        (_uint8, "int8 in -127..127"),
        (_axis_from_the_end, "a scale per row or column, not (1000,) on axis -1"),
        (_one_scale, "a scale per row or column"),
        (_one_zero, "the zero point has the shape (), its scale (1000,)"),
        (_computed_scale, "is not a constant"),
        (_other_reader, "must not read inspector.head.bank8.bank"),
    ],
)
def test_audit_sees(small: ModelProto, change: Callable[[ModelProto], None], message: str) -> None:
    broken = ModelProto()
    broken.CopyFrom(small)
    change(broken)
    faults = list(find_faults(broken))
    assert any(message in fault for fault in faults), faults
