"""Synthetic defects: what training pushes good places away from.

In the manner of CutPaste (Li et al., CVPR 2021) and NSA (Schlueter et al., ECCV 2022): a rectangle, a thin
curved scar or a ragged blob, filled from another part, with a flat colour, or with the part's own blurred,
re-lit or shifted content.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kenpin.train.views import uniform, warp

# Less than this mean change (0..1 scale) is not visible, so not a defect.
VISIBLE = 0.012


def add_defects(views: Tensor, sizes: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Draw one defect into each view.

    Args:
        views: (N, 3, S, S), 0..1.
        sizes: Smallest and largest linear extent relative to the view.

    Returns:
        The changed views, and masks (N, 1, S, S) of 0..1 that mark what visibly changed.
    """
    shape = _shapes(views, sizes)
    filling, opacity = _fillings(views)
    alpha = shape * opacity
    changed = views * (1 - alpha) + alpha * filling
    visible = (changed - views).abs().mean(1, keepdim=True) > VISIBLE
    return changed, shape * visible


def _shapes(views: Tensor, sizes: tuple[float, float]) -> Tensor:
    """Soft masks (N, 1, S, S) on the device of the views: a third each rectangles, scars and blobs."""
    count, side, device = len(views), views.shape[-1], views.device
    axis = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    kind = torch.randint(0, 3, (count,))
    scar = kind == 1
    size = torch.exp(uniform(count, math.log(sizes[0]), math.log(sizes[1])))
    aspect = torch.exp(uniform(count, -0.9, 0.9))
    half_width = torch.where(scar, size * uniform(count, 1.0, 3.0), size * aspect.sqrt())
    thin = (size * uniform(count, 0.04, 0.15)).clamp(min=2.2 / side)
    half_height = torch.where(scar, thin, size / aspect.sqrt())
    angle = uniform(count, 0, math.pi) * ((torch.rand(count) < 0.6) | scar)
    bend = torch.where(scar, uniform(count, -0.8, 0.8), torch.zeros(count))

    def cube(value: Tensor) -> Tensor:
        return value.view(-1, 1, 1).to(device)

    dx = axis.view(1, 1, -1) - cube(uniform(count, -0.85, 0.85))
    dy = axis.view(1, -1, 1) - cube(uniform(count, -0.85, 0.85))
    along = cube(angle.cos()) * dx + cube(angle.sin()) * dy
    across = cube(angle.cos()) * dy - cube(angle.sin()) * dx + cube(bend) * along**2
    pixel = 2.0 / side
    box = ((cube(half_width) - along.abs()) / pixel + 0.5).clamp(0, 1)
    box = box * ((cube(half_height) - across.abs()) / pixel + 0.5).clamp(0, 1)
    radius = torch.sqrt((along / cube(half_width)) ** 2 + (across / cube(half_height)) ** 2)
    ragged = 1.1 - radius + 0.5 * _clouds(count, side, cells=6 if sizes[1] > 0.2 else 12, device=device)
    blob = (ragged * cube(torch.minimum(half_width, half_height)) / pixel).clamp(0, 1) * (radius < 1.6)
    return torch.where(cube(kind == 2), blob, box)[:, None]


def _fillings(views: Tensor) -> tuple[Tensor, Tensor]:
    """What the defect is filled with (N, 3, S, S) and how opaque it is (N, 1, 1, 1)."""
    count, device = len(views), views.device
    choice = torch.randint(0, 5, (count,))
    opacity = torch.ones(count)
    opacity = torch.where(choice == 0, uniform(count, 0.5, 1.0), opacity)
    opacity = torch.where(choice == 1, uniform(count, 0.2, 0.9), opacity)
    makers: tuple[Callable[[Tensor], Tensor], ...] = (_other_part, _colour, _blurred, _relit, _shifted)
    filling = torch.zeros_like(views)
    for number, make in enumerate(makers):
        filling = torch.where((choice == number).view(-1, 1, 1, 1).to(device), make(views), filling)
    return filling, opacity.view(-1, 1, 1, 1).to(device)


def _other_part(views: Tensor) -> Tensor:
    """Another part, or the same, turned and moved."""
    count = len(views)
    angle = uniform(count, -0.25, 0.25) * math.pi
    shift = uniform(2 * count, 0.15, 0.9) * torch.randint(0, 2, (2 * count,)).mul(2).sub(1)
    rows = [
        torch.stack([angle.cos(), -angle.sin(), shift[:count]], 1),
        torch.stack([angle.sin(), angle.cos(), shift[count:]], 1),
    ]
    return warp(views[torch.randperm(count)], torch.stack(rows, 1), views.shape[-1])


def _colour(views: Tensor) -> Tensor:
    """A flat colour with a little structure; grey where the product is grey."""
    grey = (views - views.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 0.02
    colour = torch.rand(len(views), 3, 1, 1).to(views)
    colour = torch.where(grey.view(-1, 1, 1, 1), colour[:, :1], colour)
    return colour * (1 + 0.15 * _clouds(len(views), views.shape[-1], cells=10, device=views.device)[:, None])


def _blurred(views: Tensor) -> Tensor:
    kernel = max(3, views.shape[-1] // 14) | 1
    return functional.avg_pool2d(views, kernel, 1, kernel // 2, count_include_pad=False)


def _relit(views: Tensor) -> Tensor:
    count = len(views)
    gain = torch.where(torch.rand(count) < 0.5, uniform(count, 0.45, 0.8), uniform(count, 1.2, 1.6))
    return views * gain.view(-1, 1, 1, 1).to(views.device)


def _shifted(views: Tensor) -> Tensor:
    side = views.shape[-1]
    return torch.roll(views, (int(side * 0.04) + 1, -int(side * 0.03) - 1), (2, 3))


def _clouds(count: int, side: int, *, cells: int, device: torch.device) -> Tensor:
    """Smooth noise (N, S, S) of three octaves, about unit variance."""
    total = torch.zeros(count, side, side, device=device)
    amplitude = 1.0
    for octave in range(3):
        n = cells * 2**octave
        noise = torch.randn(count, 1, n, n, device=device)
        total += amplitude * functional.interpolate(noise, size=(side, side), mode="bicubic")[:, 0]
        amplitude *= 0.55
    return total / 1.3
