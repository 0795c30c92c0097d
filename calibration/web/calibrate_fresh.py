"""Fresh parts in production: they are counted by themselves, until they prove what was promised."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import ceil

from fastapi import FastAPI

from kenpin.answers import standing_answers
from kenpin.book import calibration_lock
from kenpin.calibrating import read_calibrating
from kenpin.calibration.confirm import (
    WANTED_RATE,
    confidence_of_looks,
    counts_with_fresh,
    origin_with_fresh,
    record_confirm,
)
from kenpin.calibration.fit import Basis
from kenpin.calibration.origin import is_narrow
from kenpin.calibration.review import reviewed_parts
from kenpin.calibration.scores import PictureScore, ScoreSet, worst_of_parts
from kenpin.calibration.threshold import false_call_bound, parts_needed
from kenpin.calibration.web.fresh_parts import FreshPart, judged_by, seen_once
from kenpin.calibration.web.part_time import minutes_of
from kenpin.masters import shown_in_checks
from kenpin.record import Bound, CalibrationRecord, Origin, station_records
from kenpin.station_folder import StationFolder

EVERY_S = 5.0
_NAMED = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FreshCount:
    """What fresh parts show so far.

    Attributes:
        record: What they were judged by.
        good: Those that count as good: released and doubted by nobody, or found good by people. Where they
            count alone, no more than the next look is planned at.
        waiting: Those that were stopped and on which people have not agreed yet.
        stopped: How many good parts were stopped.
        parts: Number of good parts.
        needed: How many good parts it takes, with so many stopped.
        bound: What they prove; `None` where they prove nothing yet: parts wait for an answer, or the planned
            look has not come.
        with_shown: Whether the parts of the calibration count with them.
        is_used_up: Whether the planned looks at parts were taken, in vain: then nothing more is counted.
        escaped: Those that were released although people found them bad, or do not agree.
        caught: Those that were stopped and that people found bad: they are no false calls.
        again: How many good ones were left out, as their picture had been shown before.
        origin: Where the parts that count came from; `None` = not known.
    """

    record: CalibrationRecord
    good: Sequence[FreshPart]
    waiting: Sequence[FreshPart]
    stopped: int
    parts: int
    needed: int
    bound: Bound | None
    with_shown: bool
    is_used_up: bool
    escaped: Sequence[FreshPart] = ()
    caught: Sequence[FreshPart] = ()
    again: int = 0
    origin: Origin | None = None

    @property
    def is_due(self) -> bool:
        """Whether a record should be made of it: it proves enough, or a planned look has come."""
        enough = bool(self.good) and self.parts >= self.needed
        is_open = self.waiting or self.escaped or self.is_used_up
        return self.record.state == "TRIAL" and enough and not is_open

    @property
    def narrow_minutes(self) -> int | None:
        """In how many minutes at a time all were shown, where what they prove holds for such parts only."""
        if self.origin is None or not is_narrow(self.origin):
            return None
        return max(1, ceil(self.origin.minutes))


def count_fresh(folder: StationFolder) -> FreshCount | None:
    """Count the parts that the calibration in force has judged; `None` without one.

    What was released counts as good unless people have found it bad or do not agree; of what was stopped, the
    review bench says what it is.

    Raises:
        CalibrationError, ConfigError, StoreError: Records or parts cannot be read.
    """
    records = _records(folder)
    if not records:
        return None
    record = records[-1]
    standing = next(r for r in records if r.rev == (record.fresh.of_rev if record.fresh else record.rev))
    # A good part is shown many times in a check of the masters, and is one part all the same.
    checked = shown_in_checks(folder) if record.state == "TRIAL" else frozenset()
    parts = [part for part in judged_by(folder, records) if part.seq not in checked]
    answers = {r.newest.part_seq: r.label for r in reviewed_parts(folder)}
    said = [(part, answers.get(part.seq, None if part.stopped else "good")) for part in parts]
    all_good = [part for part, label in said if label == "good"]
    good = seen_once(folder, all_good, record)
    waiting = [part for part, label in said if part.stopped and label is None]
    count = _counted(record, standing, good, waiting)
    return replace(
        count,
        escaped=[part for part, label in said if not part.stopped and label != "good"],
        caught=[part for part, label in said if part.stopped and label == "bad"],
        again=len(all_good) - len(good),
        origin=_origin(count, standing),
    )


def confirm_when_due(folder: StationFolder) -> CalibrationRecord | None:
    """Append the record that fresh parts have earned, if it is time; `None` if not.

    Raises:
        KenpinError: It cannot be counted or written.
    """
    # The lock is a file that is written, and the parts are many: neither is for what is confirmed already.
    if all(r.state != "TRIAL" for r in _records(folder)[-1:]) or read_calibrating(folder) is not None:
        return None
    with calibration_lock(folder):
        count = count_fresh(folder)
        if count is None or not count.is_due:
            return None
        record = count.record
        why = f"{len(count.good)} fresh parts in production, seq {count.good[0].seq} to {count.good[-1].seq}"
        why += _left_out(count.caught)
        basis = Basis(record.bundle_sha256, record.precision, "page", why)
        scores = ScoreSet(_scores(count.good), origin=_came_from(count.good))
        return record_confirm(folder, scores, basis, answers=standing_answers(folder))


def watch_fresh(folder: StationFolder, stopping: threading.Event) -> None:
    """Confirm by itself, until the page ends."""
    told = ""
    while not stopping.wait(EVERY_S):
        try:
            confirm_when_due(folder)
        except Exception as error:  # without this thread a calibration would stay on trial for ever
            if repr(error) != told:
                _log.warning("Fresh parts cannot be counted: %s", error)
            told = repr(error)


@asynccontextmanager
async def watching(app: FastAPI) -> AsyncIterator[None]:
    """Let a thread watch as long as the page is served; `app.state.site` says which station it is."""
    stopping = threading.Event()
    args = (app.state.site.folder, stopping)
    thread = threading.Thread(target=watch_fresh, args=args, name="fresh parts", daemon=True)
    thread.start()
    yield
    stopping.set()
    await asyncio.to_thread(thread.join)


def _left_out(caught: Sequence[FreshPart]) -> str:
    """Whoever reads the record must know on which parts it rests that people called them bad."""
    some = ", ".join(str(part.seq) for part in caught[:_NAMED]) + (" …" if len(caught) > _NAMED else "")
    return f"; stopped, found bad by people and not counted: {len(caught)}, seq {some}" if caught else ""


def _records(folder: StationFolder) -> list[CalibrationRecord]:
    """Of the active bundle, oldest first."""
    active = folder.active_sha256
    return [record for record in station_records(folder) if record.bundle_sha256 == active] if active else []


def _scores(parts: Sequence[FreshPart]) -> tuple[PictureScore, ...]:
    return tuple(PictureScore(f"seq {p.seq}", p.score, p.part_id, p.image_sha256) for p in parts)


def _came_from(good: Sequence[FreshPart]) -> Origin:
    return Origin(lots=0, minutes=minutes_of(good))


def _origin(count: FreshCount, standing: CalibrationRecord) -> Origin | None:
    """As the record would say it; what comes after it has confirmed proves nothing."""
    if not count.good or count.record.state != "TRIAL":
        return count.record.origin
    return origin_with_fresh(standing, count.record, _came_from(count.good))


def _counted(
    record: CalibrationRecord,
    standing: CalibrationRecord,
    good: Sequence[FreshPart],
    waiting: Sequence[FreshPart],
) -> FreshCount:
    with_shown, looks = counts_with_fresh(standing), record.fresh.looks if record.fresh else 0
    used_up = not with_shown and looks >= standing.looks
    earlier = (record.fresh.parts, record.fresh.stopped) if record.fresh else (0, 0)
    needed = 0
    if not with_shown:
        # The looks are planned beforehand: when they come, and at how many, must not hang on what parts show.
        confidence = confidence_of_looks(standing)
        needed = parts_needed(WANTED_RATE, stopped=min(looks, standing.looks - 1), confidence=confidence)
        good = () if used_up else _first_parts(good, max(needed - earlier[0], 1))
    scores = worst_of_parts(_scores(good)).values()
    parts, stopped = len(scores) + earlier[0], sum(score >= record.t1 for score in scores) + earlier[1]
    calls = standing.false_calls
    bound = record.false_calls if used_up else None
    if with_shown and calls is not None:
        parts, stopped = parts + calls.of, stopped + calls.seen
        needed = parts_needed(WANTED_RATE, stopped=stopped, confidence=calls.confidence)
        # Of parts that wait some may be false calls: without them the others prove nothing.
        bound = None if waiting else false_call_bound(stopped, parts, confidence=calls.confidence)
    return FreshCount(
        record=record,
        good=good,
        waiting=waiting,
        stopped=stopped,
        parts=parts,
        needed=needed,
        bound=bound,
        with_shown=with_shown,
        is_used_up=used_up,
    )


def _first_parts(good: Sequence[FreshPart], count: int) -> Sequence[FreshPart]:
    """Up to the one with which there are so many: whoever answers late would choose how many are looked at."""
    ids: set[str] = set()
    for number, part in enumerate(good, start=1):
        ids.add(part.part_id)
        if len(ids) == count:
            return good[:number]
    return good
