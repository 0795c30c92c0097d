from __future__ import annotations

import pytest
import torch

from kenpin.train.importance import UNTIL, Importance


def hard_half(strength: float) -> Importance:
    importance = Importance(10, strength=strength)
    importance.update(torch.arange(10), torch.tensor([1.0] * 5 + [4.0] * 5))
    return importance


def test_hard_pictures_are_preferred_early_and_not_late() -> None:
    importance = hard_half(1.0)
    early, late = importance.probabilities(0.0), importance.probabilities(UNTIL)
    assert float(early[9] / early[0]) == pytest.approx(4, rel=0.05)
    assert torch.allclose(late, torch.full((10,), 0.1))
    assert float(importance.probabilities(UNTIL / 2)[9] / importance.probabilities(UNTIL / 2)[0]) < 2.1


def test_strength_zero_is_uniform() -> None:
    assert torch.allclose(hard_half(0.0).probabilities(0.0), torch.full((10,), 0.1))


def test_weights_undo_the_preference_on_average() -> None:
    torch.manual_seed(0)
    importance = hard_half(1.0)
    value = torch.arange(10.0)
    sums = torch.zeros(2)
    for _ in range(4000):
        drawn, weight = importance.draw(1, 0.0)
        chance = importance.probabilities(0.0)[drawn]
        assert weight == 1.0  # of one picture, whose mean is 1
        sums += torch.stack([(value[drawn] / (10 * chance)).sum(), value[drawn].sum()])
    corrected, plain = sums / 4000
    assert float(corrected) == pytest.approx(4.5, abs=0.2)
    assert float(plain) > 5.5


def test_a_draw_has_no_picture_twice_and_its_weights_have_mean_one() -> None:
    torch.manual_seed(0)
    drawn, weight = hard_half(1.0).draw(8, 0.0)
    assert len(set(drawn.tolist())) == 8
    assert float(weight.mean()) == pytest.approx(1)
    assert weight[drawn < 5].min() > weight[drawn >= 5].max()


def test_a_picture_not_shown_yet_counts_as_the_mean_and_losses_run() -> None:
    importance = Importance(4, strength=1.0)
    assert torch.allclose(importance.probabilities(0.0), torch.full((4,), 0.25))
    importance.update(torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    chance = importance.probabilities(0.0)
    assert chance[0] < chance[2] == chance[3] < chance[1]
    importance.update(torch.tensor([0]), torch.tensor([11.0]))
    assert float(importance.loss[0]) == pytest.approx(0.7 * 1 + 0.3 * 11)
