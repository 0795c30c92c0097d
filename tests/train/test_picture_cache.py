"""Pictures in memory: the same batches whether they fit or not, and no more memory than allowed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kenpin.errors import DataError
from kenpin.pictures import Picture
from kenpin.train.data import load_pictures
from kenpin.train.picture_cache import PictureCache

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
CPU = torch.device("cpu")
DEVICES = [
    pytest.param(CPU, id="cpu"),
    pytest.param(
        torch.device("cuda"),
        id="cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
        ],
    ),
]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Nine different pictures of different sizes."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        assert cv2.imwrite(str(path), rng.integers(0, 255, (40 + number, 70 - number, 3), np.uint8))
        found.append(Picture(path, "good", str(number)))
    return found


def cache_of(pictures: list[Picture], images: float, device: torch.device = CPU) -> PictureCache:
    """A cache with room for so many images."""
    return PictureCache(pictures=pictures, side=SIDE, limit_bytes=int(images * IMAGE_BYTES), device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("room", [0, 1, 4, 8.9, 9, 100])
def test_a_batch_does_not_depend_on_what_is_held(
    pictures: list[Picture], room: float, device: torch.device
) -> None:
    cache = cache_of(pictures, room, device)
    assert len(cache) == 9
    expected = load_pictures(pictures, side=SIDE)
    for indices in ([8, 0, 3, 3, 5, 8], [0], [7], [], list(range(9))):
        batch = cache.batch(torch.tensor(indices, dtype=torch.int64))
        assert batch.dtype == torch.uint8
        assert batch.device.type == device.type
        assert torch.equal(batch.cpu(), expected[indices])


@pytest.mark.parametrize(("room", "held"), [(0, 0), (0.9, 0), (1, 1), (4.5, 4), (8.99, 8), (9, 9), (100, 9)])
def test_as_many_are_held_as_fit_below_the_limit(pictures: list[Picture], room: float, held: int) -> None:
    assert cache_of(pictures, room)._held.nbytes == held * IMAGE_BYTES


def test_only_pictures_that_are_not_held_are_read_again(pictures: list[Picture]) -> None:
    cache = cache_of(pictures, 4)
    expected = load_pictures(pictures, side=SIDE)
    for picture in pictures[:4]:
        picture.path.unlink()
    for indices in ([0, 1, 3], [3, 4, 8, 0], [8]):
        assert torch.equal(cache.batch(torch.tensor(indices)), expected[indices])


def test_held_pictures_need_no_file_any_more(pictures: list[Picture]) -> None:
    cache = cache_of(pictures, 9)
    expected = load_pictures(pictures, side=SIDE)
    for picture in pictures:
        picture.path.unlink()
    assert torch.equal(cache.batch(torch.arange(9)), expected)


def test_a_picture_that_cannot_be_read_is_named_at_the_start(pictures: list[Picture]) -> None:
    broken = pictures[2].path
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match="cut short") as caught:
        cache_of(pictures, 9)
    assert caught.value.where == str(broken)


def test_a_picture_that_vanishes_during_training_is_named(pictures: list[Picture]) -> None:
    cache = cache_of(pictures, 4)
    pictures[6].path.unlink()
    with pytest.raises(DataError, match="cannot read the picture") as caught:
        cache.batch(torch.tensor([0, 6]))
    assert caught.value.where == str(pictures[6].path)


def test_images_in_memory_are_a_cache_too() -> None:
    images = torch.randint(0, 255, (5, 3, SIDE, SIDE), dtype=torch.uint8)
    cache = PictureCache.of(images)
    assert len(cache) == 5
    assert cache._held.nbytes == 5 * IMAGE_BYTES
    indices = torch.tensor([4, 1, 1])
    assert torch.equal(cache.batch(indices), images[indices])
    # A batch is a copy: what is done to it does not reach the pictures.
    cache.batch(torch.arange(5)).zero_()
    assert torch.equal(cache.batch(indices), images[indices])
