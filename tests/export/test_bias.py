"""Biases take back what rounding shifts on average."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from kenpin.export.bias import correct_biases, set_biases
from kenpin.export.outputs import Floats, Fusion, run_tensors
from kenpin.export.placement import Placement, find_placement
from kenpin.export.quantize import quantize
from kenpin.export.scheme import Scheme
from kenpin.frame import Image


def means(model: ModelProto, names: list[str], pictures: Image, fusion: Fusion) -> list[Floats]:
    each = zip(*run_tensors(model, names, pictures, fusion=fusion), strict=True)
    return [np.concatenate(values).mean((0, 2, 3)) for values in each]


def test_the_means_of_every_convolution_are_those_of_float(
    float_model: ModelProto, int8_model: ModelProto, ranges: dict[str, float], pictures: Image
) -> None:
    steps: list[int] = []
    biases = correct_biases(float_model, ranges, Scheme(), pictures, advance=lambda: steps.append(1))
    convs = find_placement(float_model).convs
    assert set(biases) == set(convs)
    assert len(steps) == len(convs)
    outputs = [n.output[0] for n in float_model.graph.node if n.op_type == "Conv" and n.input[1] in convs]
    corrected = ModelProto()
    corrected.CopyFrom(int8_model)
    set_biases(corrected, biases, convs)
    exact = means(float_model, outputs, pictures, Fusion.FULL)
    before, after = (means(m, outputs, pictures, Fusion.NONE) for m in (int8_model, corrected))
    for true, was, now in zip(exact, before, after, strict=True):
        assert np.abs(now - true).max() < 0.05 * max(np.abs(was - true).max(), 1e-3)


def test_a_convolution_in_float_keeps_its_bias(
    float_model: ModelProto, placement: Placement, ranges: dict[str, float], pictures: Image
) -> None:
    biases = correct_biases(float_model, ranges, Scheme(), pictures[:4])
    part = find_placement(float_model, floats=placement.convs[:2])
    mixed = quantize(float_model, part, ranges)
    set_biases(mixed, biases, part.convs)
    was, now = ({t.name: t.SerializeToString() for t in m.graph.initializer} for m in (float_model, mixed))
    for conv in placement.convs:
        name = biases[conv].name
        assert (was[name] == now[name]) == (conv in part.floats)
