from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from kenpin.frame import Image
from kenpin.train.bank import SAME_PLACE, MemoryBank, k_centres
from kenpin.train.coarse import LightStatistics, Pattern
from kenpin.train.encoder import Encoder, normalise
from kenpin.train.fit import (
    _cross_fitted,
    _grids,
    _units,
    _validation_maps,
    choose_weights,
    doubt,
    fit_head,
    maps_of,
)
from kenpin.train.head import MAPS, AnomalyHead, Grids, HeadShape, fuse, robust_maximum
from kenpin.train.inspector import Inspector
from kenpin.train.light import DARK, cells_of, colour, light
from kenpin.train.model import Pretrained


def test_encoder_names_are_those_of_torchvision_and_strides_are_4_8_16() -> None:
    encoder = Encoder(64)
    names = set(encoder.state_dict())
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer3.1.bn2.bias",
    } <= names
    taps = encoder(torch.zeros(1, 3, 96, 96))
    assert [tuple(t.shape) for t in taps] == [(1, 64, 24, 24), (1, 128, 12, 12), (1, 256, 6, 6)]


def test_bank_gives_the_distance_to_the_nearest_remembered_place() -> None:
    torch.manual_seed(0)
    good, query = torch.randn(5, 6, 4, 4) * 3 + 1, torch.randn(2, 6, 4, 4)
    bank = MemoryBank(6, 40)
    bank.fit(good)
    mean, std = good.mean((0, 2, 3)), good.std((0, 2, 3))
    places = ((query.permute(0, 2, 3, 1) - mean) / std).reshape(-1, 6)
    expected = torch.cdist(places, bank.bank.T).amin(1).reshape(2, 4, 4)
    assert torch.allclose(bank(query), expected, atol=1e-3)


def test_places_that_are_all_but_remembered_have_the_same_distance_in_float_and_double() -> None:
    features = 8 * torch.rand(2, 64, 6, 6, generator=torch.Generator().manual_seed(0))
    bank = MemoryBank(64, 72)
    bank.fit(features)
    near = features * (1 + 1e-6)
    exact = copy.deepcopy(bank).double()(near.double())
    assert (bank(near) - exact).abs().max() < 1e-4
    assert exact == pytest.approx(SAME_PLACE * 8)


def test_a_bank_larger_than_the_places_remembers_every_place() -> None:
    points = torch.randn(7, 3)
    chosen = k_centres(points, 20)
    assert set(chosen.tolist()) == set(range(7))


def test_k_centres_cover_far_points_first() -> None:
    torch.manual_seed(0)
    points = torch.cat([torch.randn(500, 4) * 0.01, torch.tensor([[9.0, 0, 0, 0], [0, -9.0, 0, 0]])])
    assert {500, 501} <= set(k_centres(points, 3).tolist())


def test_light_statistics_know_what_is_usual_where() -> None:
    torch.manual_seed(0)
    grids = torch.zeros(50, 2, 4, 4)
    grids[:, 0, 0, 0] = 5 + torch.randn(50) * 0.1
    statistics = LightStatistics(4)
    statistics.fit(grids)
    moved = torch.zeros(1, 2, 4, 4)
    moved[0, 0, 1, 1] = 5
    deviation = statistics(moved)[0]
    assert deviation[1, 1] > 1
    assert deviation[0, 0] > 1
    assert deviation[0, 1] < 0.1


def test_the_pattern_explains_what_varies_over_the_whole_part_and_shows_a_local_fault() -> None:
    torch.manual_seed(0)
    slope = torch.linspace(-1, 1, 8).expand(2, 8, 8)
    grids = slope * torch.randn(40, 1, 1, 1) + 0.01 * torch.randn(40, 2, 8, 8)
    pattern = Pattern(8)
    pattern.fit(grids)
    usual = slope[None] * 1.5
    faulty = usual.clone()
    faulty[0, 0, 2, 3] += 0.5
    assert pattern(usual).max() < 0.2
    assert pattern(faulty)[0].argmax() == 2 * 8 + 3
    assert pattern(faulty).max() > 5 * pattern(usual).max()


