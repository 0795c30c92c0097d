"""Golden frames of models that are played: a picture's grey is its score, and some scores do not repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from kenpin.export import golden
from kenpin.export.golden import DEFECTS, NOISE_MARGIN, SPREAD_SHARE, GoldenFrames, make_golden
from kenpin.export.outputs import Fusion, Models, Outputs
from kenpin.frame import Image

FP, SMALL = ModelProto(producer_name="fp"), ModelProto(producer_name="small")
GOOD, DRAWN = (10, 11, 12), (40, 50, 60, 70)


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[Any, ...], float]:
    """How much more one thread scores a grey, by the name of the model; also with one way to run it alone."""
    moved: dict[tuple[Any, ...], float] = {}

    def run(model: ModelProto, images: Image, *, fusion: Fusion, threads: int) -> Outputs:
        name, greys = model.producer_name, images[:, 0, 0, 0].tolist()
        # The small model is off by a half; the float one is exact.
        one = [moved.get((name, grey), moved.get((name, grey, fusion), 0.0)) for grey in greys]
        more = one if threads == 1 else [0.0] * len(greys)
        score = np.array(greys) + np.array(more) + (0.0 if name == "fp" else 0.5)
        return Outputs(score, np.stack([score / 4, score / 2, score], 1), np.zeros((len(greys), 1, 1)))

    monkeypatch.setattr(golden, "run_onnx", run)
    return moved


def shades(greys: tuple[int, ...]) -> Image:
    return np.stack([np.full((4, 4, 3), grey, np.uint8) for grey in greys])


def made(spread: float = 1.0, good: tuple[int, ...] = GOOD, **models: Any) -> GoldenFrames:
    return make_golden(Models(FP, SMALL, **models), shades(good), shades(DRAWN), spread=spread)


def test_each_model_has_scores_of_its_own(noise: object) -> None:
    found = made()
    assert [(frame.score, frame.score_fp) for frame in found.scores] == [
        (grey + 0.5, grey) for grey in (*GOOD, 70, 60)
    ]
    assert found.scores[0].level_scores == (10.5 / 4, 10.5 / 2, 10.5)
    assert found.scores[0].level_scores_fp == (10 / 4, 10 / 2, 10)
    assert list(found.files) == [frame.file for frame in found.scores]


def test_the_tolerance_is_some_times_what_good_scores_move_by(noise: dict[tuple[Any, ...], float]) -> None:
    noise["small", 11] = -0.02
    found = made()
    assert found.tolerance == pytest.approx(NOISE_MARGIN * 0.02)
    assert found.tolerance_fp == pytest.approx(SPREAD_SHARE)
    assert made(spread=100.0).tolerance == pytest.approx(SPREAD_SHARE * 100)


@pytest.mark.parametrize("fusion", [Fusion.BASIC, Fusion.NONE])
def test_the_graph_as_a_station_runs_it_and_as_written_both_count(
    noise: dict[tuple[Any, ...], float], fusion: Fusion
) -> None:
    noise["small", 11, fusion] = 0.02
    assert made().tolerance == pytest.approx(NOISE_MARGIN * 0.02)


def test_scores_that_are_all_alike_leave_room_for_the_last_digits(noise: object) -> None:
    assert made(spread=0.0).tolerance > 0


@pytest.mark.parametrize("model", ["small", "fp"])
def test_a_defect_that_repeats_worse_than_good_parts_is_no_golden_frame(
    noise: dict[tuple[Any, ...], float], model: str
) -> None:
    noise[model, 70] = 1.0
    found = made()
    assert [frame.score_fp for frame in found.scores[len(GOOD) :]] == [60, 50][:DEFECTS]
    assert found.tolerance == found.tolerance_fp == pytest.approx(SPREAD_SHARE)


def test_a_good_part_that_looks_stranger_than_defects_stands_for_none(noise: object) -> None:
    assert [frame.score_fp for frame in made(good=(10, 90, 12)).scores] == [10, 90, 12, 70, 60]


def test_fp16_is_scored_as_written(noise: object, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set[Fusion]()
    run = golden.run_onnx

    def watched(model: ModelProto, *arguments: Any, fusion: Fusion, **more: Any) -> Outputs:
        seen.update({fusion} if model.producer_name == "small" else set())
        return run(model, *arguments, fusion=fusion, **more)

    monkeypatch.setattr(golden, "run_onnx", watched)
    monkeypatch.setattr(golden, "to_single", lambda _: ModelProto(producer_name="single"))
    made(half=True)
    assert seen == {Fusion.NONE}
    made()
    assert seen == {Fusion.NONE, Fusion.BASIC}


def test_the_tolerance_of_fp16_is_what_scores_move_by_in_fp32(
    noise: dict[tuple[Any, ...], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as written it repeats to the last digit, and no GPU would come that near."""
    monkeypatch.setattr(golden, "to_single", lambda _: ModelProto(producer_name="single"))
    noise["single", 11] = 0.05
    assert made(half=True).tolerance == pytest.approx(NOISE_MARGIN * 0.05)


@pytest.mark.usefixtures("rounding")
def test_a_real_model_with_fp16_has_room_for_its_rounding(
    float_model: ModelProto, half_model: ModelProto, pictures: Image
) -> None:
    models = Models(float_model, half_model, half=True)
    found = make_golden(models, pictures, pictures[:4], spread=1e-6)
    assert 1 > found.tolerance > 1e-4 > found.tolerance_fp
