"""The three losses of a level. Negatives are synthetic defects only.

Other places of good parts are not used as negatives: on textures they look alike by nature, and pushing
them apart destroys what makes a good part recognisable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


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


def soft_nearest_neighbour(good: Tensor, picture: Tensor, defects: Tensor, *, temperature: float) -> Tensor:
    """Pull each good place to its nearest places in other pictures rather than to defects.

    softplus( log mean_d exp(g.d / t) - log mean_j exp(g.g_j / t) ), j over places of other pictures;
    after the soft nearest neighbour loss of Frosst et al., ICML 2019.

    Args:
        good: Unit vectors of good places (N, D).
        picture: Number of the picture each comes from (N,).
        defects: Unit vectors of places with synthetic defects (M, D), M >= 1.
        temperature: t.

    Returns:
        Scalar mean.
    """
    other = picture[:, None] != picture[None]
    alike = (good @ good.T / temperature).masked_fill(~other, -1e4)
    attract = torch.logsumexp(alike, 1) - other.sum(1).clamp(min=1).log()
    repel = torch.logsumexp(good @ defects.T / temperature, 1) - math.log(len(defects))
    return functional.softplus(repel - attract).mean()


def defect_discrimination(logits: Tensor, share: Tensor, *, threshold: float) -> Tensor:
    """Balanced binary cross-entropy of a defect map: defect cells and good cells weigh the same.

    Args:
        logits: (N, h, w).
        share: Share of each cell that is defect, 0..1, (N, h, w).
        threshold: Cells above are defect; cells between 0 and it are mixed and ignored.

    Returns:
        Scalar.
    """
    defect = (share > threshold).float()
    good = (share == 0).float()
    loss = functional.binary_cross_entropy_with_logits(logits, defect, reduction="none")
    of_defect = (loss * defect).sum() / defect.sum().clamp(min=1)
    of_good = (loss * good).sum() / good.sum().clamp(min=1)
    return 0.5 * (of_defect + of_good)
