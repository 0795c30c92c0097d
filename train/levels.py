"""The three levels, coarse -> mid -> fine: how each looks at a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
        rotation_deg: Largest rotation of a view either way.
        light: Photometric jitter, as a multiple of the spread seen among good parts.
        spread: Weight of the term that keeps the embedding from collapsing.
        losses: Weights of contrast, soft nearest neighbour and discrimination.
        negatives: Synthetic defects; or, as SimCLR does, other pictures.
    """

    name: str
    extent: tuple[float, float]
    defect_sizes: tuple[float, float]
    resolution: float = 0.5
    temperatures: tuple[float, float] = (0.1, 0.15)
    places: int = 12
    rotation_deg: float = 6.0
    light: float = 1.0
    spread: float = 0.0
    losses: tuple[float, float, float] = (1.0, 1.0, 1.0)
    negatives: Literal["defects", "pictures"] = "defects"

    def view_side(self, side: int, *, growth: float = 1.0) -> int:
        """Side of a view in pixels, a multiple of 16.

        Args:
            side: Side of the model's input.
            growth: How much of the full resolution is shown yet.
        """
        return max(32, round(side * self.resolution * growth / 16) * 16)


COARSE = Level("coarse", (0.85, 1.0), (0.12, 0.45), temperatures=(0.2, 0.2))
MID = Level("mid", (0.6, 0.8), (0.06, 0.25), temperatures=(0.15, 0.15))
FINE = Level("fine", (0.45, 0.55), (0.02, 0.12), temperatures=(0.1, 0.15))
LEVELS = (COARSE, MID, FINE)
