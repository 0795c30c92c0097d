"""The store: one record per part, its event in the same transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kenpin.edge_runtime.database import explained, lease_numbers, open_database, transaction
from kenpin.edge_runtime.decide import Decision, Model
from kenpin.edge_runtime.outbox import DEFAULT_MAX_BYTES, Depth, Outbox
from kenpin.edge_runtime.region import Region
from kenpin.events import Anomaly
from kenpin.record import CalibrationRecord


@dataclass(frozen=True)
class Part:
    """One part with its decision, as it is stored.

    Attributes:
        part_id: Identity of the part.
        camera: Name of the camera or source.
        session_id: Start of the station it belongs to.
        ts_ms: UTC of the exposure, milliseconds since 1970.
        captured_ns: Monotonic clock at the exposure, nanoseconds.
        decision: The verdict and what it rests on.
        infer_ms: Time the engine took; 0 where it did not run.
        model: What scored it.
        record: What judged it.
        trigger_id: Number of its trigger; `None` where nobody counts triggers.
        frame_id: Number of the deciding frame; `None` without a frame.
        region: The strangest place; `None` where nothing was scored or the part is OK.
        image_ref: Where its picture will be, below the folder of pictures; empty if none is kept.
        decided_mono_ns: Monotonic clock at the decision, nanoseconds.
        decided_ns: UTC of the decision, nanoseconds since 1970.
    """

    part_id: str
    camera: str
    session_id: str
    ts_ms: int
    captured_ns: int
    decision: Decision
    infer_ms: float = 0.0
    model: Model | None = None
    record: CalibrationRecord | None = None
    trigger_id: int | None = None
    frame_id: int | None = None
    region: Region | None = None
    image_ref: str = ""
    decided_mono_ns: int = field(default_factory=time.monotonic_ns)
    decided_ns: int = field(default_factory=time.time_ns)

    @property
    def latency_ms(self) -> float:
        """From the exposure to the decision."""
        return (self.decided_mono_ns - self.captured_ns) / 1e6


class Store:
    """The station's database, written by one thread.

    Args:
        path: The file.
        max_outbox_bytes: Size above which the oldest events go.

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, path: Path, *, max_outbox_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.path = path
        self._connection = open_database(path)
        self._outbox = Outbox(self._connection, max_bytes=max_outbox_bytes)
        self._next_lease = lease_numbers(path, self._newest())
        self._notes: list[tuple[str, tuple[object, ...]]] = []

    def commit(self, entries: Sequence[tuple[Part, Anomaly | None]]) -> list[int]:
        """Write parts and their events; all are on disk when this returns.

        Args:
            entries: Parts in their order, each with its event.

        Returns:
            The parts' numbers.

        Raises:
            StoreError: Nothing was written.
        """
        with transaction(self._connection):
            self._write_notes()
            seqs = [self._write(part, event) for part, event in entries]
        self._notes.clear()
        return seqs

    def flush(self) -> None:
        """Write what waits for the next commit.

        Raises:
            StoreError: It was not written, and still waits.
        """
        if self._notes:
            self.commit([])

    def note_image(self, image_ref: str, sha256: str) -> None:
        """Remember that a part's picture is on disk; written with the next commit.

        Args:
            image_ref: As in `Part.image_ref`.
            sha256: Of the file.
        """
        self._notes.append(("UPDATE part SET image_sha256 = ? WHERE image_ref = ?", (sha256, image_ref)))

    def note_released(self, seq: int) -> None:
        """Remember that the part was released; written with the next commit, which costs no extra time."""
        self._notes.append(("UPDATE part SET released = 1 WHERE seq = ?", (seq,)))

    def note_withheld(self, seq: int, reason: str, cause: str) -> None:
        """Remember that a part judged OK was not released after all; written with the next commit."""
        sql = "UPDATE part SET verdict = 'NO_DECISION', reason = ?, cause = ? WHERE seq = ?"
        self._notes.append((sql, (reason, cause, seq)))

    def last_trigger(self) -> int | None:
        """Number of the trigger of the newest part that has one.

        Raises:
            StoreError: The database cannot be read.
        """
        sql = "SELECT trigger_id FROM part WHERE trigger_id IS NOT NULL ORDER BY seq DESC LIMIT 1"
        with explained(self.path):
            row = self._connection.execute(sql).fetchone()
        return int(row[0]) if row else None

    def depth(self) -> Depth:
        """How full the outbox is."""
        return self._outbox.depth()

    def close(self) -> None:
        """Write what is left and close.

        Raises:
            StoreError: The last notes could not be written.
        """
        try:
            with transaction(self._connection):
                self._write_notes()
        finally:
            self._connection.close()

    def _write_notes(self) -> None:
        for sql, values in self._notes:
            self._connection.execute(sql, values)

    def _write(self, part: Part, event: Anomaly | None) -> int:
        seq = self._insert(part)
        if event is not None:
            self._outbox.append(event.topic, event.to_json().decode(), part_seq=seq)
        if seq >= self._next_lease:
            self._next_lease = lease_numbers(self.path, seq)
        return seq

    def _newest(self) -> int:
        (seq,) = self._connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
        return int(seq or 0)

    def _insert(self, part: Part) -> int:
        row = _row(part)
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        cursor = self._connection.execute(
            f"INSERT INTO part ({names}) VALUES ({marks})",  # noqa: S608 our own column names
            tuple(row.values()),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid


def _row(part: Part) -> dict[str, object]:
    scored, model, record = part.decision.scored, part.model, part.record
    levels = scored.level_scores if scored else (None, None, None)
    region = part.region
    return {
        "part_id": part.part_id,
        "camera": part.camera,
        "session_id": part.session_id,
        "ts_ms": part.ts_ms,
        "captured_mono_ns": part.captured_ns,
        "decided_mono_ns": part.decided_mono_ns,
        "decided_ns": part.decided_ns,
        "verdict": part.decision.verdict.value,
        "reason": part.decision.reason,
        "score": scored.score if scored else None,
        **dict(zip(("score_coarse", "score_mid", "score_fine"), levels, strict=True)),
        "t1": record.t1 if record else None,
        "t2": record.t2 if record else None,
        "threshold_rev": record.rev if record else None,
        "bundle_sha256": model.bundle_sha256 if model else None,
        "infer_ms": part.infer_ms,
        "latency_ms": part.latency_ms,
        "trigger_id": part.trigger_id,
        "frame_id": part.frame_id,
        "cause": part.decision.cause,
        "level": part.decision.level,
        "roi_x_px": region.x if region else None,
        "roi_y_px": region.y if region else None,
        "roi_w_px": region.width if region else None,
        "roi_h_px": region.height if region else None,
        "area_px": region.area if region else None,
        "image_ref": part.image_ref,
    }
