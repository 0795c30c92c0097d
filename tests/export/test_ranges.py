"""How far activations reach, and the ranges that follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.compress import with_defects
from kenpin.export.onnx_model import ENCODER
from kenpin.export.placement import Placement
from kenpin.export.range_methods import HEADROOM, METHODS, ranges_by
from kenpin.export.ranges import BINS, Reach, measure_reach
from kenpin.frame import Image


def reach_of(values: np.ndarray) -> Reach:  # type: ignore[type-arg]
    largest = float(np.abs(values).max())
    counts = np.histogram(np.abs(values), bins=BINS, range=(0, largest))[0].astype(float)
    return Reach(largest, float(np.percentile(np.abs(values), 99.99)), counts)


def squared_error(values: np.ndarray, limit: float) -> float:  # type: ignore[type-arg]
    """Of symmetric INT8, step by step."""
    step = limit / 127
    steps = np.clip(np.rint(values / step), -127, 127)
    return float(np.square(steps * step - values).mean())


def test_reach_is_what_the_activations_reach(
    float_model: ModelProto, placement: Placement, pictures: Image
) -> None:
    names = placement.activations
    whole, a, b = (measure_reach(float_model, names, p) for p in (pictures, pictures[:5], pictures[5:]))
    for name in names:
        assert whole[name].largest == max(a[name].largest, b[name].largest)
        assert whole[name].percentile == pytest.approx(
            max(a[name].percentile, b[name].percentile), abs=2 * whole[name].largest / BINS
        )
        assert whole[name].percentile <= whole[name].largest
        assert whole[name].counts.sum() % len(pictures) == 0
    # Frames become x / 128 - 1, so the encoder's input is known exactly.
    assert whole[names[0]].largest == np.abs(pictures / np.float32(128) - 1).max()
    assert whole[names[0]].counts.sum() == pictures.size


def test_the_percentile_is_that_of_the_picture_where_it_is_largest(
    float_model: ModelProto, placement: Placement, pictures: Image
) -> None:
    """Among many good pictures a rare strange one must not vanish."""
    name = placement.activations[0]
    loud = np.full_like(pictures[:1], 128)
    loud[:, :2] = 255
    quiet = np.full_like(pictures[:1], 129).repeat(300, 0)
    reach = measure_reach(float_model, [name], np.concatenate([quiet, loud]))[name]
    assert reach.percentile > 0.99 * reach.largest


def test_ranges_are_measured_on_strange_parts_too(pictures: Image) -> None:
    strange = with_defects(pictures)
    assert len(strange) == 3 * len(pictures)
    np.testing.assert_array_equal(strange[: len(pictures)], pictures)


def test_without_pictures_there_are_no_ranges(float_model: ModelProto, placement: Placement) -> None:
    none = np.zeros((0, 64, 64, 3), np.uint8)
    assert len(with_defects(none)) == 0
    with pytest.raises(ExportError, match="no picture to measure ranges on"):
        measure_reach(float_model, placement.activations, none)


def test_methods() -> None:
    values = np.random.default_rng(0).laplace(size=200_000).astype(np.float32)
    ranges = {method: ranges_by(method, {"x": reach_of(values)})["x"] for method in METHODS}
    largest = float(np.abs(values).max())
    assert ranges["max"] == largest
    assert ranges[f"max_{HEADROOM}"] == HEADROOM * largest
    assert ranges["percentile"] == pytest.approx(np.percentile(np.abs(values), 99.99))
    # Long tails are cut, but not to nothing.
    assert 0.2 * largest < ranges["entropy"] < largest
    assert 0.2 * largest < ranges["mse"] < largest


def test_mse_finds_the_range_with_the_least_error() -> None:
    rng = np.random.default_rng(1)
    behind_relu = np.maximum(rng.normal(-2.5, 1, size=50_000), 0)
    for values in (rng.laplace(size=50_000), rng.normal(size=50_000), rng.uniform(-1, 1, 50_000), behind_relu):
        found = ranges_by("mse", {"x": reach_of(values)})["x"]
        best = min(
            squared_error(values, limit) for limit in np.linspace(0.05, 1.25, 200) * np.abs(values).max()
        )
        assert squared_error(values, found) < 1.05 * best


def test_entropy_keeps_all_of_what_is_spread_evenly() -> None:
    values = np.random.default_rng(2).uniform(-1, 1, 500_000)
    assert ranges_by("entropy", {"x": reach_of(values)})["x"] > 0.95


def test_one_picture_that_overflows_is_refused(
    float_model: ModelProto, placement: Placement, pictures: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflown(*_: Any, **__: Any) -> Iterator[list[np.ndarray]]:  # type: ignore[type-arg]
        yield from ([np.ones((1, 2, 3, 3), np.float32)], [np.full((1, 2, 3, 3), np.nan, np.float32)])

    monkeypatch.setattr("kenpin.export.ranges.run_tensors", overflown)
    with pytest.raises(ExportError, match="reaches nan on 2 pictures"):
        measure_reach(float_model, placement.activations[:1], pictures[:2])


def test_dead_encoder_is_refused(float_model: ModelProto, placement: Placement, pictures: Image) -> None:
    dead = ModelProto()
    dead.CopyFrom(float_model)
    for tensor in dead.graph.initializer:
        if tensor.name.startswith(f"{ENCODER}layer1.0.conv1.weight"):
            zeros = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(zeros - tensor.name.endswith("bias"), tensor.name))
    with pytest.raises(ExportError, match="no scale fits it"):
        measure_reach(dead, placement.activations, pictures)
