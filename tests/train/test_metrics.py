from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from kenpin.train.metrics import (
    aupro,
    auroc,
    bootstrap,
    escapes_at,
    false_calls_at,
    hierarchical_interval,
    limit_at,
    seconds_to,
)
from kenpin.train.pixels import count_pixels, pixel_intervals, resampled_figures


def test_auroc_counts_pairs_also_with_ties_and_scores_outside_0_to_1() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(50, 30, 200))
    scores[7] = 1e25  # the others must not merge beside it
    bad = rng.random(200) < 0.3
    pairs = [(b > g) + 0.5 * (b == g) for b in scores[bad] for g in scores[~bad]]
    assert auroc(scores, bad) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_auroc_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    scores, bad = np.round(rng.random(500), 2), rng.random(500) < 0.2
    reference = binary_auroc(torch.from_numpy(scores), torch.from_numpy(bad.astype(np.int64)))
    assert auroc(scores, bad) == pytest.approx(float(reference), abs=1e-6)


def test_auroc_takes_maps_of_any_shape() -> None:
    maps = np.arange(24.0).reshape(2, 3, 4)
    assert auroc(maps, maps > 11.5) == 1.0
    assert auroc(-maps, maps > 11.5) == 0.0


def test_auroc_of_one_class_is_not_a_number() -> None:
    for bad in (np.zeros(3, bool), np.ones(3, bool)):
        assert np.isnan(auroc(np.arange(3.0), bad))


def test_escapes_and_false_calls_at_an_operating_point() -> None:
    scores = np.concatenate([np.arange(1000.0), [995.5, 980.5, 2000.0, 989.5]])
    bad = np.arange(1004) >= 1000
    # 10 of 1,000 good parts may be stopped: the limit lies just above 989.
    assert escapes_at(scores, bad) == 250.0
    assert false_calls_at(scores, bad, caught=0.75) == pytest.approx(10.0)
    # A good part that scores as the worst one that must be caught is stopped with it.
    assert false_calls_at(np.array([5.0, 5.0]), np.array([False, True])) == 1000.0


def test_a_share_of_few_bad_parts_is_rounded_to_more_caught() -> None:
    scores, bad = np.array([*range(10), 5.5, 7.5, 9.5]), np.arange(13) >= 10
    assert false_calls_at(scores, bad, caught=0.5) == 200.0  # two of three are caught, not one
    assert false_calls_at(scores, bad, caught=0.95) == 400.0


def test_aupro_of_a_perfect_map_is_one_and_counts_regions_not_pixels() -> None:
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 2:4, 2:4] = True
    masks[1, 5:15, 5:15] = True
    assert aupro(masks.astype(float), masks, limit=0.3) == pytest.approx(1.0)
    only_large = masks.astype(float)
    only_large[0] = 0
    assert aupro(only_large, masks, limit=0.3) == pytest.approx(0.5, abs=0.01)


def test_bootstrap_over_groups_is_wider_than_over_pictures() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 10)
    bad = np.repeat(np.arange(20) % 2 == 0, 10)
    scores = np.repeat(rng.normal(0, 1, 20), 10) + bad + rng.normal(0, 0.01, 200)
    grouped = bootstrap(auroc, scores, bad, groups=[str(g) for g in group])
    alone = bootstrap(auroc, scores, bad, groups=[str(i) for i in range(200)])
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_the_limit_stops_no_more_good_parts_than_allowed() -> None:
    good = np.repeat(np.arange(100.0), 3)  # ties must not slip over the limit
    for allowed in (0.0, 10.0, 33.0):
        limit = limit_at(good, false_calls_per_1000=allowed)
        assert (good >= limit).mean() * 1000 <= allowed
        stopped_by_next = (good >= good[good < limit].max()).mean() * 1000
        assert stopped_by_next > allowed


def test_resamples_of_one_class_alone_say_nothing() -> None:
    found = bootstrap(auroc, np.arange(4.0), np.arange(4) > 1, groups=[*"abcd"])
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_hierarchical_interval_is_that_of_a_slow_plain_bootstrap() -> None:
    rng = np.random.default_rng(2)
    part = np.repeat(np.arange(30), 2)
    bad = part % 3 == 0
    per_seed = bad + np.repeat(rng.normal(0, 1, (4, 30)), 2, axis=1) + rng.normal(0, 0.5, (4, 1))
    fast = hierarchical_interval(per_seed, bad, groups=[str(p) for p in part], rounds=2000)
    means = []
    for _ in range(2000):
        drawn = [i for p in rng.integers(0, 30, 30) for i in np.flatnonzero(part == p)]
        if bad[drawn].any() and not bad[drawn].all():
            seeds = rng.integers(0, 4, 4)
            means.append(np.mean([auroc(per_seed[s][drawn], bad[drawn]) for s in seeds]))
    assert fast.value == pytest.approx(np.mean([auroc(row, bad) for row in per_seed]))
    assert (fast.low, fast.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.015)


