"""The three losses of a level, whose negatives are synthetic defects only; and NT-Xent, a reference.

Other places of good parts are not used as negatives: on textures they look alike by nature, and pushing
them apart destroys what makes a good part recognisable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kenpin.train.ranks import joined_mean


def defect_contrast(anchors: Tensor, positives: Tensor, defects: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) of two views of a place against synthetic defects, per anchor.

    -log( exp(a.p / t) / (exp(a.p / t) + sum_d exp(a.d / t)) )

    Args:
        anchors: Unit vectors (N, D).
        positives: The same places in the other view, unit vectors (N, D).
        defects: Places with synthetic defects, unit vectors (M, D), M >= 1.
        temperature: t.

    Returns:
        (N,)
    """
    positive = (anchors * positives).sum(1) / temperature
    negative = torch.logsumexp(anchors @ defects.T / temperature, 1)
    return functional.softplus(negative - positive)


def soft_nearest_neighbour(
    good: Tensor, known: Tensor, is_other: Tensor, defects: Tensor, *, temperature: float
) -> Tensor:
    """Pull each good place to its nearest places in other pictures rather than to defects.

    softplus( log mean_d exp(g.d / t) - log mean_j exp(g.k_j / t) ), j over places of other pictures;
    after the soft nearest neighbour loss of Frosst et al., ICML 2019.

    Args:
        good: Unit vectors of good places (N, D).
        known: Unit vectors of good places of the whole batch (K, D).
        is_other: Whether a known place is of another picture than the good one, (N, K).
        defects: Unit vectors of places with synthetic defects (M, D), M >= 1.
        temperature: t.

    Returns:
        (N,)
    """
    alike = (good @ known.T / temperature).masked_fill(~is_other, -1e4)
    attract = torch.logsumexp(alike, 1) - is_other.sum(1).clamp(min=1).log()
    repel = torch.logsumexp(good @ defects.T / temperature, 1) - math.log(len(defects))
    return functional.softplus(repel - attract)


def defect_discrimination(logits: Tensor, share: Tensor, *, threshold: float) -> Tensor:
    """Balanced binary cross-entropy of a defect map: defect cells and good cells weigh the same.

    Args:
        logits: (N, h, w).
        share: Share of each cell that is defect, 0..1, NaN where that is not known, (N, h, w).
        threshold: Cells above are defect; cells between 0 and it are mixed and ignored, as are
            unknown ones.

    Returns:
        Scalar, over the joined batch of all processes.
    """
    defect = (share > threshold).float()
    good = (share == 0).float()
    loss = functional.binary_cross_entropy_with_logits(logits, defect, reduction="none")
    return 0.5 * (joined_mean(loss, defect) + joined_mean(loss, good))


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent of SimCLR (Chen et al., ICML 2020), eq. 1, for each picture.

    -log( exp(z_i.z_j / t) / sum_{k != i} exp(z_i.z_k / t) ), the mean of both directions of a pair.

    Args:
        first: Unit vectors of one view of each picture (N, D), N >= 2.
        second: Unit vectors of the other view (N, D).
        temperature: t.

    Returns:
        (N,)
    """
    both = torch.cat([first, second])
    alike = (both @ both.T / temperature).fill_diagonal_(-1e4)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return functional.cross_entropy(alike, partner, reduction="none").view(2, -1).mean(0)


def spread_loss(embedded: Tensor) -> Tensor:
    """Variance term of VICReg (Bardes et al., ICLR 2022): every dimension keeps unit spread.

    mean_d max(0, 1 - sqrt(var_d + 1e-4))

    Args:
        embedded: Projections before they are scaled to unit length (N, D).

    Returns:
        Scalar.
    """
    return functional.relu(1 - (embedded.var(0) + 1e-4).sqrt()).mean()
