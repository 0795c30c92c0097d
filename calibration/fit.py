"""From scores to a signed calibration record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kenpin.book import Book, open_book
from kenpin.calibration.camera_settings import camera_settings
from kenpin.calibration.scores import PictureScore, ScoreSet, best_of_parts, worst_of_parts
from kenpin.calibration.threshold import Thresholds, caught_bound, choose_thresholds, false_call_bound
from kenpin.errors import ConfigError, DataError
from kenpin.precision import Precision
from kenpin.record import Bound, CalibrationRecord
from kenpin.station_folder import StationFolder

LEAST_GOOD_PARTS = 5


@dataclass(frozen=True)
class Basis:
    """What a calibration belongs to and who answers for it.

    Attributes:
        bundle_sha256: Identity of the bundle that gave the scores.
        precision: Which of its models.
        by: Who signs.
        why: Reason in words.
    """

    bundle_sha256: str
    precision: Precision
    by: str
    why: str


def record_fit(folder: StationFolder, scores: ScoreSet, basis: Basis, *, rank: int = 1) -> CalibrationRecord:
    """Choose the thresholds, work out what they prove, and append the signed record.

    The caller holds `calibration_lock`.

    Args:
        folder: The station's folder.
        scores: Of good parts and masters.
        basis: What they belong to.
        rank: As in `choose_thresholds`.

    Raises:
        ConfigError: The rank is none.
        DataError: There are too few good parts.
        CalibrationError: The records that are there do not verify, or nothing can be written.
        StoreError: The audit cannot be written.
    """
    _check_enough(scores, rank)
    book = open_book(folder)
    good, masters = worst_of_parts(scores.good), best_of_parts(scores.masters)
    left = worst_of_parts(scores.left) | _taken_out(book, scores, basis)
    chosen = choose_thresholds([*good.values()], [*masters.values()], rank=rank)
    return book.append(
        {
            "bundle_sha256": basis.bundle_sha256,
            "precision": basis.precision,
            "t1": chosen.t1,
            "t2": chosen.t2,
            "method": chosen.method + _left_in_words(left, chosen),
            "good": {s.name: s.score for s in scores.good},
            "masters": {s.name: s.score for s in scores.masters},
            "false_calls": None
            if left_above(left, chosen.t1)
            else _false_calls([*good.values()], chosen, rank),
            "caught": _caught([*masters.values()], chosen),
            "by": basis.by,
            "why": basis.why,
            "quality": scores.quality,
            "rank": rank,
            "origin": scores.origin,
            "shown_sha256": pictures_of(scores.good),
            "cameras": camera_settings(folder),
            "good_levels": _levels_of(scores.good),
            "good_parts": len(good) if len(good) < len(scores.good) else 0,
        }
    )


def left_above(left: Mapping[str, float], t1: float) -> int:
    """How many parts that were left out T1 would stop: while there are any, nothing is proved.

    They may be good. Whoever leaves the highest out in view of the scores chooses T1 by eye, and the others,
    none of which is stopped, say nothing about the parts of tomorrow.

    Args:
        left: Score of each part that was left out.
        t1: Scores below are OK.
    """
    return sum(score >= t1 for score in left.values())


def _taken_out(book: Book, scores: ScoreSet, basis: Basis) -> dict[str, float]:
    """Good pictures of earlier records that are shown no more, though others of the same records are.

    What was shown before is known by its content, and which scores are gone by their names or by themselves.
    """
    now = {*pictures_of(scores.good), *pictures_of(scores.masters)}
    names, values = {s.name for s in scores.good}, {s.score for s in (*scores.good, *scores.masters)}
    taken: dict[str, float] = {}
    for record in book.records:
        is_of_model = (record.bundle_sha256, record.precision) == (basis.bundle_sha256, basis.precision)
        if is_of_model and now.intersection(record.shown_sha256) and not now.issuperset(record.shown_sha256):
            taken |= {n: s for n, s in record.good.items() if n not in names and s not in values}
    return taken


def pictures_of(scores: tuple[PictureScore, ...]) -> tuple[str, ...]:
    """The pictures behind the scores, by SHA-256; none where only scores were given."""
    return tuple(sorted({s.sha256 for s in scores if s.sha256}))


def _levels_of(scores: tuple[PictureScore, ...]) -> dict[str, tuple[float, float, float]] | None:
    """The levels behind the scores; `None` unless all are known."""
    levels = {s.name: s.levels for s in scores if s.levels is not None}
    return levels if len(levels) == len(scores) else None


def _left_in_words(left: Mapping[str, float], chosen: Thresholds) -> str:
    above = left_above(left, chosen.t1)
    return f"; left out of the parts shown as good, although T1 stops them: {above}" if above else ""


def _false_calls(good: list[float], chosen: Thresholds, rank: int) -> Bound:
    stopped = sum(score >= chosen.t1 for score in good)
    # Where scores are equal fewer than rank - 1 may be stopped; that proves no more.
    return false_call_bound(max(stopped, rank - 1), len(good))


def _caught(masters: list[float], chosen: Thresholds) -> Bound | None:
    return caught_bound(sum(score >= chosen.t1 for score in masters), len(masters)) if masters else None


def _check_enough(scores: ScoreSet, rank: int) -> None:
    parts = len(worst_of_parts(scores.good))
    if parts < LEAST_GOOD_PARTS:
        raise DataError(
            f"too few good parts to set a threshold: {parts}",
            cure=f"show {LEAST_GOOD_PARTS} at the least, better 50; pictures of one part count once",
        )
    if not 1 <= rank <= parts:
        raise ConfigError(f"{parts} good parts have no score number {rank}", where="--rank", cure="use 1")