def test_the_pattern_is_that_of_principal_components() -> None:
    torch.manual_seed(1)
    grids = torch.randn(30, 2, 4, 4) @ torch.randn(4, 4)
    pattern = Pattern(4)
    pattern.fit(grids)
    rows = pattern.statistics.standardise(grids).flatten(1)
    basis = torch.linalg.svd(rows, full_matrices=False).Vh[: 30 // 4]
    expected = (rows - rows @ basis.T @ basis).view(30, 2, 4, 4).abs().amax(1)
    assert torch.allclose(pattern(grids), expected, atol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_very_few_pictures_give_a_finite_pattern(count: int) -> None:
    torch.manual_seed(2)
    pattern = Pattern(4)
    pattern.fit(torch.randn(count, 2, 4, 4))
    assert torch.isfinite(pattern(torch.randn(5, 2, 4, 4))).all()


def test_maps_are_standardised_at_each_place_as_far_as_there_are_pictures() -> None:
    torch.manual_seed(3)
    head = AnomalyHead(HeadShape(64, (8, 16, 32)), torch.nn.ModuleList())
    lively = torch.ones(16, 16)
    lively[:, :8] = 10
    for count, most in ((400, 3.0), (3, 12.0)):
        raw = torch.randn(count, len(MAPS), 16, 16) * lively + lively
        head.standardise(raw.unbind(1))
        fresh = (torch.randn(400, len(MAPS), 16, 16) * lively + lively - head.offset) * head.scale
        left, right = fresh[..., 1:6].std(), fresh[..., 10:15].std()
        assert left / right < most
        if count == 400:
            assert robust_maximum(fresh).quantile(0.9) == pytest.approx(1, abs=0.1)
        else:
            assert left / right > 4


def test_maps_that_never_vary_get_a_finite_unit() -> None:
    head = AnomalyHead(HeadShape(64, (8, 16, 32)), torch.nn.ModuleList())
    head.standardise(torch.zeros(12, len(MAPS), 16, 16).unbind(1))
    assert torch.allclose(head.unit, torch.tensor(0.1))
    assert head.scale.isfinite().all()
    levels, fused = _units(head, torch.zeros(12, len(MAPS), 16, 16))
    assert torch.allclose(torch.cat([levels, fused[None]]), torch.tensor(1e-3))


def test_light_is_the_logarithm_of_local_mean_and_contrast() -> None:
    grey = torch.full((1, 1, 64, 64), 0.4)
    grey[..., :4, :4] = torch.tensor([0.2, 0.6]).repeat(2)
    mean, contrast = light(*cells_of(grey, 16))[0]
    assert torch.allclose(mean, torch.tensor(0.4 + DARK).log().expand(16, 16), atol=1e-5)
    assert contrast[0, 0].exp() - DARK == pytest.approx(0.2, abs=1e-4)
    assert contrast[1:].max().exp() - DARK == pytest.approx(0, abs=1e-3)
    half = light(*cells_of(grey / 2, 16))[0, 0]
    assert torch.allclose(half - mean, torch.tensor(0.22 / 0.42).log(), atol=1e-4)


def test_both_grids_of_light_are_those_of_the_pixels() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 64, 64)
    found = AnomalyHead(HeadShape(64, (8, 16, 32)), torch.nn.ModuleList()).grids(pictures)
    grey = pictures.mean(1, keepdim=True)
    assert torch.allclose(found.light[:, :2], light(*cells_of(grey, 16)), atol=1e-5)
    own = grey.mean((2, 3), keepdim=True)
    assert torch.allclose(found.relative, light(*cells_of(0.5 * grey / (own + DARK), 32)), atol=1e-5)


def test_robust_maximum_is_the_mean_of_the_highest_places() -> None:
    maps = torch.zeros(1, 40, 50)
    maps[0, 3, 4], maps[0, 5, 5] = 10.0, 6.0
    assert robust_maximum(maps).tolist() == [8.0]


def test_what_mid_sees_is_put_where_the_other_levels_see_most_nearby() -> None:
    coarse, mid, fine = torch.zeros(3, 1, 20, 20)
    mid[0, 2:10, 2:10] = mid[0, 2:4, 15:17] = 2.0
    coarse[0, 5, 5], fine[0, 5, 5], fine[0, 6, 5] = 1.0, 3.75, 2.25
    fused = fuse(torch.stack([coarse, mid, fine], 1))[0]
    assert fused[5, 5] == 6.75  # all of it, where the others see most
    assert fused[6, 5] == 3.25  # half of it, where they see half, with the quarter that counts everywhere
    assert fused[9, 9] == pytest.approx(2 * 0.25 / 5)
    assert fused[2, 15] == 2.0  # out of their reach
    assert fused[19, 19] == 0.0


def test_where_the_other_levels_see_nothing_mid_stands_as_it_is() -> None:
    torch.manual_seed(0)
    mid = torch.randn(2, 12, 12)
    less = torch.full_like(mid, -1.0)
    assert torch.equal(fuse(torch.stack([less, mid, less], 1)), mid - 2)


def test_weights_prefer_the_map_that_separates() -> None:
    torch.manual_seed(0)
    good, bad = torch.rand(30, len(MAPS), 8, 8), torch.rand(30, len(MAPS), 8, 8)
    for name in ("light", "grain"):
        good[:, MAPS.index(name)] = bad[:, MAPS.index(name)] = 0
    bad[:, MAPS.index("bank8"), 2, 2] += 1
    weights = dict(zip(MAPS, choose_weights(good, bad).tolist(), strict=True))
    # The one that separates would get 1, but the choice is believed by half only; usually a bank has 0.5.
    assert weights["bank8"] == 0.75
    assert weights["bank16"] < 0.65
    assert (weights["light"], weights["grain"]) == (1.0, 2.0)
    assert max(weights["defect16"], weights["defect8"]) <= 0.5


def test_no_discriminator_weighs_more_than_half_however_well_it_separates() -> None:
    torch.manual_seed(0)
    good, bad = torch.rand(30, len(MAPS), 8, 8), torch.rand(30, len(MAPS), 8, 8)
    bad[:, MAPS.index("defect8"), 2, 2] += 3
    weights = dict(zip(MAPS, choose_weights(good, bad).tolist(), strict=True))
    assert weights["defect8"] == 0.375  # between the usual 0.25 and the half


def test_defects_are_drawn_on_each_part_that_is_held_back_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []

    def draw(images: list[Image], *, per_picture: int, seed: int) -> list[Image]:
        told.append(per_picture)
        return images[:1]

    monkeypatch.setattr("kenpin.train.fit.draw_validation_defects", draw)
    trained = Pretrained(8).eval()
    head = AnomalyHead(HeadShape(64, trained.encoder.channels), trained.discriminators).eval()
    with torch.no_grad():
        for count in (1, 60, 400):
            _validation_maps(head, trained, torch.zeros(count, 3, 64, 64, dtype=torch.uint8), 0)
    assert told == [4, 2, 1]


def test_maps_that_nothing_is_trained_for_are_standardised_on_pictures_that_they_do_not_know() -> None:
    torch.manual_seed(0)
    head = AnomalyHead(HeadShape(64, (8, 16, 32)), torch.nn.ModuleList())
    grids, held = (head.grids(torch.rand(count, 3, 64, 64)) for count in (12, 3))

    def assert_found(found: list[Tensor], own: slice, pictures: Grids) -> None:
        expected = head.untrained_maps(Grids(*(g[own] for g in pictures)))
        assert len(found) == 3
        assert all(torch.allclose(f[own], e, atol=1e-4) for f, e in zip(found, expected, strict=True))

    found = _cross_fitted(head, grids, held, AnomalyHead.fill_untrained)
    assert [maps.shape for maps in found] == 3 * [(12, 1, 16, 16)]
    for first in (0, 3, 6, 9):  # four folds of neighbours
        others = [torch.cat([g[:first], g[first + 3 :], h]) for g, h in zip(grids, held, strict=True)]
        head.fill_untrained(Grids(*others))
        assert_found(found, slice(first, first + 3), grids)
    more = head.grids(torch.rand(12, 3, 64, 64))
    found = _cross_fitted(head, more, held, AnomalyHead.merge_untrained)
    head.merge_untrained(Grids(*(torch.cat([g[3:], h]) for g, h in zip(more, held, strict=True))))
    assert_found(found, slice(3), more)


@torch.no_grad()
def test_maps_that_nothing_is_trained_for_know_every_picture_in_the_end() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 255, (20, 3, 64, 64), dtype=torch.uint8)
    trained, held_back = Pretrained(8), pictures[15:]
    head = fit_head(trained, pictures[:15], held_back, seed=0)
    counts = head.light.count, head.colour.count, head.pattern.statistics.count, head.grain.count
    assert counts == (20, 20, 20, 20)
    assert head.count.flatten().tolist() == [20, 20, 5, 5, 5, 5, 20]
    assert not trained.training  # its features are those of a station
    # Weights and units are of parts that were not known then.
    head.fill_untrained(_grids(head, pictures[:15]))
    good, bad = maps_of(head, trained, held_back), _validation_maps(head, trained, held_back, 0)
    assert torch.equal(head.weight, choose_weights(good, bad))
    images = held_back.float() / 255
    score, levels, _ = head(images, trained.encoder(normalise(images)))
    assert torch.allclose(torch.cat([score[:, None], levels], 1).quantile(0.9, 0), torch.ones(4))


