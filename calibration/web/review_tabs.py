"""What stands above each page of the review bench: how much waits where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.calibration.review import Reviewed
from kenpin.calibration.review_bench import BenchPart

LIMIT = 50


@dataclass(frozen=True)
class Tabs:
    """The tabs.

    Attributes:
        on: Which one is shown: `waiting`, `near` or `second`.
        waiting: How many parts wait for an answer, `LIMIT` = that many or more.
        second: How many wait for a second opinion of this visitor.
        good: How many people agree are good.
        bad: How many people agree are bad.
    """

    on: str
    waiting: int
    second: int
    good: int
    bad: int


def tabs_of(on: str, waiting: Sequence[BenchPart], reviewed: Sequence[Reviewed], name: str) -> Tabs:
    """The tabs as one visitor sees them.

    Args:
        on: Which one is shown.
        waiting: Parts that wait for an answer.
        reviewed: Parts that people looked at.
        name: Of the visitor.
    """
    labels = [part.label for part in reviewed]
    second = sum(part.awaits(name) for part in reviewed)
    return Tabs(on, len(waiting), second, labels.count("good"), labels.count("bad"))
