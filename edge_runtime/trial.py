"""The trial of a bundle that has just begun to decide: what its first parts say for and against it."""

from __future__ import annotations

import time

from kenpin.edge_runtime.decide import Decision
from kenpin.quality_limits import Finding

TRIAL_PARTS, TRIAL_S = 200, 900.0
FAULTS = 3  # a bundle with which so many parts got no decision is given up
_GATE = frozenset(Finding)
_BLAMED = ("engine", "score", "not_ready", "deadline")  # what the bundle answers for; a camera is not


class Trial:
    """It begins with this, and ends when it is passed or has failed."""

    def __init__(self) -> None:
        self._parts = 0
        self._faults = 0
        self._fault = ""  # of the last part without a decision
        self._unseen = ""  # why the last part could not even be shown to it
        self._by_s = time.monotonic() + TRIAL_S

    def saw(self, decision: Decision) -> None:
        """A part is settled."""
        if decision.cause in _BLAMED:
            self._faults += 1
            self._fault = decision.reason
        elif decision.cause in _GATE:
            self._unseen = decision.reason
        elif not decision.cause:
            self._parts += 1

    @property
    def failure(self) -> str:
        """Why the bundle is to be given up; empty where it is not."""
        if self._faults >= FAULTS:
            return f"{FAULTS} parts got no decision, the last one because: {self._fault}"
        # Its view may not fit this camera; the bundle before had one that did.
        if self._is_over and not self._parts and self._unseen:
            return f"not one part could be judged, the last one because: {self._unseen}"
        return ""

    @property
    def is_passed(self) -> bool:
        """Whether the bundle is good, where it has not failed."""
        return self._parts >= TRIAL_PARTS or (self._is_over and self._parts > 0)

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._by_s
