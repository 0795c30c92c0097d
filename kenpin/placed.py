"""Thresholds that are placed by hand, as far as the masters permit; only fresh parts prove them."""

from __future__ import annotations

from dataclasses import dataclass

from kenpin.book import Book
from kenpin.errors import CalibrationError, ConfigError
from kenpin.record import CalibrationRecord


@dataclass(frozen=True)
class Placement:
    """Where the thresholds shall stand.

    Attributes:
        t1: Scores below are OK.
        t2: Scores from here on are NG; not below `t1`.
        looks: How often fresh parts will be looked at.
        by: Who signs.
        why: Reason in words; not empty.
        method: How they were placed, in words.
    """

    t1: float
    t2: float
    looks: int
    by: str
    why: str
    method: str = "placed by hand"


def record_placed(book: Book, bundle_sha256: str, placed: Placement) -> CalibrationRecord:
    """Append a record with thresholds placed by hand. The caller holds `calibration_lock`.

    A position that was chosen in view of the scores has no bound; only one at or above the fitted T1 keeps the
    bound of that, as it stops fewer good parts: with all that fresh parts have shown of it since.

    Args:
        book: The station's records.
        bundle_sha256: The bundle that they are for; it must have been calibrated.
        placed: Where they shall stand, and who says so.

    Raises:
        ConfigError: The thresholds are in the wrong order or no numbers, or the reason is missing.
        CalibrationError: A master would pass, the bundle was never calibrated, or nothing can be written.
        StoreError: The audit cannot be written.
    """
    _check(placed)
    before = book.newest(bundle_sha256)
    t1, t2 = _as_it_stands(placed.t1, before.t1), _as_it_stands(placed.t2, before.t2)
    _check_masters(before, t1)
    fitted = next(r for r in reversed(book.records) if r.bundle_sha256 == bundle_sha256 and r.rank > 0)
    return book.append(
        {
            **before.model_dump(by_alias=True),
            "state": "TRIAL",
            "t1": t1,
            "t2": t2,
            "method": placed.method,
            "false_calls": fitted.false_calls if t1 >= fitted.t1 else None,
            "rank": 0,
            "looks": placed.looks,
            "fresh": None,
            "by": placed.by,
            "why": placed.why,
        }
    )


def _check(placed: Placement) -> None:
    if not -float("inf") < placed.t1 <= placed.t2 < float("inf"):
        raise ConfigError(
            f"T1 = {placed.t1} and T2 = {placed.t2} are no thresholds",
            where="--t1, --t2",
            cure="give two numbers, T1 not above T2",
        )
    if not placed.why.strip():
        raise ConfigError("the reason is missing", where="--why", cure="say why the thresholds are moved")


def _as_it_stands(given: float, stands: float) -> float:
    """The limit in force where it is given as people read it: cut to its digits T1 may lose its bound."""
    return stands if given == float(f"{stands:.6g}") else given


def _check_masters(before: CalibrationRecord, t1: float) -> None:
    passing = sorted(name for name, score in before.masters.items() if score < t1)
    if passing:
        raise CalibrationError(
            f"{len(passing)} known bad parts would pass at T1 = {t1:.6g}",
            where=", ".join(passing[:8]),
            cure=f"place T1 at {min(before.masters.values())!r} or below, or fit again without these masters",
        )
