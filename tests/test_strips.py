"""Into how many strips a long picture is cut."""

from __future__ import annotations

import pytest

from kenpin.strips import NUMBERS, OVERLAP, Strips


@pytest.mark.parametrize(
    ("proportion", "strips"),
    [
        *[(1.0, (1, 1)), (2.4, (1, 1)), (1 / 2.4, (1, 1))],
        *[(2.5, (2, 1)), (7.9, (2, 1)), (1 / 2.5, (1, 2)), (1 / 7.9, (1, 2))],
        *[(8.0, (4, 1)), (40.0, (4, 1)), (1 / 8.0, (1, 4))],
    ],
)
def test_by_the_proportions(proportion: float, strips: tuple[int, int]) -> None:
    assert Strips.of(proportion) == strips


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_is_given_is_taken(number: int) -> None:
    assert Strips.of(1.5, number) == (number, 1)
    assert Strips.of(0.1, number) == (1, number)


@pytest.mark.parametrize("side", [64, 160, 1024])
@pytest.mark.parametrize("strips", [Strips.of(p, n) for p in (2.0, 0.5) for n in NUMBERS])
def test_the_strips_fill_the_square_and_overlap(strips: Strips, side: int) -> None:
    height, width = strips.shape(side)
    assert min(height, width) * strips.number == side
    assert max(height, width) + OVERLAP * (strips.number - 1) == side * strips.number
    assert (width > height) == (strips.across > 1)
    assert Strips.of_shape(height, width) == strips
