"""The three levels, coarse -> mid -> fine, and when each is trained."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """How one level looks at a part.

    Attributes:
        name: coarse, mid or fine.
        extent: Smallest and largest linear extent of a view relative to the picture.
        defect_sizes: Linear extent of its negatives (synthetic defects) relative to the picture.
        resolution: Side of a view relative to the side of the model's input.
        temperatures: Temperature of the contrast at strides 8 and 16.
        places: Anchors per picture.
    """

    name: str
    extent: tuple[float, float]
    defect_sizes: tuple[float, float]
    resolution: float = 0.5
    temperatures: tuple[float, float] = (0.1, 0.15)
    places: int = 12

    def view_side(self, side: int) -> int:
        """Side of a view in pixels, a multiple of 16."""
        return max(32, round(side * self.resolution / 16) * 16)


LEVELS = (
    Level("coarse", (0.85, 1.0), (0.12, 0.45), temperatures=(0.2, 0.2)),
    Level("mid", (0.6, 0.8), (0.06, 0.25), temperatures=(0.15, 0.15)),
    Level("fine", (0.45, 0.55), (0.02, 0.12), temperatures=(0.1, 0.15)),
)

# Share of the steps, and how they are dealt out among coarse, mid and fine. The stages come in this order;
# most of the compute goes to the fine level, with a floor for the others so that large defects stay covered.
STAGES = (
    (0.10, (1.0, 0.0, 0.0)),
    (0.15, (0.2, 0.8, 0.0)),
    (0.75, (0.1, 0.2, 0.7)),
)


def plan_levels(steps: int, *, seed: int) -> list[Level]:
    """The level of every step."""
    rng = random.Random(seed)
    plan: list[Level] = []
    end = 0.0
    for share, mix in STAGES:
        end += share
        count = round(end * steps) - len(plan)
        plan += rng.choices(LEVELS, weights=mix, k=count)
    return plan


def learning_rate(step: int, steps: int, *, peak: float) -> float:
    """Warm up, hold, and decay over the last third (warm-up-stable-decay; Hu et al., MiniCPM, 2024).

    With a cosine the last stage, which is the longest, would hardly learn.
    """
    warm = min(1.0, (step + 1) / 20)
    left = 1 - step / steps
    return peak * warm * min(1.0, left / 0.35 + 0.02)
