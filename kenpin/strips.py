"""The strips into which a long picture is cut, so that a square model sees it in its own proportions."""

from __future__ import annotations

from typing import NamedTuple

NUMBERS = (1, 2, 4)
# Pixels that a strip shares with the next one: what lies on a cut is seen whole in one of them. It takes a
# distance of 8 pixels from an edge until a defect scores as it does elsewhere.
OVERLAP = 16
# From so many times as long as wide on, a picture is cut in 2, and in 4.
_LONG, _VERY_LONG = 2.5, 8.0


class Strips(NamedTuple):
    """Into how many strips a picture is cut; together they fill a square.

    Attributes:
        across: Of a wide picture, from left to right; in the square they lie one below the other.
        down: Of a high one, from top to bottom; there they lie side by side.
    """

    across: int = 1
    down: int = 1

    @classmethod
    def of(cls, proportion: float, number: int | None = None) -> Strips:
        """For pictures so many times as wide as high; as many as fit best where no number is given."""
        longer = max(proportion, 1 / proportion)
        strips = number or (1 if longer < _LONG else 2 if longer < _VERY_LONG else 4)
        return cls(across=strips) if proportion >= 1 else cls(down=strips)

    @classmethod
    def of_shape(cls, height: int, width: int) -> Strips:
        """The inverse of `shape`."""
        shorter = min(height, width)
        every = (cls.of(width / height, number) for number in NUMBERS)
        return next(strips for strips in every if strips.shape(shorter * strips.number) == (height, width))

    @property
    def number(self) -> int:
        """How many there are."""
        return self.across * self.down

    def shape(self, side: int) -> tuple[int, int]:
        """Height and width of a picture whose strips fill a square with this side, a multiple of 16."""
        shorter, longer = side // self.number, side * self.number - OVERLAP * (self.number - 1)
        return (longer, shorter) if self.down > 1 else (shorter, longer)


WHOLE = Strips()
