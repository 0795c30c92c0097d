"""Importance sampling: pictures that are hard now are shown more often, early in the training.

Katharopoulos & Fleuret, "Not All Samples Are Created Equal", ICML 2018, with the loss as the measure.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A picture's loss is a running mean: this much of it is from the last time that the picture was shown.
FRESH = 0.3
# The correction by 1 / probability is cut here: one rare picture must not dominate a step.
MOST_WEIGHT = 3.0
# From this share of the training on all pictures are equal again.
UNTIL = 0.7


class Importance:
    """How hard each picture is at present.

    Args:
        count: Number of pictures.
        strength: Exponent of the loss at the beginning; 0 draws uniformly throughout.
    """

    def __init__(self, count: int, *, strength: float) -> None:
        self.strength = strength
        self.loss = torch.full((count,), float("nan"))

    def probabilities(self, progress: float) -> Tensor:
        """Chance of each picture, (count,), sum 1. One not shown yet counts as the mean of the others.

        Args:
            progress: Share of the training that is done, 0 to 1.
        """
        alpha = self.strength * max(0.0, 1 - progress / UNTIL)
        known = self.loss[~self.loss.isnan()]
        loss = self.loss.nan_to_num(known.mean().item() if len(known) else 1.0)
        chance = (loss + 0.01 * loss.mean() + 1e-6) ** alpha
        return chance / chance.sum()

    def draw(self, count: int, progress: float) -> tuple[Tensor, Tensor]:
        """Draw pictures without putting back.

        Args:
            count: How many.
            progress: Share of the training that is done, 0 to 1.

        Returns:
            Their numbers (count,) and the weights that undo the preference on average (count,), mean 1.
        """
        chance = self.probabilities(progress)
        drawn = torch.multinomial(chance, count)
        weight = (1 / (len(chance) * chance[drawn])).clamp(1 / MOST_WEIGHT, MOST_WEIGHT)
        return drawn, weight / weight.mean()

    def update(self, drawn: Tensor, hard: Tensor) -> None:
        """Take note of how hard the pictures were that were shown.

        Args:
            drawn: Their numbers (M,).
            hard: Their losses (M,).
        """
        before = self.loss[drawn]
        self.loss[drawn] = torch.where(before.isnan(), hard, (1 - FRESH) * before + FRESH * hard)
