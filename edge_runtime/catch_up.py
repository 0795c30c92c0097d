"""When to ask a station for events that are missing, and when to give them up: a pure state machine."""

from __future__ import annotations

from dataclasses import dataclass

from kenpin.edge_runtime.heard import Heard, Hole

_MAX_COUNT = 1000  # of 10000 that a station accepts: what is sent again goes to every subscriber
_LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True)
class Ask:
    """A request for stored events.

    Attributes:
        since_seq: Number of the first one.
        count: How many at most; numbers that the station does not have are not counted.
    """

    since_seq: int
    count: int


class CatchUp:
    """Looks after the holes of one station.

    Holes are normal while a station sends what waited, so nothing is asked for while they change. A request
    that was accepted and changed nothing shows that the station has no such event: it sends stored events in
    their order, so those of the lowest hole would have come first.

    Args:
        heard: What was heard of the station.
        patience_s: How long the holes have to stay as they are before something is done, in seconds. The pause
            doubles with each request that was not accepted, up to five minutes.

    Attributes:
        lost: How many numbers were given up.
    """

    def __init__(self, heard: Heard, *, patience_s: float) -> None:
        self.lost = 0
        self._heard = heard
        self._patience_s = patience_s
        self._pause_s = patience_s
        self._missing: tuple[Hole, ...] = ()
        self._still_s = 0.0  # since when the holes are as they are
        self._asked: Ask | None = None
        self._is_accepted = False

    def accept(self) -> None:
        """The station agreed to the last request."""
        self._is_accepted = True

    def look(self, now_s: float) -> Ask | None:
        """What to ask for now.

        Args:
            now_s: Monotonic clock in seconds.
        """
        missing = self._heard.missing()
        if missing != self._missing:
            self._missing, self._still_s, self._pause_s = missing, now_s, self._patience_s
        if not missing or now_s - self._still_s < self._pause_s:
            return None
        if self._asked is not None and self._is_accepted:
            self._give_up(self._asked)
            return None
        if self._asked is not None:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        count = missing[-1].last - missing[0].first + 1
        self._asked, self._still_s = Ask(missing[0].first, min(_MAX_COUNT, count)), now_s
        return self._asked

    def _give_up(self, asked: Ask) -> None:
        """Miss no longer what the station would have sent if it had it."""
        end = asked.since_seq + asked.count - 1
        for hole in self._missing:
            if asked.since_seq <= hole.first <= end:
                is_untouched = hole.first == asked.since_seq
                gone = Hole(hole.first, hole.last if is_untouched else min(hole.last, end))
                self._heard.give_up(gone)
                self.lost += gone.size
        self._asked, self._is_accepted = None, False
