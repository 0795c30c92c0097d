"""Sensitivity, choice of ranges and fall-back on a small model whose convolutions can be made to hurt."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from kenpin.errors import ExportError
from kenpin.export import compress as compression
from kenpin.export.audit import audit
from kenpin.export.compress import compress
from kenpin.export.fallback import Recipe, settle
from kenpin.export.fidelity import measure_taps
from kenpin.export.gate import Judged, Limits
from kenpin.export.outputs import Fusion, Models, Outputs, run_onnx
from kenpin.export.placement import Placement
from kenpin.export.quantize import quantize
from kenpin.export.range_choice import ALIKE, Trial, best_of, choose_ranges
from kenpin.export.range_methods import METHODS, WHOLE
from kenpin.export.ranges import measure_reach
from kenpin.export.samples import Samples
from kenpin.export.scheme import Scheme
from kenpin.export.sensitivity import Sensitivity, measure_sensitivity
from kenpin.frame import Image
from tests.export.conftest import waves

ROWS = [0, 3, 6, 9, 12, 15]
BADLY = 0.02


@pytest.fixture(scope="module")
def judged(float_model: ModelProto) -> Judged:
    """Twelve good pictures and six with a dark bar."""
    pictures = waves(18, seed=7)
    pictures[12:, 20:26, 8:56] = 30
    return Judged(pictures, 12, np.zeros(0, np.bool_), run_onnx(float_model, pictures, fusion=Fusion.FULL))


@pytest.fixture(scope="module")
def clipped(placement: Placement, ranges: dict[str, float]) -> dict[str, float]:
    """Ranges that clip nearly all of what two convolutions in the middle read."""
    return {**ranges, **{name: ranges[name] * BADLY for name in placement.inputs[4:6]}}


def measured(model: ModelProto, ranges: dict[str, float], judged: Judged) -> tuple[Sensitivity, ...]:
    return measure_sensitivity(model, ranges, judged, ROWS, advance=lambda: None)


def readers_of(model: ModelProto, names: tuple[str, ...]) -> set[str]:
    return {n.input[1] for n in model.graph.node if n.op_type == "Conv" and n.input[0] in names}


def test_the_convolutions_that_hurt_come_first(
    float_model: ModelProto, placement: Placement, clipped: dict[str, float], judged: Judged
) -> None:
    layers = measured(float_model, clipped, judged)
    assert {layer.conv for layer in layers} == set(placement.convs)
    hurt = readers_of(float_model, placement.inputs[4:6])
    assert {layer.conv for layer in layers[: len(hurt)]} == hurt
    assert all(a.risk >= b.risk for a, b in pairwise(layers))
    assert layers[0].map_sqnr_db < layers[-1].map_sqnr_db
    assert layers[0].name.startswith("layer")
    assert not layers[0].name.endswith("weight")


def test_each_convolution_is_measured_alone(
    float_model: ModelProto,
    placement: Placement,
    ranges: dict[str, float],
    judged: Judged,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[str, ...]] = []

    def note(model: ModelProto, alone: Placement, given: Any) -> ModelProto:
        made.append(alone.convs)
        return quantize(model, alone, given)

    monkeypatch.setattr("kenpin.export.sensitivity.quantize", note)
    measured(float_model, ranges, judged)
    assert made == [(conv,) for conv in placement.convs]


def test_they_are_returned_to_float_until_the_gate_holds(
    float_model: ModelProto, placement: Placement, clipped: dict[str, float], judged: Judged
) -> None:
    layers = measured(float_model, clipped, judged)
    steps: list[int] = []
    settled = settle(
        Recipe(float_model, clipped, Scheme()), judged, layers, limits=Limits(), advance=lambda: steps.append(1)
    )
    assert settled.at_first.flips > 0
    assert settled.judgement.flips == 0
    floats = settled.placement.floats
    assert 0 < len(floats) < len(placement.convs)
    assert set(floats) == {layer.conv for layer in layers[: len(floats)]}
    assert len(steps) == len(layers)
    audit(settled.model, floats=floats)
    again = run_onnx(settled.model, judged.pictures, fusion=Fusion.NONE)
    np.testing.assert_array_equal(again.score, settled.outputs.score)


def test_what_holds_at_once_keeps_all_of_it(
    float_model: ModelProto, ranges: dict[str, float], judged: Judged
) -> None:
    layers = measured(float_model, ranges, judged)
    settled = settle(
        Recipe(float_model, ranges, Scheme()),
        judged,
        layers,
        limits=Limits(auroc_points=100, flip_share=1),
        advance=lambda: None,
    )
    assert settled.placement.floats == ()
    assert settled.judgement == settled.at_first


@pytest.mark.parametrize(
    ("flips", "returned", "unseen", "floats"),
    [
        ({}, 0, 0, 0),
        ({"choosing": 2}, 2, 0, 2),  # those that choose are content with two, and so are the others
        ({"other": 3}, 0, 1, 3),  # nothing to choose; what the others said about that stays
        ({"choosing": 1, "other": 3}, 1, 1, 3),
        ({"choosing": 3, "other": 1}, 3, 0, 3),
    ],
)
def test_the_report_is_of_pictures_that_did_not_choose(
    float_model: ModelProto,
    placement: Placement,
    ranges: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    *,
    flips: dict[str, int],
    returned: int,
    unseen: int,
    floats: int,
) -> None:
    """One picture of a half flips as long as fewer than so many convolutions are float."""
    scores = np.arange(18, dtype=np.float32)
    numbered = np.arange(18, dtype=np.uint8).reshape(18, 1, 1, 1)
    exact = Outputs(scores, np.stack([scores] * 3, 1), scores[:, None, None])
    watched = Judged(numbered, 12, np.zeros(0, np.bool_), exact)
    rows = {"choosing": watched.halves[0][-1], "other": watched.halves[1][-1]}

    def says(model: ModelProto, pictures: Image, **_: Any) -> Outputs:
        now = len(placement.convs) - sum(t.name.endswith("weight_int8") for t in model.graph.initializer)
        which = pictures.ravel()
        fall = np.isin(which, [rows[half] for half, needed in flips.items() if now < needed])
        score = np.where(fall, np.float32(0), scores[which])
        return Outputs(score, exact.level_scores[which], exact.anomaly_map[which])

    monkeypatch.setattr("kenpin.export.fallback.run_onnx", says)
    layers = [Sensitivity(conv, 30, 0.1, 1) for conv in placement.convs]
    recipe = Recipe(float_model, ranges, Scheme())
    settled = settle(recipe, watched, layers, limits=Limits(auroc_points=100), advance=lambda: None)
    assert settled.unseen.judgement.pictures == len(watched.halves[1])
    assert (settled.unseen.returned, settled.unseen.judgement.flips) == (returned, unseen)
    assert len(settled.placement.floats) == floats
    assert settled.judgement.flips == 0


def test_it_falls_back_in_fp16_too(float_model: ModelProto, clipped: dict[str, float], judged: Judged) -> None:
    layers = measured(float_model, clipped, judged)
    recipe = Recipe(float_model, clipped, Scheme("fp16"))
    settled = settle(recipe, judged, layers, limits=Limits(), advance=lambda: None)
    assert settled.placement.floats
    audit(settled.model, floats=settled.placement.floats)


def test_a_gate_that_cannot_hold_is_refused(
    float_model: ModelProto, placement: Placement, ranges: dict[str, float], judged: Judged
) -> None:
    layers = measured(float_model, ranges, judged)
    useless = {name: value * 1e-4 for name, value in ranges.items()}
    impossible = Limits(flip_share=-1)
    for some, limits in ((useless, Limits()), (ranges, impossible)):
        with pytest.raises(ExportError, match="INT8 does not keep the verdicts") as caught:
            settle(Recipe(float_model, some, Scheme()), judged, layers, limits=limits, advance=lambda: None)
        assert "--precision fp32" in caught.value.cure


def test_ranges_are_chosen_by_what_they_do(
    float_model: ModelProto, placement: Placement, pictures: Image, judged: Judged
) -> None:
    reaches = measure_reach(float_model, placement.activations, pictures)
    choice = choose_ranges(float_model, reaches, judged, ROWS, advance=lambda: None)
    assert set(choice.trials) == set(METHODS)
    assert choice.method == best_of(choice.trials)
    assert len({trial.map_sqnr_db for trial in choice.trials.values()}) == len(METHODS), "each tried by itself"
    assert choice.trials[choice.method].risk <= ALIKE * min(choice.trials[method].risk for method in WHOLE)
    assert choice.ranges == {name: METHODS[choice.method](reach) for name, reach in reaches.items()}
    told: dict[str, Any] = choice.to_json()
    assert told["method"] == choice.method
    assert set(told["trials"]["max"]) == {"risk", "map_sqnr_db"}


def test_headroom_is_left_out_only_where_it_costs_verdicts() -> None:
    headroom, tight = WHOLE
    assert best_of({headroom: Trial(1.9, 10), tight: Trial(1, 40)}) == headroom
    assert best_of({headroom: Trial(2.1, 40), tight: Trial(1, 10)}) == tight
    assert best_of({headroom: Trial(np.inf, np.nan), tight: Trial(1, 10)}) == tight
    assert best_of({headroom: Trial(1, 10), tight: Trial(np.inf, np.nan)}) == headroom


def test_ranges_that_clip_what_was_seen_are_never_taken() -> None:
    clipping = {method: Trial(0.001, 90) for method in METHODS if method not in WHOLE}
    assert len(clipping) == 3
    assert best_of({**clipping, **{method: Trial(1, 10) for method in WHOLE}}) in WHOLE


def test_a_broken_inserter_ends_the_export(
    float_model: ModelProto, pictures: Image, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit stands between the inserter and the bundle: 1 step off zero is what TensorRT refuses."""

    def one_off(*given: Any) -> ModelProto:
        broken = quantize(*given)
        for tensor in broken.graph.initializer:
            if tensor.name.endswith("conv1.weight_zero"):
                tensor.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(1), tensor.name)
                )
        return broken

    samples = Samples(pictures[:4], judged.pictures[:12], judged.pictures[:0], judged.test_bad)
    sound = compress(float_model, samples, judged, Scheme(), step=lambda *_: lambda: None)
    assert sound.to_json()["precision"] == "int8"
    monkeypatch.setattr("kenpin.export.fallback.quantize", one_off)
    monkeypatch.setattr("kenpin.export.compress.LIMITS", Limits(auroc_points=100, flip_share=1))
    with pytest.raises(ExportError, match="breaks the placement rules"):
        compress(float_model, samples, judged, Scheme(), step=lambda *_: lambda: None)


