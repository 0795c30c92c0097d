"""T1 and T2 as fields of a form: as many digits as matter, and sent back unchanged they are the same limits.

A limit that the rule has chosen has up to 17 digits, as it stands just above a score. Its field shows fewer,
cut off and never rounded up: whoever copies it by hand gets a limit that passes less, not more.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from math import ceil, log10

_MOST_DIGITS = 15
_FINER = 2  # so many digits more than matter are still shown, where somebody has typed them
_EXACT = Context(prec=400)


@dataclass(frozen=True)
class LimitField:
    """How limits are written beside one drawing.

    Attributes:
        digits: Digits behind the point that matter.
    """

    digits: int

    @classmethod
    def beside(cls, step: float) -> LimitField:
        """A field whose last digit is a tenth of a step of the arrows, or finer.

        Args:
            step: By how much an arrow moves a limit, above 0.
        """
        return cls(min(max(ceil(1 - log10(step)), 0), _MOST_DIGITS))

    def texts(self, limits: tuple[float, float]) -> tuple[str, str]:
        """What both fields show: numbers not above T1 and T2, and in their order.

        Args:
            limits: T1 and T2, where T1 is not above T2.
        """
        t1, t2 = (self._text(limit, self.digits) for limit in limits)
        if float(t1) > float(t2):  # T1 is typed finer than T2 is cut, which stands just above it
            t1, t2 = (self._text(limit, self.digits + _FINER) for limit in limits)
        return t1, t2

    def _text(self, limit: float, digits: int) -> str:
        exact = Decimal(repr(limit))
        behind = -int(exact.as_tuple().exponent)
        if behind <= self.digits + _FINER:
            return f"{exact:f}"
        return f"{exact.quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR, _EXACT):f}"

    def _read(self, sent: float, limit: float) -> float:
        """The limit that is meant: what was shown, in either way, means the limit itself."""
        shown = (float(self._text(limit, digits)) for digits in (self.digits, self.digits + _FINER))
        return limit if sent in shown else sent

    def read_both(self, sent: tuple[float, float], limits: tuple[float, float]) -> tuple[float, float]:
        """T1 and T2 that are meant. Where both show the same number, they are the same.

        Args:
            sent: What the form says of T1 and T2.
            limits: Where they stand.
        """
        t1, t2 = (self._read(said, limit) for said, limit in zip(sent, limits, strict=True))
        return (t1, max(t1, t2)) if sent[0] <= sent[1] else (t1, t2)
