from __future__ import annotations

import pytest
import torch

from kenpin.train.defects import VISIBLE, add_defects
from kenpin.train.levels import LEVELS
from kenpin.train.views import Photometry, jitter, overlapping, random_crops, sample, to_picture, to_view, warp


def ramp(count: int, side: int) -> torch.Tensor:
    """A picture whose first channel is x and whose second is y, both -1..1 at pixel centres."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    x, y = axis.expand(side, side), axis[:, None].expand(side, side)
    return torch.stack([x, y, x * 0]).expand(count, 3, side, side)


def test_a_place_is_the_same_place_in_picture_and_view() -> None:
    torch.manual_seed(0)
    crops = random_crops(6, (0.4, 0.6), rotation_deg=6)
    points = torch.rand(6, 9, 2) * 1.6 - 0.8
    assert torch.allclose(to_view(crops, to_picture(crops, points)), points, atol=1e-5)
    seen = sample(warp(ramp(6, 128), crops, 128), points).reshape(6, 9, 3)
    assert torch.allclose(seen[..., :2], to_picture(crops, points), atol=0.01)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_crops_stay_inside_and_overlap(level: object) -> None:
    extent = level.extent  # type: ignore[attr-defined]
    torch.manual_seed(1)
    first = random_crops(200, extent, rotation_deg=0)
    second = overlapping(first, random_crops(200, extent, rotation_deg=0), extent=extent[0])
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).expand(200, 2, 2)
    assert to_picture(first, corners).abs().max() < 1.1
    assert to_picture(second, corners).abs().max() < 1.1
    centre = torch.zeros(200, 1, 2)
    assert to_view(second, to_picture(first, centre)).abs().max() < 1.0


def test_defects_are_marked_where_and_only_where_the_view_changed() -> None:
    torch.manual_seed(2)
    views = torch.rand(64, 3, 64, 64)
    changed, mask = add_defects(views, (0.1, 0.3))
    difference = (changed - views).abs().mean(1, keepdim=True)
    assert ((mask > 0) == ((difference > VISIBLE) & (mask > 0))).all()
    assert difference[mask == 0].max() <= VISIBLE
    assert (mask.flatten(1).sum(1) > 4).float().mean() > 0.9


def test_each_level_gets_defects_of_its_size() -> None:
    torch.manual_seed(3)
    areas = []
    for level in LEVELS:
        _, mask = add_defects(torch.rand(128, 3, 96, 96), level.defect_sizes)
        areas.append(float(mask.mean()))
    assert areas[0] > 2 * areas[1] > 4 * areas[2]


def test_jitter_stays_within_the_light_of_the_line() -> None:
    steady = Photometry.measure(torch.full((10, 3, 32, 32), 100, dtype=torch.uint8))
    assert steady.gain == pytest.approx(0.01)
    torch.manual_seed(4)
    grey = torch.full((100, 3, 32, 32), 0.4)
    assert (jitter(grey, steady).mean((1, 2, 3)) / 0.4 - 1).abs().max() < 0.025
    lights = torch.linspace(50, 200, 20).to(torch.uint8).view(-1, 1, 1, 1).expand(20, 3, 32, 32)
    assert Photometry.measure(lights).gain == pytest.approx(0.3)
