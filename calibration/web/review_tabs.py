"""What stands above each page of the review bench: how much waits where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request

from kenpin.calibration.review import Reviewed
from kenpin.calibration.review_bench import BenchPart
from kenpin.calibration.review_room import gone_pictures
from kenpin.calibration.web.visitor import site_of, visitor_of

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
        gone: How many pictures had to go, for want of room.
    """

    on: str
    waiting: int
    second: int
    good: int
    bad: int
    gone: int


def tabs_of(request: Request, on: str, waiting: Sequence[BenchPart], reviewed: Sequence[Reviewed]) -> Tabs:
    """The tabs as one visitor sees them.

    Args:
        request: The visitor's.
        on: Which one is shown.
        waiting: Parts that wait for an answer.
        reviewed: Parts that people looked at.
    """
    name, labels = visitor_of(request).name, [part.label for part in reviewed]
    second, gone = sum(part.awaits(name) for part in reviewed), len(gone_pictures(site_of(request).folder))
    return Tabs(on, len(waiting), second, labels.count("good"), labels.count("bad"), gone)
