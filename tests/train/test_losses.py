from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from kenpin.train.losses import (
    defect_contrast,
    defect_discrimination,
    nt_xent,
    soft_nearest_neighbour,
    spread_loss,
)


def unit(*shape: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=1)


def test_defect_contrast_is_the_formula_written_as_loops() -> None:
    torch.manual_seed(0)
    anchors, positives, defects, t = unit(5, 8), unit(5, 8), unit(7, 8), 0.2
    expected = []
    for a, p in zip(anchors, positives, strict=True):
        attract = math.exp(float(a @ p) / t)
        repel = sum(math.exp(float(a @ d) / t) for d in defects)
        expected.append(-math.log(attract / (attract + repel)))
    got = defect_contrast(anchors, positives, defects, temperature=t)
    assert got.tolist() == pytest.approx(expected)


def test_soft_nearest_neighbour_is_the_formula_written_as_loops() -> None:
    torch.manual_seed(1)
    good, picture, defects, t = unit(6, 8), torch.tensor([0, 0, 1, 1, 2, 2]), unit(4, 8), 0.3
    losses = []
    for i in range(6):
        near = [math.exp(float(good[i] @ good[j]) / t) for j in range(6) if picture[j] != picture[i]]
        repel = sum(math.exp(float(good[i] @ d) / t) for d in defects) / len(defects)
        difference = math.log(repel) - math.log(sum(near) / len(near))
        losses.append(math.log1p(math.exp(difference)))
    got = soft_nearest_neighbour(good, good, picture[:, None] != picture, defects, temperature=t)
    assert got.tolist() == pytest.approx(losses)


def test_discrimination_weighs_defect_and_good_cells_alike_and_ignores_mixed_ones() -> None:
    share = torch.tensor([[[0.0, 0.0, 0.0], [0.05, 1.0, 0.0]]])
    logits = torch.tensor([[[-1.0, 2.0, 0.5], [9.0, -3.0, 0.0]]])
    good = sum(math.log1p(math.exp(v)) for v in (-1.0, 2.0, 0.5, 0.0)) / 4
    defect = math.log1p(math.exp(3.0))
    got = defect_discrimination(logits, share, threshold=0.1)
    assert float(got) == pytest.approx(0.5 * (good + defect), rel=1e-5)


def test_losses_fall_when_good_places_agree_and_defects_are_far() -> None:
    torch.manual_seed(2)
    good = functional.normalize(torch.tensor([[1.0, 0.0]]).repeat(4, 1) + 0.01 * torch.randn(4, 2), dim=1)
    near, far = good.clone(), -good
    t = 0.1
    assert defect_contrast(good, good, far, temperature=t).max() < 1e-3
    assert defect_contrast(good, far, near, temperature=t).min() > 10
    others = ~torch.eye(4, dtype=torch.bool)
    assert soft_nearest_neighbour(good, good, others, far, temperature=t).max() < 1e-3


def test_nt_xent_is_the_formula_written_as_loops() -> None:
    torch.manual_seed(3)
    first, second, t = unit(4, 8), unit(4, 8), 0.25
    both = [*first, *second]
    expected = []
    for i in range(8):
        others = [k for k in range(8) if k != i]
        total = sum(math.exp(float(both[i] @ both[k]) / t) for k in others)
        expected.append(-math.log(math.exp(float(both[i] @ both[(i + 4) % 8]) / t) / total))
    got = nt_xent(first, second, temperature=t)
    assert got.tolist() == pytest.approx([(expected[i] + expected[i + 4]) / 2 for i in range(4)])


def test_spread_loss_is_zero_only_where_every_dimension_is_spread() -> None:
    torch.manual_seed(4)
    spread = torch.randn(500, 3) * 1.5
    assert spread_loss(spread) == 0
    collapsed = spread.clone()
    collapsed[:, 1] = 2.0
    assert float(spread_loss(collapsed)) == pytest.approx((1 - 0.01) / 3, abs=1e-4)