@torch.no_grad()
@pytest.mark.parametrize("where", ["learned from", "held back"])
def test_a_defect_that_was_taken_for_good_is_still_unlike_the_others(where: str) -> None:
    torch.manual_seed(0)
    pictures = (120 + 10 * torch.randn(20, 3, 64, 64)).to(torch.uint8)
    number = 3 if where == "learned from" else 17
    pictures[number, :, 20:30, 40:50] //= 4
    trained = Pretrained(8)
    head = fit_head(trained, pictures[:15], pictures[15:], seed=0)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    scores, maps = doubt(head, pictures[:15], pictures[15:])
    assert scores.argmax() == number
    assert scores[number] > 2 * scores.topk(2).values[1]
    images = pictures.float() / 255
    assert scores[number] > 2 * head(images, trained.encoder(normalise(images)))[0][number]
    row, column = divmod(int(maps[number].argmax()), 16)
    assert 4 <= row <= 8
    assert 9 <= column <= 13
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


@pytest.fixture(scope="module")
def grey_inspector() -> Inspector:
    """An untrained encoder with a head fitted to noisy grey parts between 90 and 110."""
    torch.manual_seed(0)
    base = torch.linspace(90, 110, 40).view(-1, 1, 1, 1) + torch.randn(40, 3, 64, 64) * 4
    pictures = base.clamp(0, 255).to(torch.uint8)
    trained = Pretrained(8)
    head = fit_head(trained, pictures[::2].contiguous(), pictures[1::2].contiguous(), seed=0)
    return Inspector(trained.encoder, head).eval()


