"""The settlement of a part: its record is committed, the line is told, its picture is kept.

What holds a part back is told at once; OK is told only after the commit, and only in time. A part whose record
could not be written is not OK. It waits in memory, and its alert with it, until the store works again. Missed
parts that a line counts are written together with the next one, or when the line is idle.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.evidence import Evidence
from kenpin.edge_runtime.inspection import Inspection
from kenpin.edge_runtime.output import Output, Result
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.store import Store
from kenpin.errors import StoreError, reason_of

_OWED = 1000
_TOGETHER = 16  # missed parts in one commit: on a line that is too fast they would take the time of the others
_TIMES = 10_000  # commits that the percentiles look back on

_log = logging.getLogger(__name__)


class Settlement:
    """Settles one part after the other.

    Args:
        store: Where records go.
        line: Who is told.
        evidence: Where pictures go.
        too_late: Why it is too late for an OK now; empty in time.

    Attributes:
        trouble: Why records cannot be written, in words; empty when they can.
        forgotten: Parts without a record, because too many waited for the store.
    """

    def __init__(
        self, store: Store, line: Output, evidence: Evidence, *, too_late: Callable[[Part], str]
    ) -> None:
        self.trouble = ""
        self.forgotten = 0
        self._commits_s = deque[float](maxlen=_TIMES)
        self._store = store
        self._line = line
        self._evidence = evidence
        self._too_late = too_late
        self._owed: deque[Inspection] = deque()
        self._untold = ""

    def settle(self, inspection: Inspection) -> Inspection:
        """Commit a part and tell the line; returns what became of it."""
        if inspection.part.decision.verdict is not Verdict.OK:
            self._tell(inspection.part)
        if self._can_wait(inspection):
            self._owed.append(inspection)
            return inspection
        seq = self._commit(inspection)
        if inspection.image is not None and inspection.part.image_ref:
            self._evidence.offer(inspection.part.image_ref, inspection.image)
        if inspection.part.decision.verdict is not Verdict.OK:
            return inspection
        if seq is None:
            withheld = inspection.without_decision(self.trouble, "store")
        elif reason := self._too_late(inspection.part):
            withheld = inspection.without_decision(reason, "deadline")
        elif reason := self._tell(inspection.part):
            withheld = inspection.without_decision(reason, "output")
        else:
            self._store.note_released(seq)
            return inspection
        if seq is not None:
            decision = withheld.part.decision
            self._store.note_withheld(seq, decision.reason, decision.cause)
        self._tell(withheld.part)
        return withheld

    def catch_up(self) -> None:
        """Write what waits; called when the line is idle."""
        try:
            if self._owed:
                self._write(list(self._owed))
            self._note_pictures()  # only now: a note on a part that has no record yet changes nothing
            self._store.flush()
            self.trouble = ""  # of notes that could not be written, and now are
        except StoreError as error:
            self.trouble = error.what

    def numbers(self) -> dict[str, float]:
        """What it tells others."""
        p50, p99 = np.percentile(self._commits_s, (50, 99)) if self._commits_s else (0.0, 0.0)
        return {
            'commit_seconds{quantile="0.5"}': float(p50),
            'commit_seconds{quantile="0.99"}': float(p99),
            "owed_parts": len(self._owed) if self.trouble else 0,
            'dropped_total{stage="store",reason="full"}': self.forgotten,
        }

    def _commit(self, inspection: Inspection) -> int | None:
        """The part's number; `None` where it has to wait."""
        try:
            return self._write([*self._owed, inspection])[-1]
        except StoreError as error:
            self.trouble = error.what
        if inspection.part.decision.verdict is Verdict.OK:
            inspection = inspection.without_decision(self.trouble, "store")
        if len(self._owed) >= _OWED:
            self._forget_one()
        self._owed.append(_without_picture(inspection))
        return None

    def _can_wait(self, inspection: Inspection) -> bool:
        """Whether a record may wait for the next one: after a kill, the gap in the numbers tells the same."""
        part = inspection.part
        is_told_by_gap = part.decision.verdict is Verdict.MISSED and part.trigger_id is not None
        return is_told_by_gap and len(self._owed) < _TOGETHER - 1

    def _forget_one(self) -> None:
        """The oldest part without an alert goes first: a lost alert is worse than a lost record."""
        spare = (place for place, owed in enumerate(self._owed) if owed.event is None)
        del self._owed[next(spare, 0)]
        self.forgotten += 1

    def _write(self, inspections: list[Inspection]) -> list[int]:
        if not self.trouble:  # they belong to parts that have a record
            self._note_pictures()  # a line need not be idle for long
        started_s = time.monotonic()
        seqs = self._store.commit([(i.part, i.event) for i in inspections])
        self._commits_s.append(time.monotonic() - started_s)
        if self.trouble and self._owed:
            _log.warning("The store works again; %d parts that waited are written.", len(self._owed))
        self._owed.clear()
        self.trouble = ""
        return seqs

    def _note_pictures(self) -> None:
        for image_ref, sha256 in self._evidence.written():
            self._store.note_image(image_ref, sha256)

    def _tell(self, part: Part) -> str:
        """Tell the line; why that failed, in words."""
        try:
            self._line.result(Result(part.part_id, part.trigger_id, part.decision.verdict))
        except Exception as error:
            self._note_untold(part, error)
            return f"the output failed: {reason_of(error)}"
        return ""

    def _note_untold(self, part: Part, error: Exception) -> None:
        """Where it broke, once; a PLC that is away is told by the part's own line, and by the output."""
        if not isinstance(error, OSError) and repr(error) != self._untold:
            self._untold = repr(error)
            _log.error("The line could not be told what became of part %r.", part.part_id, exc_info=error)


def _without_picture(inspection: Inspection) -> Inspection:
    """Only what the record needs: a thousand pictures would not fit into memory."""
    return replace(inspection, image=None)
