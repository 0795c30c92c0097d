from __future__ import annotations

import pytest
import torch

from kenpin.train.importance import MOST_WEIGHT, UNTIL, Importance, inclusion


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


@pytest.mark.parametrize(("pictures", "batch"), [(10, 1), (10, 4), (10, 8), (30, 24), (24, 24)])
def test_weights_undo_the_preference_on_average(pictures: int, batch: int) -> None:
    """Over many batches a hard picture weighs as much as an easy one, however much of all a batch is."""
    torch.manual_seed(0)
    importance, is_hard = Importance(pictures, strength=0.5), torch.arange(pictures) >= pictures // 2
    importance.update(torch.arange(pictures), torch.where(is_hard, 9.0, 1.0))
    weighed, drawn_how_often = torch.zeros(pictures), torch.zeros(pictures)
    for _ in range(2000):
        drawn, weight = importance.draw(batch, 0.0)
        weighed[drawn] += weight * pictures / batch / 2000
        drawn_how_often[drawn] += 1
    assert weighed[is_hard].mean().item() == pytest.approx(1, abs=0.06)
    assert weighed[~is_hard].mean().item() == pytest.approx(1, abs=0.06)
    if batch < pictures:
        assert drawn_how_often[is_hard].mean() > 1.1 * drawn_how_often[~is_hard].mean()


def test_a_batch_of_all_pictures_needs_no_weights() -> None:
    assert torch.equal(hard_half(1.0).draw(10, 0.0)[1], torch.ones(10))


def test_inclusion_is_how_often_a_picture_is_among_the_drawn() -> None:
    torch.manual_seed(0)
    chance = torch.tensor([1.0, 2, 3, 4, 5, 6, 30]) / 51
    for count in (2, 5):
        found = inclusion(chance, count)
        counted = torch.stack([torch.multinomial(chance, count) for _ in range(3000)]).flatten().bincount()
        assert found.sum().item() == pytest.approx(count, abs=1e-4)
        assert torch.allclose(found, counted / 3000, atol=0.05)


def test_inclusion_is_found_where_chances_are_far_apart() -> None:
    """More are drawn than there are pictures with any real chance."""
    chance = torch.tensor([1e-8] * 5 + [0.2] * 5)
    assert inclusion(chance, 7)[:5].sum().item() == pytest.approx(2, abs=1e-3)


def test_a_rare_picture_does_not_dominate_a_step() -> None:
    """Of 90 easy and 10 very hard pictures the weights would be about 8 and 0.1."""
    torch.manual_seed(0)
    importance = Importance(100, strength=1.0)
    importance.update(torch.arange(100), torch.tensor([1.0] * 90 + [100.0] * 10))
    weights = torch.cat([importance.draw(8, 0.0)[1] for _ in range(20)])
    assert weights.unique().tolist() == pytest.approx([1 / MOST_WEIGHT, MOST_WEIGHT])


def test_a_draw_has_no_picture_twice_and_hard_ones_weigh_less() -> None:
    torch.manual_seed(0)
    drawn, weight = hard_half(1.0).draw(8, 0.0)
    assert len(set(drawn.tolist())) == 8
    assert weight[drawn < 5].min() > weight[drawn >= 5].max()


def test_a_picture_not_shown_yet_counts_as_the_mean_and_losses_run() -> None:
    importance = Importance(4, strength=1.0)
    assert torch.allclose(importance.probabilities(0.0), torch.full((4,), 0.25))
    importance.update(torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    chance = importance.probabilities(0.0)
    assert chance[0] < chance[2] == chance[3] < chance[1]
    importance.update(torch.tensor([0]), torch.tensor([11.0]))
    assert float(importance.loss[0]) == pytest.approx(0.7 * 1 + 0.3 * 11)
