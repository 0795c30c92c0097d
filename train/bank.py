"""The memory bank: places of good parts that others are compared with (PatchCore, Roth et al., CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Places that a coreset is chosen from, at most.
CANDIDATES = 30_000
_PROJECTED = 32  # dimensions in which they are compared there
# Closer than 1 % of the spread of each channel is the same place. The difference of two large sums has no more
# digits than that, and the root would make its last ones large: another order of sums would be another map.
SAME_PLACE = 0.01


class MemoryBank(nn.Module):
    """Distance of each place to the nearest remembered place of good parts.

    Args:
        channels: C of the features.
        size: Number of remembered places.
    """

    mean: Tensor
    inverse_std: Tensor
    bank: Tensor
    squares: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("inverse_std", torch.ones(channels, 1, 1))
        self.register_buffer("bank", torch.zeros(channels, size))
        self.register_buffer("squares", torch.zeros(size))

    def fit(self, features: Tensor) -> None:
        """Fill the bank from features (N, C, h, w) by a greedy k-centre coreset."""
        self.mean.copy_(features.mean((0, 2, 3))[:, None, None])
        self.inverse_std.copy_((features.std((0, 2, 3)) + 1e-6).reciprocal()[:, None, None])
        self._remember(self._places(features))

    def merge(self, features: Tensor) -> None:
        """Remember further features (N, C, h, w) of the same encoder beside those of the bank.

        The coreset is of both. What the bank keeps of the old places is as far from any of them as the
        farthest new place is, at most.
        """
        places = self._places(features)
        room = CANDIDATES - self.bank.shape[1]
        some = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:room]
        self._remember(torch.cat([self.bank.T, places[some.to(places.device)]]))

    def _remember(self, places: Tensor) -> None:
        chosen = places[k_centres(places, self.bank.shape[1])]
        self.bank.copy_(chosen.T)
        self.squares.copy_((chosen**2).sum(1))

    def forward(self, features: Tensor) -> Tensor:
        """Distances (N, h, w), at least `SAME_PLACE` of the spread."""
        standard = self._standardise(features)
        # What all distances of a place share is added to the least of them only.
        least = torch.addmm(self.squares, _rows(standard), self.bank, alpha=-2).amin(1)
        squared = (standard**2).sum(1) + least.reshape(-1, *features.shape[2:])
        return squared.clamp(min=SAME_PLACE**2 * features.shape[1]).sqrt()

    def _places(self, features: Tensor) -> Tensor:
        return _rows(self._standardise(features))

    def _standardise(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.inverse_std


def _rows(features: Tensor) -> Tensor:
    """Features (N, C, h, w) of each place: (N h w, C)."""
    return features.transpose(0, 1).flatten(1).T


def k_centres(points: Tensor, count: int) -> Tensor:
    """Indices (count,) of points (N, D) that cover all points, greedily (Sener & Savarese, ICLR 2018).

    Distances are taken after a random projection, and among a random part of very many points.
    """
    generator = torch.Generator().manual_seed(0)
    pool = torch.randperm(len(points), generator=generator)[:CANDIDATES].to(points.device)
    projection = torch.randn(points.shape[1], _PROJECTED, generator=generator).to(points)
    projected = points[pool] @ projection
    chosen = [0]
    distance = ((projected - projected[0]) ** 2).sum(1)
    for _ in range(min(count, len(pool)) - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, ((projected - projected[chosen[-1]]) ** 2).sum(1))
    picked = pool[torch.tensor(chosen, device=points.device)]
    return picked[torch.arange(count, device=points.device) % len(picked)]
