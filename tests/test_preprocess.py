from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kenpin.errors import DataError
from kenpin.frame import Image
from kenpin.preprocess import to_input
from kenpin.synthetic import draw_part

SIDES = st.integers(1, 40)
LARGE = [
    ("noise", (1080, 1920), (224, 224)),
    ("black and white", (1080, 1920), (224, 224)),
    ("drawn", (1080, 1920), (224, 224)),
    ("drawn", (1200, 1600), (256, 320)),
    ("black and white", (811, 1437), (224, 224)),  # no common divisor
    ("noise", (1031, 1009), (1030, 1009)),  # barely shrinks, one side stays
]


def picture(kind: str, height: int, width: int) -> Image:
    random = np.random.default_rng(0)
    if kind == "drawn":
        part = draw_part("board", seed=1, index=0, defect_share=1).image
        return np.asarray(cv2.resize(part, (width, height)), np.uint8)
    levels = 2 if kind == "black and white" else 256
    return (random.integers(0, levels, (height, width, 3)) * (255 // (levels - 1))).astype(np.uint8)


def sums(values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """What each of `size` parts of the first axis covers, times `size`: exact, from running totals."""
    none = np.zeros_like(values[:1])
    whole, part = np.divmod(np.arange(size + 1) * len(values), size)
    totals = np.concatenate([none, np.cumsum(values, axis=0)])[whole] * size
    return np.diff(totals + np.concatenate([values, none])[whole] * part[:, None, None], axis=0)


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


@pytest.mark.parametrize(("kind", "size", "target"), LARGE)
def test_a_large_frame_is_averaged_exactly_and_as_opencv_does(
    kind: str, size: tuple[int, int], target: tuple[int, int]
) -> None:
    image, (height, width) = picture(kind, *size), target
    result = to_input(image, height=height, width=width)
    rows = sums(image.astype(np.int64), height)
    exact = sums(rows.swapaxes(0, 1), width).swapaxes(0, 1) / (image.shape[0] * image.shape[1])
    assert np.abs(result - exact).max() <= 0.5001
    opencv = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    apart = np.abs(result.astype(int) - opencv)
    assert apart.max() <= 1
    is_tie = np.abs(exact % 1 - 0.5) < 1e-4
    assert not apart[~is_tie].any()


@pytest.mark.parametrize("size", [(1000, 1400), (1500, 1400)])
def test_whole_numbers_are_left_to_opencv(size: tuple[int, int]) -> None:
    image = picture("noise", *size)
    opencv = cv2.resize(image, (700, 500), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(to_input(image, height=500, width=700), opencv)


def test_a_large_frame_that_grows_on_one_side_is_shrunk_on_the_other_first() -> None:
    image = picture("noise", 4001, 300)
    shrunk = cv2.resize(image, (300, 224), interpolation=cv2.INTER_AREA)
    opencv = cv2.resize(shrunk, (400, 224), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(to_input(image, height=224, width=400), opencv)


def test_a_part_of_a_large_frame_gives_the_same_as_its_copy() -> None:
    frame = picture("noise", 1080, 1920)
    part = frame[30:1050, 7:1800]
    before = frame.copy()
    np.testing.assert_array_equal(
        to_input(part, height=224, width=224), to_input(part.copy(), height=224, width=224)
    )
    np.testing.assert_array_equal(frame, before)


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
