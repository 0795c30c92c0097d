"""The shadow: a candidate bundle judges the same parts, decides nothing, and its disagreements are listed."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue

from kenpin.edge_runtime.decide import Decision, Model
from kenpin.edge_runtime.inspection import Inspection, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.readiness import HOLDS
from kenpin.errors import reason_and_file
from kenpin.frame import Frame

MAX_BYTES = 4 << 20  # then the list begins anew, and the one before is kept
_ROUND_S = 0.05  # whoever ends it waits so long
_log = logging.getLogger(__name__)


class Shadow:
    """Judges parts again in a thread of its own, one at a time; parts that come meanwhile are left out.

    Args:
        judge: The candidate's.
        path: The list of disagreements.

    Attributes:
        parts: Parts that both have judged.
        disagreements: How many of them got another verdict.
        dropped: Parts that were left out, because the shadow was busy.
    """

    def __init__(self, judge: Judge, path: Path) -> None:
        self.parts = 0
        self.disagreements = 0
        self.dropped = 0
        self.judge = judge
        self._path = path
        self._queue: Queue[tuple[Shot, Inspection]] = Queue(1)
        self._has_failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, shot: Shot, inspection: Inspection) -> None:
        """A part that was judged. Its pictures are copied: their memory is the camera's."""
        if not all(isinstance(view, Frame) for view in shot.views):
            return
        if inspection.part.decision.cause in HOLDS:
            return  # nothing is released whatever it scores: that is no other opinion
        if self._queue.full():
            self.dropped += 1
            return
        views = tuple(replace(v, image=v.image.copy()) if isinstance(v, Frame) else v for v in shot.views)
        self._queue.put_nowait((replace(shot, views=views), inspection))

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                shot, inspection = self._queue.get(timeout=_ROUND_S)
            except Empty:
                continue
            self._compare(inspection.part, self.judge.decide(shot))

    def _compare(self, active: Part, shadow: Decision) -> None:
        self.parts += 1
        if active.decision.verdict is shadow.verdict:
            return
        self.disagreements += 1
        try:
            part = {"part_id": active.part_id, "ts_ms": active.ts_ms}
            columns = _columns("active", active.model, active.decision)
            self._list({**part, **columns, **_columns("shadow", self.judge.ready.model, shadow)})
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                _log.warning("Disagreements cannot be listed: %s", reason_and_file(error))
            self._has_failed = True

    def _list(self, line: dict[str, object]) -> None:
        if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
            self._path.replace(self._path.with_suffix(".before.jsonl"))
        with self._path.open("a") as out:
            out.write(json.dumps(line) + "\n")


def _columns(who: str, model: Model | None, decision: Decision) -> dict[str, object]:
    return {
        f"{who}_bundle": model.bundle_sha256[:16] if model else "",
        f"{who}_verdict": decision.verdict.value,
        f"{who}_reason": decision.reason,
        f"{who}_score": decision.scored.score if decision.scored and decision.scored.is_finite else 0.0,
    }
