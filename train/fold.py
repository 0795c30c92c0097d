"""The fold: pictures as squares of their strips, as the model sees them, and maps as the pictures lie."""

from __future__ import annotations

import torch
from torch import Tensor

from kenpin.strips import Strips


def fold(pictures: Tensor) -> Tensor:
    """Pictures (..., H, W) of a shape that `Strips` gives, as squares (..., S, S) of their strips."""
    height, width = pictures.shape[-2:]
    if height == width:
        return pictures
    number = Strips.of_shape(height, width).number
    across, along = (-2, -1) if width > height else (-1, -2)
    side = number * min(height, width)
    step = (max(height, width) - side) // (number - 1)
    return torch.cat([pictures.narrow(along, step * n, side) for n in range(number)], across)


def unfold(squares: Tensor, strips: Strips, *, overlap: int) -> Tensor:
    """Squares (..., S, S) as their pictures lie: the inverse of `fold`.

    Where strips overlap, the larger value of the two counts.

    Args:
        squares: Of the strips, in any scale.
        strips: How they lie.
        overlap: Of one strip with the next, in places of these squares.
    """
    if strips.number == 1:
        return squares
    across, along = (-1, -2) if strips.down > 1 else (-2, -1)
    side = squares.shape[-1]
    first, *others = torch.split(squares, side // strips.number, across)
    for strip in others:
        length = first.shape[along]
        shared = torch.maximum(first.narrow(along, length - overlap, overlap), strip.narrow(along, 0, overlap))
        rest = strip.narrow(along, overlap, side - overlap)
        first = torch.cat([first.narrow(along, 0, length - overlap), shared, rest], along)
    return first
