"""The grain: energies of fine structure, and their distance from what is usual."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.spatial.distance import mahalanobis

from kenpin.train.grain import ANGLES, CHANNELS, Grain
from kenpin.train.light import DARK


def stripes(angle: float, *, period: float = 6.0, strength: float = 0.2) -> torch.Tensor:
    """A grey picture (1, 1, 64, 64) whose light waves across the angle."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    across = x * np.cos(angle) + y * np.sin(angle)
    return (0.5 + strength * torch.sin(2 * np.pi / period * across))[None, None]


def test_filters_are_blind_to_light_and_of_one_size() -> None:
    filters = Grain(16).filters
    assert filters.shape == (2 * CHANNELS, 1, 7, 8)
    assert filters.sum((1, 2, 3)).abs().max() < 1e-6
    assert torch.allclose(filters.abs().sum((1, 2, 3)), torch.ones(2 * CHANNELS))


def test_the_energy_of_a_cell_is_the_mean_of_what_every_pixel_answers() -> None:
    torch.manual_seed(0)
    grain, grey = Grain(16), torch.rand(1, 1, 64, 64)
    found = grain.energies(grey)[0, :, 1:-1, 1:-1]
    light = np.log(grey[0, 0].numpy() + DARK)
    for channel in range(CHANNELS):
        answers = correlate(light, grain.filters[channel, 0, :, :7].numpy(), mode="constant")
        cells = (answers**2).reshape(16, 4, 16, 4).mean((1, 3))[1:-1, 1:-1]
        assert np.allclose(found[channel].numpy(), np.log(np.sqrt(cells) + 0.003), atol=1e-4)


@pytest.mark.parametrize("k", range(ANGLES))
def test_each_direction_has_a_channel_for_edges_and_one_for_lines(k: int) -> None:
    energies = Grain(16).energies(stripes(np.pi * k / ANGLES))[0].mean((1, 2))
    assert int(energies[0::2].argmax()) == k
    assert int(energies[1::2].argmax()) == k


def test_a_lamp_that_ages_leaves_the_grain_as_it_is_and_a_blur_does_not() -> None:
    grain, lit = Grain(16), stripes(0.3)
    usual = grain.energies(lit)
    assert torch.allclose(grain.energies(0.7 * lit), usual, atol=0.05)
    assert grain.energies(stripes(0.3, strength=0.1)).sub(usual).mean() < -0.4


def test_the_edge_of_the_picture_is_no_edge_of_the_part() -> None:
    energies = Grain(16).energies(torch.full((1, 1, 64, 64), 0.9))
    assert energies.std() < 1e-5
    energies = Grain(16).energies(torch.rand(1, 1, 64, 64))
    assert torch.equal(energies[..., 0, :], energies[..., 1, :])
    assert torch.equal(energies[..., -1], energies[..., -2])


def test_the_distance_is_that_of_mahalanobis_from_what_components_leave() -> None:
    torch.manual_seed(0)
    grain, mixed = Grain(6), torch.randn(CHANNELS, CHANNELS)
    known = torch.einsum("cd,ndhw->nchw", mixed, torch.randn(50, CHANNELS, 6, 6)) + torch.randn(CHANNELS, 6, 6)
    grain.fit(known)
    asked = torch.randn(1, CHANNELS, 6, 6)
    mean = known.mean(0).double()
    rows = (torch.cat([known, asked]).double() - mean).flatten(1)
    basis = torch.linalg.svd(rows[:50], full_matrices=False).Vh[: 50 // 4]
    left = (rows - rows @ basis.T @ basis).view(51, CHANNELS, 36)
    known_left = left[:50].transpose(0, 1).flatten(1).numpy()
    covariance = known_left @ known_left.T / known_left.shape[1]
    inverse = np.linalg.inv(covariance + np.diag(0.1 * np.diag(covariance) + 1e-4))
    expected = [mahalanobis(left[50, :, place].numpy(), np.zeros(CHANNELS), inverse) for place in range(36)]
    assert grain(asked).flatten().tolist() == pytest.approx(expected, rel=1e-3)


def shifted_edges(count: int) -> torch.Tensor:
    """Parts (N, 1, 64, 64) whose outline lies a little further left or right on each."""
    x = torch.arange(64.0).expand(count, 1, 64, 64)
    at = 32 + 2 * torch.randn(count, 1, 1, 1)
    return 0.4 + 0.2 * torch.sigmoid(x - at) + 0.002 * torch.randn(count, 1, 64, 64)


def test_an_outline_that_lies_a_little_to_the_side_is_no_scratch() -> None:
    torch.manual_seed(0)
    grain = Grain(16)
    grain.fit(grain.energies(shifted_edges(120)))
    good = shifted_edges(20)
    scratched = good.clone()
    scratched[:, 0, 20:40, 34] -= 0.03
    assert grain(grain.energies(scratched)).amax((1, 2)).min() > 1.2 * grain(grain.energies(good)).amax()
    grain.components.basis.zero_()  # by place alone, the outline hides it
    assert grain(grain.energies(scratched)).amax((1, 2)).min() < grain(grain.energies(good)).amax()


def test_what_is_merged_explains_what_old_and_new_parts_differ_by() -> None:
    torch.manual_seed(0)
    ways = torch.randn(2, CHANNELS, 8, 8)

    def parts(count: int, way: int) -> torch.Tensor:
        return 2 * torch.randn(count, 1, 1, 1) * ways[way] + way + 0.1 * torch.randn(count, CHANNELS, 8, 8)

    old, new = parts(120, 0), parts(60, 1)
    merged, every, first = Grain(8), Grain(8), Grain(8)
    merged.fit(old)
    merged.merge(new)
    every.fit(torch.cat([old, new]))
    first.fit(old)
    assert merged.count == every.count
    assert torch.allclose(merged.mean, every.mean, atol=1e-5)
    assert torch.allclose(merged.covariance, every.covariance, atol=0.1 * float(every.covariance.max()))
    asked = torch.cat([parts(5, 0), parts(5, 1)])
    assert float(merged(asked).mean()) == pytest.approx(float(every(asked).mean()), rel=0.1)
    assert first(asked)[5:].mean() > 3 * first(asked)[:5].mean()


def test_a_fine_scratch_stands_out_and_parts_without_any_grain_are_no_trouble() -> None:
    torch.manual_seed(0)
    grain = Grain(16)
    pictures = 0.5 + 0.02 * torch.randn(40, 1, 64, 64)
    grain.fit(grain.energies(pictures[:30]))
    good = grain(grain.energies(pictures[30:]))
    scratched = pictures[30:].clone()
    scratched[:, :, 20:40, 30] -= 0.1
    found = grain(grain.energies(scratched))
    assert found[:, 6:9, 7].mean(1).min() > 1.5 * good.amax((1, 2)).max()
    assert torch.allclose(found[:, :, 12:], good[:, :, 12:], atol=0.5)
    flat = torch.full((5, 1, 64, 64), 0.5)
    grain.fit(grain.energies(flat))
    assert grain(grain.energies(flat)).abs().max() < 1e-3