def test_each_step_of_the_compression_sees_its_pictures_and_its_result_is_used(
    float_model: ModelProto, pictures: Image, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the manifest says was done, and on what."""
    calls: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def watch(name: str) -> None:
        step = getattr(compression, name)

        def watched(*given: Any, **more: Any) -> Any:
            made = step(*given, **more)
            calls[name] = given, made
            return made

        monkeypatch.setattr(compression, name, watched)

    steps = ("equalise", "measure_reach", "choose_ranges", "correct_biases", "measure_sensitivity")
    for name in (*steps, "check_model"):
        watch(name)
    monkeypatch.setattr(compression, "CORRECTED", 3)
    samples = Samples(pictures[:4], judged.pictures[:12], judged.pictures[:0], judged.test_bad)
    found = compress(float_model, samples, judged, Scheme(), step=lambda *_: lambda: None)
    # Strange parts reach farther, so they count for ranges; what is usual they do not know.
    (model, shown), even = calls["equalise"]
    assert model is float_model
    assert len(shown) == found.pictures > len(samples.fit)
    np.testing.assert_array_equal(calls["measure_reach"][0][2], shown)
    (corrected, _, _, usual), biases = calls["correct_biases"]
    np.testing.assert_array_equal(usual, samples.fit[[0, 2, 3]])  # of all lots: they are in order
    assert calls["measure_reach"][0][0] is corrected is even
    assert calls["check_model"][0] == (found.settled.model,)
    stored = {t.name: t.SerializeToString() for t in found.settled.model.graph.initializer}
    assert all(stored[biases[c].name] == biases[c].SerializeToString() for c in found.settled.placement.convs)
    assert any(name.endswith("_unit") for name in stored)
    # Half of what is measured shows drawn defects, and none of it is of the half that tells what this is worth.
    for name in ("choose_ranges", "measure_sensitivity"):
        rows = calls[name][0][3]
        assert set(rows) <= set(judged.halves[0]), name
        assert sum(row >= judged.held_back for row in rows) == len(rows) / 2, name


def test_taps(float_model: ModelProto, int8_model: ModelProto, pictures: Image) -> None:
    taps = measure_taps(Models(float_model, int8_model), pictures)
    assert len(taps) == 2
    assert all(15 < tap.places < 60 and 15 < tap.pooled < 80 for tap in taps)
    same = measure_taps(Models(float_model, float_model), pictures)
    assert all(tap.places > 100 for tap in same)


def test_noise_that_differs_from_place_to_place_is_gone_from_the_embedding(
    float_model: ModelProto, pictures: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    changed = exact + np.float32([1, -1, 1, -1])
    features = iter([[exact], [changed]])
    monkeypatch.setattr("kenpin.export.fidelity._features", lambda *_: next(features))
    (tap,) = measure_taps(Models(float_model, float_model), pictures)
    assert tap.places < 5
    assert tap.pooled > 100
