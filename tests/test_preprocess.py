from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.errors import DataError
from kenpin.preprocess import to_input

SIDES = st.integers(1, 40)


@given(height=SIDES, width=SIDES, to_height=SIDES, to_width=SIDES, level=st.integers(0, 255))
def test_any_size_becomes_the_input_size_and_plain_stays_plain(
    height: int, width: int, to_height: int, to_width: int, level: int
) -> None:
    image = np.full((height, width, 3), level, np.uint8)
    result = to_input(image, height=to_height, width=to_width)
    assert result.shape == (to_height, to_width, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert (result == level).all()


def test_a_frame_of_the_right_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_input(image, height=20, width=30), image)


def test_shrinking_averages_what_a_pixel_covers() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    means = image.reshape(10, 4, 20, 3, 3).mean(axis=(1, 3))
    assert np.abs(to_input(image, height=10, width=20) - means).max() <= 0.51


@pytest.mark.parametrize("height", [32, 500], ids=["also shorter", "but taller"])
@pytest.mark.parametrize("column", range(0, 400, 13))
def test_a_scratch_of_one_pixel_is_never_skipped(column: int, height: int) -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[:, column] = 255
    assert to_input(image, height=height, width=64).max() >= 255 * 64 // 400 // 2


def test_channels_keep_their_order_and_a_slice_will_do() -> None:
    image = np.zeros((20, 20, 6), np.uint8)
    image[..., 0], image[..., 2], image[..., 4] = 10, 20, 30
    assert to_input(image[..., ::2], height=5, width=5)[2, 2].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 3), np.float32),
    ],
    ids=["grey", "one channel", "alpha", "no rows", "16 bit", "float"],
)
def test_what_is_no_frame_is_refused_with_its_shape(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=str(image.dtype)) as caught:
        to_input(image, height=4, width=4)
    assert str(image.shape) in caught.value.what
    assert caught.value.cure
