from __future__ import annotations

import numpy as np
import pytest

from kenpin.train.metrics import aupro, auroc, bootstrap, escapes_at, false_calls_at


def test_auroc_counts_pairs_also_with_ties_and_scores_outside_0_to_1() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(50, 30, 200))
    scores[7] = 1e25  # the others must not merge beside it
    bad = rng.random(200) < 0.3
    pairs = [(b > g) + 0.5 * (b == g) for b in scores[bad] for g in scores[~bad]]
    assert auroc(scores, bad) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_auroc_of_one_class_is_not_a_number() -> None:
    assert np.isnan(auroc(np.arange(3.0), np.zeros(3, bool)))


def test_escapes_and_false_calls_at_an_operating_point() -> None:
    scores = np.concatenate([np.arange(1000.0), [995.5, 980.5, 2000.0, 989.5]])
    bad = np.arange(1004) >= 1000
    # 10 of 1,000 good parts may be stopped: the limit lies just above 989.
    assert escapes_at(scores, bad, false_calls_per_1000=10) == 250.0
    assert false_calls_at(scores, bad, caught=0.75) == pytest.approx(10.0)


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
