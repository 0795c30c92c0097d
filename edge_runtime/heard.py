"""Which events of a station were heard, exactly: numbers by start of the station, kept as ranges.

An event is known by its number and its `session_id` together: numbers alone begin anew where a station was set
up again, and a list of ids has an end. Live events overtake those that waited, so a number below the newest one
is as likely to be new as to be a double.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

_GIVEN_UP = ""  # takes the place of a session for numbers that will not come
_MAX_SESSIONS = 1000


@dataclass(frozen=True)
class Hole:
    """Numbers that were not heard.

    Attributes:
        first: The lowest of them.
        last: The highest.
    """

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


class Numbers:
    """A set of numbers that are mostly neighbours.

    Args:
        ranges: First and last number of each run of them.
    """

    def __init__(self, ranges: list[tuple[int, int]] | None = None) -> None:
        self.ranges = sorted(ranges or [])

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self.ranges, number, key=_last)
        return place < len(self.ranges) and self.ranges[place][0] <= number

    def add(self, first: int, last: int) -> None:
        """Add a run of numbers."""
        start = bisect_left(self.ranges, first - 1, key=_last)
        end = bisect_right(self.ranges, last + 1, key=_first)
        runs = [(first, last), *self.ranges[start:end]]
        self.ranges[start:end] = [(min(map(_first, runs)), max(map(_last, runs)))]


def _first(run: tuple[int, int]) -> int:
    return run[0]


def _last(run: tuple[int, int]) -> int:
    return run[1]


@dataclass
class Heard:
    """What was heard of one station.

    Of a thousand starts of the station the numbers are kept; doubles from an older one are taken for new.

    Attributes:
        start: The number of the first event that was heard; lower ones are taken as well, but not missed.
        had: Numbers by `session_id`, in the order in which those were first heard.
    """

    start: int = 0
    had: dict[str, Numbers] = field(default_factory=dict)

    def take(self, seq: int, session_id: str) -> bool:
        """Note an event; whether it is new.

        Args:
            seq: Its number.
            session_id: Of the start of the station that it belongs to.
        """
        own = self.had.get(session_id, Numbers())
        if seq in own:
            return False
        is_anew = any(seq in had for session, had in self.had.items() if session not in (session_id, _GIVEN_UP))
        if is_anew:  # the same number for two events: the station was set up again
            self.had = {}
        own.add(seq, seq)
        if is_anew or not self.start:
            self.start = own.ranges[0][0]
        self.had[session_id] = own
        if len(self.had) > _MAX_SESSIONS:
            self._forget(next(session for session in self.had if session != _GIVEN_UP))
        return True

    def missing(self) -> tuple[Hole, ...]:
        """The numbers between the first one and the newest that were not heard, in their order."""
        return tuple(self._holes())

    def give_up(self, hole: Hole) -> None:
        """Miss these numbers no longer; where one comes all the same, it is new.

        Args:
            hole: All or part of one that is missing.
        """
        self.had.setdefault(_GIVEN_UP, Numbers()).add(hole.first, hole.last)

    def _forget(self, session_id: str) -> None:
        for first, last in self.had.pop(session_id).ranges:
            self.give_up(Hole(first, last))

    def _holes(self) -> Iterator[Hole]:
        expected = self.start
        for first, last in sorted(run for numbers in self.had.values() for run in numbers.ranges):
            if first > expected:
                yield Hole(expected, first - 1)
            expected = max(expected, last + 1)
