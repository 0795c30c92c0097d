"""The place of a view in a frame: what is cut out there, and where what is found in it lies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kenpin.cutout import Cutout, turned_about
from kenpin.view import Box

SIZE = (100, 80)
BOX = Box(30, 20, 40, 30)
MIDDLE = (49.5, 34.5)


def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)


def test_an_upright_place_shares_the_memory_of_its_frame() -> None:
    image = frame()
    cut = Cutout(BOX, SIZE).cut(image)
    np.testing.assert_array_equal(cut, image[20:50, 30:70])
    assert np.shares_memory(cut, image)
    assert Cutout.whole(image) == Cutout(Box(0, 0, *SIZE), SIZE)
    assert Cutout(BOX, SIZE).in_frame(Box(3, 4, 5, 6)) == Box(33, 24, 5, 6)


def test_clockwise_is_as_one_sees_it() -> None:
    """A point to the right of the pivot goes down: y points down."""
    matrix = turned_about((10, 10), 90)
    np.testing.assert_allclose(matrix @ (15, 10, 1), (10, 15))
    np.testing.assert_allclose(matrix @ (10, 10, 1), (10, 10))


def test_quarter_turns_are_exact() -> None:
    image = frame()
    square = Cutout(Box(30, 20, 30, 30), SIZE, turn_deg=90, pivot=(44.5, 34.5))
    # The part in the frame was turned clockwise, so what is cut out is turned back.
    np.testing.assert_array_equal(square.cut(image), np.rot90(image[20:50, 30:60]))
    assert square.in_frame(Box(3, 4, 5, 6)) == Box(50, 23, 6, 5)
    between = Cutout(Box(30, 20, 30, 30), SIZE, turn_deg=90, pivot=(44.0, 34.5))
    for x in (3, 4):  # edges in the middle of a pixel are rounded to even: 0 or 2 apart
        assert min(between.in_frame(Box(x, x, 1, 1))[2:]) >= 1
    half = Cutout(BOX, SIZE, turn_deg=180, pivot=MIDDLE)
    np.testing.assert_array_equal(half.cut(image), image[20:50, 30:70][::-1, ::-1])


@pytest.mark.parametrize("turn_deg", [-170.0, -33.3, 12.5, 90.0, 147.0])
def test_what_is_found_in_the_cut_is_told_where_it_lies_in_the_frame(turn_deg: float) -> None:
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    cv2.circle(image, (56, 40), 3, (255, 255, 255), -1)
    cutout = Cutout(BOX, SIZE, turn_deg=turn_deg, pivot=MIDDLE)
    rows, columns = np.nonzero(cutout.cut(image)[..., 0] > 127)
    inner = Box(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    x, y, width, height = cutout.in_frame(inner)
    np.testing.assert_allclose((x + width / 2, y + height / 2), (56.5, 40.5), atol=1.5)
    assert 7 <= width <= 13  # a turned box needs a larger one around it
    assert 7 <= height <= 13


def test_a_turned_place_may_reach_beyond_the_frame_but_what_is_told_does_not() -> None:
    image = frame()
    cutout = Cutout(Box(0, 0, *SIZE), SIZE, turn_deg=45, pivot=(49.5, 39.5))
    assert cutout.cut(image).shape == image.shape
    assert (cutout.cut(np.full_like(image, 200)) == 200).all()
    for inner in (Box(0, 0, 100, 80), Box(0, 0, 2, 2), Box(98, 78, 2, 2), Box(0, 78, 2, 2), Box(98, 0, 2, 2)):
        x, y, width, height = cutout.in_frame(inner)
        assert 0 <= x < x + width <= SIZE[0]
        assert 0 <= y < y + height <= SIZE[1]


@pytest.mark.parametrize("turn_deg", [0.0, 30.0, -120.0, 180.0])
@pytest.mark.parametrize("share", [1, 2])
def test_values_are_laid_over_the_frame_where_they_belong(turn_deg: float, share: int) -> None:
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    cv2.circle(image, (56, 40), 5, (200, 200, 200), -1)
    cutout = Cutout(BOX, SIZE, turn_deg=turn_deg, pivot=MIDDLE)
    values = cutout.cut(image)[..., 0].astype(np.float32)
    laid = cutout.spread(values, (SIZE[0] // share, SIZE[1] // share), fill=7)
    rows, columns = np.nonzero(laid > 100)
    np.testing.assert_allclose(
        (columns.mean() * share + (share - 1) / 2, rows.mean() * share + (share - 1) / 2), (56, 40), atol=0.5
    )
    assert laid[0, 0] == 7
    assert laid.shape == (SIZE[1] // share, SIZE[0] // share)
