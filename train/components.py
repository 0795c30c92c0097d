"""Principal components of whole parts: the few ways in which good parts differ as wholes.

Parts differ from one to the next in ways that concern the whole picture (a shift, a turn, a shadow, a shade);
these are explained, a local fault is not. Turk & Pentland, "Eigenfaces for Recognition", 1991.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PICTURES_PER_COMPONENT = 4


class Components(nn.Module):
    """A linear model of rows, one for each picture.

    Args:
        most: Components at most; one for every four pictures.
        width: Numbers in a row.
    """

    basis: Tensor
    strength: Tensor

    def __init__(self, most: int, width: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(most, width))
        # Singular value of each; it does not score, `standing_for` needs it.
        self.register_buffer("strength", torch.zeros(most))

    def fit(self, rows: Tensor, pictures: int) -> None:
        """Learn from centred rows (M, D) that stand for so many pictures."""
        count = min(len(self.strength), pictures // PICTURES_PER_COMPONENT, len(rows))
        self.basis.zero_()
        self.strength.zero_()
        if count:
            # The eigenvectors of the small M x M matrix give those of the large one: exact and quick.
            values, vectors = torch.linalg.eigh(rows @ rows.T)
            strength = values[-count:].clamp(min=1e-9).sqrt()
            self.strength[:count] = strength
            self.basis[:count] = (vectors[:, -count:] / strength).T @ rows

    def standing_for(self) -> Tensor:
        """Rows (K, D) that stand for those it was fitted to, to be fitted again together with further ones.

        Sequential Karhunen-Loeve (Levy & Lindenbaum 2000; Ross et al. 2008).
        """
        # Without those that stand for nothing: of ever so many rows of zeros eigh does not always find an end.
        used = self.strength > 0
        return self.strength[used, None] * self.basis[used]

    def forward(self, deviations: Tensor) -> Tensor:
        """What is left of deviations (N, C, h, w) once they are explained."""
        rows = deviations.flatten(1)
        return (rows - rows @ self.basis.T @ self.basis).reshape_as(deviations)


def joined_deviations(known: Tensor, count: Tensor, mean: Tensor, new: Tensor) -> Tensor:
    """Deviations that stand for known pictures and further ones together, about the mean of all of them.

    Args:
        known: What stands for the known ones, (K, C, h, w).
        count: How many these were, ().
        mean: Their mean, (C, h, w).
        new: The further ones, (N, C, h, w).

    Returns:
        (K + N + 1, C, h, w); the last one is the shift of the mean.
    """
    own = new.mean(0)
    shift = (count * len(new) / (count + len(new))).sqrt() * (own - mean)
    return torch.cat([known, new - own, shift[None]])
