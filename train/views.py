"""Views: crops of pictures with known geometry, and the line's own photometric changes.

Geometry is an affine matrix (N, 2, 3) from view coordinates to picture coordinates, both -1..1 as in
`torch.nn.functional.affine_grid`. All draws come from torch's current random state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Standard deviation of the noise that is added to views, 0..1 scale.
NOISE = 0.01


@dataclass(frozen=True)
class Photometry:
    """How much light and contrast differ between good parts.

    Augmenting further than this would teach the encoder to ignore what a brightness meter would catch.

    Attributes:
        gain: Standard deviation of the logarithm of a picture's mean.
        contrast: Standard deviation of the logarithm of a picture's standard deviation.
    """

    gain: float
    contrast: float

    @classmethod
    def measure(cls, pictures: Tensor) -> Photometry:
        """Measure the spread among good pictures, uint8 (N, 3, H, W)."""
        flat = pictures.flatten(1).float() + 1.0
        gain = flat.mean(1).log().std(unbiased=False).item()
        contrast = (flat.std(1) + 1.0).log().std(unbiased=False).item()
        return cls(gain=min(max(gain, 0.01), 0.3), contrast=min(max(contrast, 0.01), 0.3))


def uniform(count: int, low: float, high: float) -> Tensor:
    """(count,) values in low..high."""
    return torch.rand(count) * (high - low) + low


def random_crops(count: int, extent: tuple[float, float], *, rotation_deg: float) -> Tensor:
    """Random crops as affine matrices (count, 2, 3).

    Args:
        count: Number of crops.
        extent: Smallest and largest linear extent relative to the picture.
        rotation_deg: Largest rotation either way.
    """
    scale = torch.exp(uniform(count, math.log(extent[0]), math.log(extent[1])))
    stretch = torch.exp(uniform(count, -0.08, 0.08))
    angle = uniform(count, -rotation_deg, rotation_deg) * math.pi / 180
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cos * stretch, -sin / stretch], 1), torch.stack([sin * stretch, cos / stretch], 1)]
    room = (1 - scale).clamp(min=0)
    centre = torch.stack([uniform(count, -1, 1) * room, uniform(count, -1, 1) * room], 1)
    return torch.cat([torch.stack(rows, 1), centre[:, :, None]], 2)


def overlapping(crops: Tensor, others: Tensor, *, extent: float) -> Tensor:
    """Move the crops `others` (N, 2, 3) near `crops`, so that the two see common places."""
    scale = others[:, :, :2].flatten(1).norm(dim=1) / math.sqrt(2)
    room = (1 - scale).clamp(min=0)[:, None]
    centre = crops[:, :, 2] + (torch.rand(len(crops), 2) - 0.5) * 0.5 * extent
    return torch.cat([others[:, :, :2], centre.clamp(-room, room)[:, :, None]], 2)


def warp(pictures: Tensor, crops: Tensor, side: int) -> Tensor:
    """Cut views (N, 3, side, side) out of pictures (N, 3, H, W)."""
    grid = functional.affine_grid(crops.to(pictures), [len(pictures), 3, side, side], align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def to_picture(crops: Tensor, points: Tensor) -> Tensor:
    """Points (N, K, 2) of views in picture coordinates."""
    return torch.einsum("nij,nkj->nki", crops[:, :, :2], points) + crops[:, None, :, 2]


def to_view(crops: Tensor, points: Tensor) -> Tensor:
    """Points (N, K, 2) of pictures in view coordinates."""
    return torch.einsum("nij,nkj->nki", torch.linalg.inv(crops[:, :, :2]), points - crops[:, None, :, 2])


def sample(features: Tensor, points: Tensor) -> Tensor:
    """Features (N, C, h, w) at points (N, K, 2), bilinear: (N * K, C)."""
    grid = points[:, :, None].to(features)
    picked = functional.grid_sample(features, grid, padding_mode="border", align_corners=False)
    return picked[..., 0].transpose(1, 2).flatten(0, 1)


def jitter(views: Tensor, photometry: Photometry) -> Tensor:
    """Change light, contrast, sharpness and noise within what the line itself shows.

    Args:
        views: (N, 3, H, W), 0..1.
        photometry: Spread among good parts.
    """
    count, device = len(views), views.device
    gain = torch.exp(uniform(count, -1.7, 1.7) * photometry.gain).view(-1, 1, 1, 1).to(device)
    contrast = torch.exp(uniform(count, -1.7, 1.7) * photometry.contrast).view(-1, 1, 1, 1).to(device)
    mean = views.mean((1, 2, 3), keepdim=True)
    views = (views - mean) * contrast + mean * gain
    soft = functional.avg_pool2d(functional.pad(views, (1, 1, 1, 1), mode="reflect"), 3, 1)
    blend = (torch.rand(count) * 0.5 * (torch.rand(count) < 0.3)).view(-1, 1, 1, 1).to(device)
    noise = torch.randn(views.shape, device=device) * NOISE
    strength = torch.rand(count, 1, 1, 1).to(device)
    return views + blend * (soft - views) + noise * strength
