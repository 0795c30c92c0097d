"""The peers of the comparison do what their papers say: a comparison with broken ones would flatter us."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.peers import PEERS, settle
from kenpin.train.bench_set import BenchSet
from kenpin.train.encoder import Encoder

SIDE = 64


def _stripes(count: int, seed: int) -> torch.Tensor:
    """Pictures of stripes of different contrast, a patch of noise at the lower left, uint8 (N, 3, S, S)."""
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(0.7, 1.3, (count, 1, 1, 1))
    pictures = 128 + 60 * contrast * np.sin(np.arange(SIDE) / 2)[:, None] + np.zeros((count, 3, SIDE, SIDE))
    pictures += rng.normal(0, 4, pictures.shape)
    pictures[:, :, 40:56, 8:24] = rng.integers(0, 255, (count, 3, 16, 16))
    return torch.from_numpy(pictures.clip(0, 255).astype(np.uint8))


@pytest.fixture
def striped() -> BenchSet:
    """Good parts with stripes; the last four test pictures have a second patch of noise, at the upper right."""
    test = _stripes(12, seed=3)
    rng = np.random.default_rng(4)
    test[8:, :, 16:32, 32:48] = torch.from_numpy(rng.integers(0, 255, (4, 3, 16, 16), dtype=np.uint8))
    bad = np.arange(12) >= 8
    masks = np.zeros((12, SIDE // 4, SIDE // 4), bool)
    masks[8:, 4:8, 8:12] = True
    groups = tuple(str(i) for i in range(12))
    good_groups = tuple(str(i) for i in range(30))
    return BenchSet("stripes", _stripes(24, 1), _stripes(6, 2), test, bad, masks, groups, good_groups)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("name", list(PEERS))
def test_patch_of_noise_is_found_where_it_is(striped: BenchSet, name: str, settled: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(64).eval()
    if settled:
        settle(encoder, torch.cat([striped.fit, striped.held_back]))

    found = PEERS[name](encoder, striped, seed=0)

    assert found.scores[striped.bad].min() > found.scores[~striped.bad].max()
    assert striped.pixel_figures(found.maps)[0] > 0.9