def score(inspector: Inspector, level: float) -> float:
    noise = np.random.default_rng(1).normal(level, 4, (1, 64, 64, 3))
    with torch.no_grad():
        return float(inspector(torch.from_numpy(noise.clip(0, 255).astype(np.uint8)))[0])


def test_a_part_darker_or_lighter_than_every_good_part_scores_high(grey_inspector: Inspector) -> None:
    usual = max(score(grey_inspector, level) for level in (92, 100, 108))
    assert score(grey_inspector, 50) > 2 * usual
    assert score(grey_inspector, 160) > 2 * usual


def test_colour_is_that_of_each_cell_whatever_its_light_and_none_where_grey() -> None:
    torch.manual_seed(0)
    grey = torch.rand(1, 1, 64, 64).expand(1, 3, 64, 64).clone()
    assert colour(grey, 16).abs().max() < 1e-6
    tinted = torch.full((1, 3, 64, 64), 0.5)
    tinted[:, 2, :4, 4:8] = 0.25  # red, of one cell
    found = colour(tinted, 16)
    assert found[0, 1, 0, 1] == pytest.approx(np.log((0.25 + DARK) / (0.5 + DARK)), abs=1e-6)
    assert found.abs().flatten().topk(2).values[1] == 0
    assert torch.allclose(colour(0.8 * tinted, 16), found, atol=0.02)


