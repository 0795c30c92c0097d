"""Channels with one reach: nothing changes in float, and INT8 gains."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from kenpin.errors import ExportError
from kenpin.export.audit import audit
from kenpin.export.channel_groups import ChannelGroup, find_channel_groups
from kenpin.export.equalise import EXPONENT, LEAST_REACH, _measure_channels, _scales, equalise, rescale
from kenpin.export.fidelity import measure_taps
from kenpin.export.half import to_half
from kenpin.export.onnx_model import ENCODER, HALF_OPSET, check_model
from kenpin.export.outputs import Fusion, Models, run_onnx, run_tensors
from kenpin.export.placement import find_placement, find_taps
from kenpin.export.quantize import quantize
from kenpin.export.range_methods import ranges_by
from kenpin.export.ranges import measure_reach
from kenpin.export.scheme import Scheme
from kenpin.frame import Image


@pytest.fixture(scope="module")
def uneven(float_model: ModelProto) -> ModelProto:
    """The same model, some channels of which reach thirty times as far as others."""
    rng = np.random.default_rng(0)
    sizes = {t.name: t.dims[0] for t in float_model.graph.initializer if t.name.startswith(ENCODER)}
    groups = find_channel_groups(float_model)
    scales = [np.float32(30) ** -rng.uniform(0, 1, sizes[group.makers[0]]) for group in groups]
    return rescale(float_model, list(zip(groups, [s.astype(np.float32) for s in scales], strict=True)))


def int8_of(model: ModelProto, pictures: Image) -> ModelProto:
    placement = find_placement(model)
    return quantize(model, placement, ranges_by("max", measure_reach(model, placement.activations, pictures)))


def test_three_streams_and_the_inside_of_six_blocks(float_model: ModelProto) -> None:
    groups = find_channel_groups(float_model)
    streams = [group for group in groups if len(group.readers) != 1 or len(group.makers) > 2]
    assert len(groups) == 9
    assert len(streams) == 3
    first = next(group for group in streams if f"{ENCODER}conv1.weight" in group.makers)
    assert {f"{ENCODER}layer1.{n}.conv2.weight" for n in (0, 1)} < set(first.makers)
    assert f"{ENCODER}layer2.0.downsample.0.weight" in first.readers
    assert sorted(tap for group in groups for tap in group.taps) == sorted(find_taps(float_model))
    assert sum(len(group.makers) for group in groups) == 2 * 15


def test_in_float_nothing_changes(float_model: ModelProto, pictures: Image) -> None:
    before = float_model.SerializeToString(deterministic=True)
    even = equalise(float_model, pictures)
    assert float_model.SerializeToString(deterministic=True) == before
    check_model(even, shape=(64, 64))
    ours, theirs = (run_onnx(m, pictures, fusion=Fusion.FULL) for m in (even, float_model))
    np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, rtol=2e-4, atol=1e-4)
    taps = find_taps(float_model)
    assert find_taps(even) == tuple(f"{tap}_even" for tap in taps)
    for mine, other in zip(
        run_tensors(even, taps, pictures[:3], fusion=Fusion.FULL),
        run_tensors(float_model, taps, pictures[:3], fusion=Fusion.FULL),
        strict=True,
    ):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4)


def test_channels_reach_alike(uneven: ModelProto, pictures: Image) -> None:
    """Each channel's share of the largest rises to that share to the power of 1 - EXPONENT, or more."""
    even = equalise(uneven, pictures)
    for group in find_channel_groups(uneven):
        # Within a block one activation alone decides, so the rule can be seen in its numbers.
        inner = [
            name for name in group.tensors & set(find_placement(uneven).activations) if len(group.tensors) == 2
        ]
        for name in inner:
            was, now = (
                np.max([v[0].max((0, 2, 3)) for v in run_tensors(m, [name], pictures, fusion=Fusion.FULL)], 0)
                for m in (uneven, even)
            )
            alive = was > 0.02 * was.max()
            np.testing.assert_allclose(
                (now / now.max())[alive], ((was / was.max()) ** (1 - EXPONENT))[alive], rtol=0.01
            )


def test_int8_gains(uneven: ModelProto, float_model: ModelProto, pictures: Image) -> None:
    plain = measure_taps(Models(float_model, int8_of(uneven, pictures)), pictures)
    even = measure_taps(Models(float_model, int8_of(equalise(uneven, pictures), pictures)), pictures)
    assert all(b.places > a.places + 3 for a, b in zip(plain, even, strict=True))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_what_comes_out_keeps_the_rules(float_model: ModelProto, pictures: Image, precision: str) -> None:
    even = equalise(float_model, pictures)
    placement = find_placement(even)
    ranges = ranges_by("max", measure_reach(even, placement.activations, pictures))
    small = quantize(even, placement, ranges, Scheme("fp16" if precision == "fp16" else "int8"))
    if precision == "fp16":
        small = to_half(small)
        check_model(small, shape=(64, 64), opset=HALF_OPSET)
    audit(small)


@pytest.mark.parametrize("channels", [slice(3, 4), slice(None)], ids=["one", "all"])
def test_dead_channels_stay_dead(float_model: ModelProto, pictures: Image, channels: slice) -> None:
    dead = ModelProto()
    dead.CopyFrom(float_model)
    for tensor in dead.graph.initializer:
        if tensor.name.startswith(f"{ENCODER}layer1.0.conv1.weight"):  # and its bias
            value = numpy_helper.to_array(tensor).copy()
            value[channels] = 0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    even = equalise(dead, pictures)
    weights = {t.name: numpy_helper.to_array(t) for t in even.graph.initializer}
    assert not weights[f"{ENCODER}layer1.0.conv1.weight"][channels].any()
    assert all(np.isfinite(value).all() for value in weights.values())


def test_a_channel_is_divided_by_its_largest_share_of_any_tensor_of_its_group() -> None:
    """By less, and it would reach farther than the widest one of a tensor."""
    group = ChannelGroup(frozenset({"a", "b", "unmeasured"}), (), (), ())
    reaches = {"a": np.float32([1.0, 0.25]), "b": np.float32([4.0, 2.0]), "other": np.float32([1.0, 1.0])}
    np.testing.assert_allclose(_scales(group, reaches), [1.0, 0.5**EXPONENT])


def test_a_channel_that_is_dead_on_these_pictures_is_not_blown_up() -> None:
    group = ChannelGroup(frozenset({"a"}), (), (), ())
    scales = _scales(group, {"a": np.float32([8.0, 0.0, 0.01])})
    np.testing.assert_allclose(scales, [1.0, LEAST_REACH**EXPONENT, LEAST_REACH**EXPONENT])


def test_what_a_channel_reaches_is_the_largest_of_all_pictures_also_below_zero(
    float_model: ModelProto, pictures: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = [np.float32([[[[-3.0, 1.0]], [[0.0, 0.0]]]]), np.float32([[[[1.0, 0.5]], [[2.0, 0.0]]]])]
    monkeypatch.setattr("kenpin.export.equalise.run_tensors", lambda *_, **__: ([value] for value in each))
    assert _measure_channels(float_model, ["a"], pictures, lambda: None)["a"].tolist() == [3.0, 2.0]


def test_without_a_picture_nothing_is_known(float_model: ModelProto, pictures: Image) -> None:
    with pytest.raises(ExportError):
        equalise(float_model, pictures[:0])
