"""Scoring and measuring: the figures of a report against what can be counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kenpin.errors import TrainError
from kenpin.pictures import Picture
from kenpin.train.evaluate import BATCH, Scores, measure, score_pictures
from kenpin.train.metrics import aupro, auroc, false_calls_at


class Brightness(nn.Module):
    """In the place of an inspector: the score is the mean grey level, the map the picture."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grey = frames.float().mean(3)[:, ::4, ::4]
        score = grey.mean((1, 2))
        return score, score[:, None].expand(-1, 3), grey


def write(path: Path, image: np.ndarray) -> Path:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    """40 good and 20 defective parts, two pictures each, in noise; every defect has a mask."""
    root, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    pictures, maps = [], rng.normal(0, 1, (60, 16, 16)).astype(np.float32)
    for number in range(60):
        label = "good" if number < 40 else ("pit" if number < 50 else "crack")
        image = write(root / f"{number}.png", np.zeros((64, 64, 3), np.uint8))
        mask = None
        if label != "good":
            area = np.zeros((64, 64), np.uint8)
            area[8:24, 4 * (number - 40) % 40 :][:, :12] = 255
            mask = write(root / f"{number}_mask.png", area)
            maps[number][area[::4, ::4] > 0] += 1.5
        pictures.append(Picture(image, label, f"part {number // 2}", mask))
    score = maps.max((1, 2))
    return Scores(tuple(pictures), score, np.stack([score, -score, score], 1), maps, 1.234)


def test_every_figure_comes_with_an_interval_around_it(scores: Scores) -> None:
    figures = measure(scores)
    assert (figures["pictures"], figures["good"], figures["bad"], figures["ms_per_image"]) == (60, 40, 20, 1.23)
    for name in ("image_auroc", "escapes_at_10_per_1000", "false_calls_at_95", "false_calls_at_99"):
        assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    for name in ("pixel_auroc", "aupro_30", "aupro_05"):
        assert figures[f"{name}_interval"]["value"] == figures[name]
        assert figures[f"{name}_interval"]["low"] < figures[name] < figures[f"{name}_interval"]["high"]
    json.dumps(figures, allow_nan=False)


def test_figures_are_those_of_the_metrics(scores: Scores) -> None:
    figures, bad = measure(scores), scores.bad
    masks = np.array(
        [p.mask is not None and cv2.imread(str(p.mask), 0)[::4, ::4] > 0 for p in scores.pictures[40:]]
    )
    truth = np.concatenate([np.zeros((40, 16, 16), bool), masks])
    assert figures["false_calls_at_99"]["value"] == false_calls_at(scores.score, bad, caught=0.99)
    assert figures["false_calls_at_95"]["value"] == false_calls_at(scores.score, bad, caught=0.95)
    assert figures["pixel_auroc"] == pytest.approx(auroc(scores.maps, truth))
    assert figures["aupro_30"] == pytest.approx(aupro(scores.maps, truth, limit=0.3))
    assert figures["auroc_of"]["level mid"] == pytest.approx(1 - figures["image_auroc"]["value"])
    assert set(figures["auroc_of"]) == {"pit", "crack", "level coarse", "level mid", "level fine"}


def test_a_defect_whose_folder_has_no_text_for_a_name_is_named_in_the_figures(scores: Scores) -> None:
    """The figures go into a signed manifest, which is UTF-8."""
    pictures = [replace(p, label="Dr\udcfcck" if p.label == "pit" else p.label) for p in scores.pictures]
    figures = measure(replace(scores, pictures=tuple(pictures)))
    assert r"Dr\udcfcck" in figures["auroc_of"]
    json.dumps(figures, ensure_ascii=False).encode()


def test_a_defect_without_a_mask_does_not_count_as_good_pixels(scores: Scores) -> None:
    blind = replace(scores.pictures[59], mask=None)
    without = Scores(
        scores.pictures[:59], scores.score[:59], scores.levels[:59], scores.maps[:59], scores.ms_per_picture
    )
    unmasked = replace(scores, pictures=(*scores.pictures[:59], blind))
    assert measure(unmasked)["pixel_auroc"] == measure(without)["pixel_auroc"]


def test_what_cannot_be_known_is_missing(scores: Scores) -> None:
    good = Scores(scores.pictures[:40], scores.score[:40], scores.levels[:40], scores.maps[:40], 1.0)
    assert set(measure(good)) == {"pictures", "good", "bad", "ms_per_image"}
    blind = replace(scores, pictures=tuple(replace(p, mask=None) for p in scores.pictures))
    assert not {"pixel_auroc", "aupro_30", "pixel_auroc_interval"} & set(measure(blind))


def test_too_few_parts_have_figures_and_no_intervals(scores: Scores) -> None:
    """One bad part with a mask, in two pictures, and the good ones."""
    few = Scores(scores.pictures[:42], scores.score[:42], scores.levels[:42], scores.maps[:42], 1.0)
    figures = measure(few)
    for name in ("image_auroc", "false_calls_at_95", "pixel_auroc_interval", "aupro_30_interval"):
        assert figures[name]["value"] is not None
        assert figures[name]["low"] is figures[name]["high"] is None
    assert figures["escapes_at_10_per_1000"]["high"] > 900
    json.dumps(figures, allow_nan=False)


def test_pictures_are_scored_in_order_over_the_edge_of_a_batch(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).permutation(BATCH + 3) * 10
    pictures = [
        Picture(write(tmp_path / f"{n}.png", np.full((64, 64, 3), level, np.uint8)), "good", str(n))
        for n, level in enumerate(levels)
    ]
    done: list[int] = []
    scores = score_pictures(Brightness(), pictures, side=64, advance=done.append)  # type: ignore[arg-type]
    assert scores.score == pytest.approx(levels)
    assert scores.maps.shape == (BATCH + 3, 16, 16)
    assert scores.levels.shape == (BATCH + 3, 3)
    assert done == [BATCH, 3]
    assert scores.groups == [str(n) for n in range(BATCH + 3)]
    assert scores.ms_per_picture > 0
    assert not torch.is_tensor(scores.score)


@pytest.mark.parametrize("count", [4, 2 * BATCH])
def test_the_time_is_that_of_a_model_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Its first call takes longer, and so does one while the machine has other work."""
    now, calls = 0.0, iter([9.0, 0.25, 5.0])

    class Slow(Brightness):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            nonlocal now
            now += next(calls)
            return super().forward(frames)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    path = write(tmp_path / "one.png", np.zeros((64, 64, 3), np.uint8))
    pictures = [Picture(path, "good", str(n)) for n in range(count)]
    scores = score_pictures(Slow(), pictures, side=64)  # type: ignore[arg-type]
    assert scores.ms_per_picture == 250 / min(count, BATCH)


@pytest.mark.parametrize("output", [0, 1, 2], ids=["score", "level", "map"])
def test_numbers_that_are_not_finite_are_no_figures(tmp_path: Path, output: int) -> None:
    class Broken(Brightness):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            outputs = tuple(out.clone() for out in super().forward(frames))
            outputs[output][1].flatten()[-1] = float("nan")
            return outputs  # type: ignore[return-value]

    paths = [write(tmp_path / f"{n}.png", np.full((64, 64, 3), n, np.uint8)) for n in range(3)]
    with pytest.raises(TrainError, match="not finite") as refused:
        score_pictures(Broken(), [Picture(p, "good", p.name) for p in paths], side=64)  # type: ignore[arg-type]
    assert refused.value.where == str(paths[1])
