"""Importance sampling: pictures that are hard now are shown more often, early in the training.

Katharopoulos & Fleuret, "Not All Samples Are Created Equal", ICML 2018, with the loss as the measure.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A picture's loss is a running mean: this much of it is from the last time that the picture was shown.
FRESH = 0.3
# The correction is cut here: one rare picture must not dominate a step.
MOST_WEIGHT = 3.0
# From this share of the training on all pictures are equal again.
UNTIL = 0.7
# Newton's method ends when the expected number of pictures is right to this; as a rule in about five steps.
NEAR_ENOUGH = 1e-6
NEWTON_STEPS = 100


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
            Their numbers (count,) and the weights that undo the preference (count,), mean 1 over many draws:
            each goes as 1 / its chance to be among the drawn (Horvitz & Thompson, JASA 47, 1952). Weights set
            to a mean of 1 in each draw would favour the hard ones again, by 6 % and more.
        """
        chance = self.probabilities(progress)
        drawn = torch.multinomial(chance, count)
        among = inclusion(chance, count)[drawn]
        return drawn, (count / (len(chance) * among)).clamp(1 / MOST_WEIGHT, MOST_WEIGHT)

    def update(self, drawn: Tensor, hard: Tensor) -> None:
        """Take note of how hard the pictures were that were shown.

        Args:
            drawn: Their numbers (M,).
            hard: Their losses (M,).
        """
        before = self.loss[drawn]
        self.loss[drawn] = torch.where(before.isnan(), hard, (1 - FRESH) * before + FRESH * hard)


def inclusion(chance: Tensor, count: int) -> Tensor:
    """Chance of each picture to be among `count` that are drawn one after the other without putting back.

    Such a draw is a race: picture i arrives at an exponential time of rate p_i, and the first `count` are
    drawn. Where t is the time by which `count` have arrived on average, i is among them with 1 - exp(-t p_i)
    (Rosén, "Asymptotic Theory for Successive Sampling with Varying Probabilities Without Replacement, I",
    Annals of Mathematical Statistics 43, 1972).

    Args:
        chance: Chance of each to be drawn first (N,), sum 1, none of them 0.
        count: How many are drawn, 1 to N.

    Returns:
        (N,), sum `count`.
    """
    if count >= len(chance):
        return torch.ones_like(chance)
    rate, time = chance.double(), float(count)
    for _ in range(NEWTON_STEPS):
        waiting = torch.exp(-time * rate)
        late = float(waiting.sum()) - (len(chance) - count)
        # From below it never oversteps: fewer and fewer arrive.
        time += late / float((rate * waiting).sum())
        if late < NEAR_ENOUGH:
            break
    return (1 - torch.exp(-time * rate)).to(chance)
