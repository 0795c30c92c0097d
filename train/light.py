"""Local light of pictures, 0..1 scale, as logarithms: light multiplies, and its logarithms add."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Added to light (0..1 scale) before its logarithm, so that the noise of black pixels stays small.
DARK = 0.02


def grey_of(pictures: Tensor) -> Tensor:
    """Mean of the colours of pictures (N, 3, H, W): (N, 1, H, W).

    Their sum, because ONNX Runtime takes three times as long for a mean over an outer axis.
    """
    blue, green, red = torch.split(pictures, 1, 1)
    return (blue + green + red) / 3


def cells_of(values: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of values (N, 1, H, H) in cells of a grid, both (N, 1, cells, cells)."""
    side = values.shape[-1] // cells
    mean = functional.avg_pool2d(values, side)
    # Not the mean of squares less the square of the mean: that loses all digits where contrast is low.
    apart = values - functional.interpolate(mean, scale_factor=side, mode="nearest")
    return mean, functional.avg_pool2d(apart**2, side)


def light(mean: Tensor, variance: Tensor) -> Tensor:
    """Logarithm of local mean and contrast of light, from mean and variance (N, 1, h, w): (N, 2, h, w).

    Light multiplies: a lamp that ages changes every logarithm alike, a dead cell changes its own a lot.
    """
    return (torch.cat([mean, variance.sqrt()], 1) + DARK).log()


def colour(pictures: Tensor, cells: int) -> Tensor:
    """Logarithm of local blue and red over green of pictures (N, 3, S, S) on a grid: (N, 2, cells, cells).

    Zero where a picture is grey. A lamp that ages changes its light and, as long as its colour stays, not this.
    """
    logarithm = (functional.avg_pool2d(pictures, pictures.shape[-1] // cells) + DARK).log()
    return torch.cat([logarithm[:, :1] - logarithm[:, 1:2], logarithm[:, 2:] - logarithm[:, 1:2]], 1)
