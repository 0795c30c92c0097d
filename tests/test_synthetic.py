"""Drawn parts: always the same, labelled truly, damaged where the mask says."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from kenpin.errors import ConfigError
from kenpin.synthetic import PRODUCTS, draw_part, label_of

each_product = pytest.mark.parametrize("product", PRODUCTS)


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.abs(one.astype(np.int16) - other.astype(np.int16)).max(2)


@each_product
def test_the_same_part_again_and_again(product: str) -> None:
    first = draw_part(product, seed=3, index=5, defect_share=0.5)
    draw_part(product, seed=3, index=6, defect_share=0.5)
    again = draw_part(product, seed=3, index=5, defect_share=0.5)
    assert first.label == again.label
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)


@each_product
def test_other_seeds_and_indices_give_other_parts(product: str) -> None:
    parts = [draw_part(product, seed=s, index=i, defect_share=0) for s, i in ((0, 1), (1, 0), (0, 2))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert _difference(parts[one].image, parts[other].image).mean() > 2


@each_product
def test_label_is_known_without_drawing(product: str) -> None:
    for index in range(20):
        part = draw_part(product, seed=1, index=index, defect_share=0.5)
        assert part.label == label_of(product, seed=1, index=index, defect_share=0.5)


@each_product
def test_share_and_kinds_of_defects(product: str) -> None:
    labels = Counter(label_of(product, seed=0, index=i, defect_share=0.25) for i in range(2000))
    bad = 2000 - labels["good"]
    assert 420 < bad < 580
    assert {"scratch", "hole", "stain"} < set(labels)
    assert min(labels.values()) > 50
    assert label_of(product, seed=0, index=0, defect_share=0) == "good"
    assert label_of(product, seed=0, index=0, defect_share=1) != "good"


@each_product
def test_shapes_and_masks(product: str) -> None:
    for index in range(60):
        part = draw_part(product, seed=2, index=index, defect_share=0.7)
        assert (part.image.shape, part.image.dtype) == ((256, 256, 3), np.uint8)
        assert (part.mask.shape, part.mask.dtype) == ((256, 256), np.uint8)
        assert set(np.unique(part.mask)) <= {0, 255}
        marked = int((part.mask > 0).sum())
        assert marked == 0 if part.label == "good" else marked >= 25, (index, part.label)


@each_product
@pytest.mark.parametrize("kind", ["scratch", "hole", "stain"])
def test_a_defect_shows_where_the_mask_is_and_nowhere_else(product: str, kind: str) -> None:
    indices = [i for i in range(400) if label_of(product, seed=4, index=i, defect_share=1) == kind][:5]
    assert len(indices) == 5
    for index in indices:
        bad = draw_part(product, seed=4, index=index, defect_share=1)
        good = draw_part(product, seed=4, index=index, defect_share=0)
        # The light is drawn after the defect and differs; look at what stands out of it.
        change = _difference(bad.image, good.image)
        inside, outside = change[bad.mask > 0], change[bad.mask == 0]
        assert inside.mean() > 2 * outside.mean()


@pytest.mark.parametrize(
    ("product", "seed", "index", "share"),
    [("bottle", 0, 0, 0.1), ("cap", -1, 0, 0.1), ("cap", 0, -1, 0.1), ("cap", 0, 0, 1.1), ("cap", 0, 0, -0.1)],
)
def test_bad_arguments_are_refused(product: str, seed: int, index: int, share: float) -> None:
    with pytest.raises(ConfigError):
        draw_part(product, seed=seed, index=index, defect_share=share)


def test_unknown_product_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="fabric, metal, board, cap"):
        label_of("bottle", seed=0, index=0, defect_share=0)


@each_product
def test_drawing_is_fast_enough_for_a_line(product: str) -> None:
    draw_part(product, seed=0, index=0, defect_share=0.3)
    start = time.process_time()
    for index in range(20):
        draw_part(product, seed=0, index=index, defect_share=0.3)
    assert (time.process_time() - start) / 20 < 0.05
