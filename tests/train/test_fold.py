"""Long pictures as squares of strips, and maps as the pictures lie."""

from __future__ import annotations

import pytest
import torch

from kenpin.strips import NUMBERS, OVERLAP, Strips
from kenpin.train.fold import fold, unfold

EVERY = [Strips.of(proportion, number) for proportion in (2.0, 0.5) for number in NUMBERS]


def test_the_strips_of_a_wide_picture_lie_one_below_the_other() -> None:
    picture = torch.rand(3, 32, 112)
    square = fold(picture)
    assert square.shape == (3, 64, 64)
    assert torch.equal(square[:, :32], picture[:, :, :64])
    assert torch.equal(square[:, 32:], picture[:, :, 48:])


def test_the_strips_of_a_high_picture_lie_side_by_side() -> None:
    picture = torch.rand(112, 32)
    square = fold(picture)
    assert torch.equal(square[:, :32], picture[:64])
    assert torch.equal(square[:, 32:], picture[48:])


@pytest.mark.parametrize("strips", EVERY)
@pytest.mark.parametrize("rest", [(), (3,), (2, 3)])
def test_unfolded_they_lie_as_before(strips: Strips, rest: tuple[int, ...]) -> None:
    pictures = torch.rand(*rest, *strips.shape(128))
    squares = fold(pictures)
    assert squares.shape == (*rest, 128, 128)
    assert torch.equal(unfold(squares, strips, overlap=OVERLAP), pictures)


def test_where_strips_overlap_the_larger_value_counts() -> None:
    squares = torch.zeros(8, 8)
    squares[0, 7] = 1  # of the first strip, in what it shares with the second
    squares[5, 0] = 2  # of the second, in what it shares with the first
    found = unfold(squares, Strips(across=2), overlap=2)
    assert found.shape == (4, 14)
    assert found[0, 7] == 1
    assert found[1, 6] == 2
    assert found.sum() == 3
