"""Fresh parts, shown after the thresholds stood, turn TRIAL into CONFIRMED: or do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kenpin.answers import Answers
from kenpin.book import Book, open_book
from kenpin.calibration.fit import Basis, pictures_of
from kenpin.calibration.origin import joined
from kenpin.calibration.scores import ScoreSet, worst_of_parts
from kenpin.calibration.threshold import CONFIDENCE, false_call_bound
from kenpin.errors import CalibrationError, DataError
from kenpin.record import Bound, CalibrationRecord, Fresh, Origin
from kenpin.station_folder import StationFolder

WANTED_RATE = 0.01


def record_confirm(
    folder: StationFolder,
    scores: ScoreSet,
    basis: Basis,
    *,
    at_most: float = WANTED_RATE,
    answers: Answers | None = None,
) -> CalibrationRecord:
    """Count fresh good parts, together with those of earlier calls, and append what they prove.

    The thresholds stay. The record is CONFIRMED if the count proves that at most `at_most` of good parts are
    stopped, and TRIAL if not, or not yet. The caller holds `calibration_lock`.

    Args:
        folder: The station's folder.
        scores: Of fresh good parts; masters are not looked at.
        basis: What they belong to, and who signs.
        at_most: Rate of false calls that is to be proved, 0 to 1.
        answers: What people have said of the parts; `None` where it does not rest on that.

    Raises:
        DataError: A picture is not fresh, or there is none.
        CalibrationError: The scores are of another model, the planned looks are used up, the records do not
            verify, or nothing can be written.
        StoreError: The audit cannot be written.
    """
    book = open_book(folder)
    before = book.newest(basis.bundle_sha256)
    _check_model(before, basis)
    _check_fresh(book, before, scores)
    fresh = _count(before, scores, at_most)
    bound = _proved(book.standing(before), fresh)
    content: dict[str, Any] = {
        **before.model_dump(by_alias=True),
        "state": "CONFIRMED" if bound.bound <= at_most else "TRIAL",
        "false_calls": bound,
        "fresh": fresh,
        "origin": origin_with_fresh(book.standing(before), before, scores.origin),
        "shown_sha256": tuple(sorted({*before.shown_sha256, *pictures_of(scores.good)})),
        "answers": answers or before.answers,
        "by": basis.by,
        "why": basis.why,
    }
    return book.append(content)


def counts_with_fresh(standing: CalibrationRecord) -> bool:
    """Whether the parts that a threshold was fitted to may be counted in with fresh ones.

    They may where the threshold stands just above the good score of a rank that was fixed beforehand; not
    where a master or a hand placed it.
    """
    calls = standing.false_calls
    return calls is not None and calls.seen < standing.rank  # the rank of a threshold placed by hand is 0


def origin_with_fresh(
    standing: CalibrationRecord, before: CalibrationRecord, fresh: Origin | None
) -> Origin | None:
    """Where the parts came from that the bound rests on, fresh ones among them.

    Args:
        standing: The record that set the thresholds.
        before: The newest record of these thresholds.
        fresh: Where the fresh parts came from.
    """
    is_first_alone = before.fresh is None and not counts_with_fresh(standing)
    return fresh if is_first_alone else joined(before.origin, fresh)


def confidence_of_looks(standing: CalibrationRecord) -> float:
    """Confidence of each look where only fresh parts count: all planned looks together are wrong in 5 %."""
    return 1 - (1 - CONFIDENCE) / standing.looks


def _count(before: CalibrationRecord, scores: ScoreSet, at_most: float) -> Fresh:
    parts = worst_of_parts(scores.good)
    earlier = before.fresh
    looks = 1 + (earlier.looks if earlier else 0)
    known = dict(earlier.scores) if earlier else {}
    # Cameras count from 1 again: another picture of the same name must not take the place of the first.
    new = {f"{s.name}, look {looks}" if s.name in known else s.name: s.score for s in scores.good}
    return Fresh(
        of_rev=earlier.of_rev if earlier else before.rev,
        parts=len(parts) + (earlier.parts if earlier else 0),
        stopped=sum(score >= before.t1 for score in parts.values()) + (earlier.stopped if earlier else 0),
        looks=looks,
        scores=known | new,
        at_most=at_most,
    )


def _proved(standing: CalibrationRecord, fresh: Fresh) -> Bound:
    if counts_with_fresh(standing):
        assert standing.false_calls is not None
        seen, of = standing.false_calls.seen, standing.false_calls.of
        return false_call_bound(seen + fresh.stopped, of + fresh.parts)
    if fresh.looks > standing.looks:
        raise CalibrationError(
            f"these thresholds had their {standing.looks} planned looks at fresh parts; to look until it fits "
            "proves nothing",
            where=f"record {standing.rev}",
            cure="calibrate anew, and plan the looks with: kenpin calibrate set --looks N",
        )
    return false_call_bound(fresh.stopped, fresh.parts, confidence=confidence_of_looks(standing))


def shown_pictures(records: Iterable[CalibrationRecord]) -> set[str]:
    """SHA-256 of all pictures that are not fresh any more, from all records of a bundle.

    Those of earlier thresholds, too: who has seen how they score may have chosen the next ones by that.
    """
    return {sha256 for record in records for sha256 in record.shown_sha256}


def _check_model(before: CalibrationRecord, basis: Basis) -> None:
    if before.precision != basis.precision:
        raise CalibrationError(
            f"the thresholds are for the {before.precision} model, the scores of the {basis.precision} model",
            where=f"record {before.rev}",
            cure=f"score with --precision {before.precision}, or calibrate anew",
        )


def _check_fresh(book: Book, before: CalibrationRecord, scores: ScoreSet) -> None:
    if not scores.good:
        raise DataError("there is no good part", cure="show fresh good parts")
    pictures = shown_pictures(r for r in book.records if r.bundle_sha256 == before.bundle_sha256)
    names = {*before.good, *(before.fresh.scores if before.fresh else {})}
    for score in scores.good:
        # Without a picture the name is all there is to know a part by.
        if score.sha256 in pictures or (not score.sha256 and score.name in names):
            raise DataError(
                "the picture is not fresh: it was shown before",
                where=score.name,
                cure="show parts that nobody has calibrated with; these can go into a new kenpin calibrate fit",
            )