def test_seeds_that_disagree_widen_the_hierarchical_interval() -> None:
    rng = np.random.default_rng(3)
    bad = np.arange(200) % 2 == 0
    clear, blind = bad + rng.normal(0, 0.3, 200), rng.normal(0, 0.3, 200)
    groups = [str(i) for i in range(200)]
    apart = hierarchical_interval(np.stack([clear, blind, clear, blind]), bad, groups=groups)
    alike = hierarchical_interval(np.stack([clear] * 4), bad, groups=groups)
    assert alike == bootstrap(auroc, clear, bad, groups=groups)
    assert apart.high - apart.low > 5 * (alike.high - alike.low)


def test_an_interval_of_one_part_alone_is_not_a_number() -> None:
    alone = bootstrap(lambda s, _: float(s.mean()), np.arange(2.0), np.zeros(2, bool), groups=["a", "a"])
    assert alone.value == 0.5
    assert np.isnan([alone.low, alone.high]).all()


def test_seconds_to_is_where_the_drawn_line_first_crosses() -> None:
    curve = [(10.0, 0.5), (20.0, 0.7), (30.0, 0.6), (40.0, 0.9)]
    fine = np.linspace(10, 40, 30_001)
    for target in (0.5, 0.55, 0.7, 0.75, 0.9):
        reached = fine[np.interp(fine, *np.transpose(curve)) >= target - 1e-12][0]
        assert seconds_to(curve, target) == pytest.approx(reached, abs=0.002)
    assert seconds_to(curve, 0.2) == 10.0
    assert np.isnan(seconds_to(curve, 0.95))
    assert np.isnan(seconds_to([], 0.5))


def maps_with_defects() -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Twelve noisy maps (12, 24, 24), eight of them with a defect, one with two."""
    rng = np.random.default_rng(4)
    masks = np.zeros((12, 24, 24), bool)
    for number in range(8):
        top, left = rng.integers(0, 12, 2)
        masks[number, top : top + 3 + number, left : left + 4] = True
    masks[0, 20:23, 20:23] = True
    return (masks + rng.normal(0, 0.7, masks.shape)).astype(np.float32), masks


def test_binned_pixel_figures_are_the_exact_ones() -> None:
    maps, masks = maps_with_defects()
    weights = np.ones((2, 12))
    weights[1, :6], weights[1, 6:] = 2, 0
    binned = resampled_figures(count_pixels(maps, masks), weights)
    for row, drawn in enumerate((np.arange(12), np.repeat(np.arange(6), 2))):
        some, truth = maps[drawn], masks[drawn]
        assert binned["pixel_auroc"][row] == pytest.approx(auroc(some, truth), abs=0.001)
        assert binned["aupro_30"][row] == pytest.approx(aupro(some, truth, limit=0.3), abs=0.005)
        assert binned["aupro_05"][row] == pytest.approx(aupro(some, truth, limit=0.05), abs=0.01)


def test_pixel_intervals_are_those_of_a_slow_bootstrap_over_groups() -> None:
    maps, masks = maps_with_defects()
    rng = np.random.default_rng(5)
    slow = []
    for _ in range(400):
        drawn = np.concatenate([[2 * g, 2 * g + 1] for g in rng.integers(0, 6, 6)])
        if masks[drawn].any():
            slow.append(auroc(maps[drawn], masks[drawn]))
    fast = pixel_intervals(maps, masks, groups=[str(n // 2) for n in range(12)], rounds=1000)
    assert fast["pixel_auroc"] == pytest.approx(np.percentile(slow, (2.5, 97.5)), abs=0.01)
    assert set(fast) == {"pixel_auroc", "aupro_30", "aupro_05"}


def test_a_flat_map_is_worth_nothing() -> None:
    masks = maps_with_defects()[1]
    figures = resampled_figures(count_pixels(np.zeros(masks.shape), masks), np.ones((1, 12)))
    assert figures["pixel_auroc"][0] == pytest.approx(0.5)
