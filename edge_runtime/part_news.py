"""What is told of every part: as an event, where that is wanted, and as the last part of its camera."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from kenpin.config import Results
from kenpin.edge_runtime import announce
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.decide import DECIDED, Verdict
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.part import Part

_SAMPLE = 100  # every so many OK
_RATE_PARTS = 100  # decided parts that the NG rate looks back on
_LAST_EVERY_S = 1.0


class PartNews:
    """Writes into the transaction of a part's record.

    Args:
        identity: Who speaks.
        results: Which parts are told as `event/result`.
        last_every_s: Shortest time between two values of `camera/<camera>/last`, in seconds.
    """

    def __init__(self, identity: Identity, results: Results, *, last_every_s: float = _LAST_EVERY_S) -> None:
        self._identity = identity
        self._results = results
        self._last_every_s = last_every_s
        self._ok = 0
        self._recent = deque[Verdict](maxlen=_RATE_PARTS)
        self._last: dict[str, Part] = {}  # by camera, not told yet
        self._due_s: dict[str, float] = {}

    @contextmanager
    def written_or_forgotten(self) -> Iterator[None]:
        """Around a transaction: where it fails nothing was told, and its parts will come once more."""
        before = self._ok, self._recent.copy(), self._last.copy(), self._due_s.copy()
        try:
            yield
        except BaseException:
            self._ok, self._recent, self._last, self._due_s = before
            raise

    def tell(self, outbox: Outbox, seq: int, part: Part) -> None:
        """Tell of a part.

        Args:
            outbox: Within the transaction.
            seq: The part's number in the store.
            part: The part.
        """
        verdict = part.decision.verdict
        if verdict in DECIDED:
            self._recent.append(verdict)
        if self._is_wanted(verdict):
            ng_rate = self._recent.count(Verdict.NG) / max(1, len(self._recent))
            outbox.put(announce.result(self._identity, part, ng_rate=ng_rate), part_seq=seq)
        self._last[part.camera] = part

    @property
    def is_due(self) -> bool:
        """Whether there is a last part to tell of."""
        return bool(self._due())

    def tell_last(self, outbox: Outbox) -> None:
        """Set the last part of each camera, where it is new and the former one is old enough."""
        for camera in self._due():
            outbox.set_state(announce.camera_last(self._identity, self._last.pop(camera)))
            self._due_s[camera] = time.monotonic() + self._last_every_s

    def _due(self) -> list[str]:
        now_s = time.monotonic()
        return [camera for camera in self._last if self._due_s.get(camera, 0.0) <= now_s]

    def _is_wanted(self, verdict: Verdict) -> bool:
        if self._results == "ng_and_sample" and verdict is Verdict.OK:
            self._ok += 1
            return self._ok % _SAMPLE == 1
        return self._results != "off"