@torch.no_grad()
def test_a_coloured_spot_as_light_as_its_part_is_found_and_the_noise_of_a_camera_is_not() -> None:
    torch.manual_seed(0)
    pictures = (100 + 10 * torch.randn(40, 1, 64, 64)).expand(40, 3, 64, 64).clamp(0, 255).to(torch.uint8)
    trained = Pretrained(8)
    head = fit_head(trained, pictures[::2].contiguous(), pictures[1::2].contiguous(), seed=0)
    asked = pictures[1::2].float()
    noisy = asked + torch.randint(-1, 2, asked.shape)
    spotted = asked.clone()
    spotted[:, :, 20:28, 20:28] += torch.tensor([-30.0, 0.0, 30.0]).view(3, 1, 1)

    def light_map(frames: Tensor) -> Tensor:
        maps: Tensor = head.maps(frames / 255, trained.encoder(normalise(frames / 255)))[:, MAPS.index("light")]
        return robust_maximum(maps)

    assert light_map(spotted).min() > 3 * light_map(asked).max()
    assert light_map(noisy).max() < 1.5 * light_map(asked).max()


@torch.no_grad()
def test_a_coloured_spot_no_larger_than_a_cell_of_the_map_is_found_where_it_is() -> None:
    torch.manual_seed(0)
    pictures = (100 + 10 * torch.randn(30, 1, 160, 160)).expand(30, 3, 160, 160) / 255
    head = AnomalyHead(HeadShape(160, (8, 16, 32)), torch.nn.ModuleList()).eval()
    head.fill_untrained(head.grids(pictures[:20]))
    asked = pictures[20:]
    spotted = asked.clone()
    spotted[:, :, 80:84, 40:44] += torch.tensor([-0.06, 0.0, 0.06]).view(3, 1, 1)
    good, bad = (head.untrained_maps(head.grids(some))[0][:, 0] for some in (asked, spotted))
    assert bad.amax((1, 2)).min() > 1.5 * good.max()
    assert (bad.flatten(1).argmax(1) == 20 * 40 + 10).all()


@torch.no_grad()
def test_the_grain_of_a_cell_is_not_shared_with_its_neighbours() -> None:
    torch.manual_seed(0)
    head = AnomalyHead(HeadShape(64, (8, 16, 32)), torch.nn.ModuleList()).eval()
    grids = head.grids(torch.rand(12, 3, 64, 64))
    head.fill_untrained(grids)
    assert torch.equal(head.untrained_maps(grids)[2][:, 0], head.grain(grids.energies))


def test_inspector_returns_score_levels_and_map(grey_inspector: Inspector) -> None:
    with torch.no_grad():
        scores, levels, maps = grey_inspector(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert scores.shape == (2,)
    assert levels.shape == (2, 3)
    assert maps.shape == (2, 16, 16)
    assert torch.allclose(scores, robust_maximum(maps))
