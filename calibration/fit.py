"""From scores to a signed calibration record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from kenpin import __version__
from kenpin.calibration.scores import PictureScore, ScoreSet
from kenpin.calibration.threshold import caught_bound, choose_thresholds, false_call_bound
from kenpin.errors import CalibrationError, DataError
from kenpin.events import now_ms
from kenpin.precision import Precision
from kenpin.record import CalibrationRecord, append_record, head, load_records
from kenpin.sole_use import sole_use
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key

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


@contextmanager
def calibration_lock(folder: StationFolder) -> Iterator[None]:
    """Let nobody else calibrate this station meanwhile.

    Raises:
        CalibrationError: Another calibration is running, or the folder cannot be written.
    """
    folder.create()
    with ExitStack() as held:
        with _writing(folder):
            try:
                held.enter_context(sole_use(folder.root / "calibration.lock"))
            except BlockingIOError:
                raise CalibrationError(
                    "another calibration of this station is running",
                    where=folder.root,
                    cure="wait until it has ended, look at its result, then start again if you still want to",
                ) from None
        yield


def record_fit(folder: StationFolder, scores: ScoreSet, basis: Basis) -> CalibrationRecord:
    """Choose the thresholds, work out what they prove, and append the signed record.

    The caller holds `calibration_lock`.

    Raises:
        DataError: There are too few good parts.
        CalibrationError: The records that are there do not verify, or nothing can be written.
    """
    _check_enough(scores)
    with _writing(folder):
        key = station_key(folder)
        earlier = load_records(folder.records, key.public)
        record = _make_record(scores, basis, rev=len(earlier) + 1, previous=head(folder.records))
        append_record(folder.records, record, key)
    return record


@contextmanager
def _writing(folder: StationFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CalibrationError(
            f"the station's folder cannot be written: {error.strerror}",
            where=error.filename or folder.root,
            cure="make room, or calibrate as the user that owns it",
        ) from None


def count_groups(scores: Sequence[PictureScore]) -> int:
    """Number of physical parts."""
    return len({s.group for s in scores})


def _check_enough(scores: ScoreSet) -> None:
    parts = count_groups(scores.good)
    if parts < LEAST_GOOD_PARTS:
        raise DataError(
            f"{parts} good parts are too few to set a threshold",
            cure=f"show {LEAST_GOOD_PARTS} at the least, better 50; pictures of one part count once",
        )


def _make_record(scores: ScoreSet, basis: Basis, *, rev: int, previous: str) -> CalibrationRecord:
    chosen = choose_thresholds([s.score for s in scores.good], [s.score for s in scores.masters])
    # A good part is a false call if any of its pictures is stopped; a master is caught if every one is.
    called = {s.group for s in scores.good if s.score >= chosen.t1}
    missed = {s.group for s in scores.masters if s.score < chosen.t1}
    masters = count_groups(scores.masters)
    return CalibrationRecord(
        rev=rev,
        created_ms=now_ms(),
        bundle_sha256=basis.bundle_sha256,
        precision=basis.precision,
        t1=chosen.t1,
        t2=chosen.t2,
        method=chosen.method,
        good={s.name: s.score for s in scores.good},
        masters={s.name: s.score for s in scores.masters},
        false_calls=false_call_bound(len(called), count_groups(scores.good)),
        caught=caught_bound(masters - len(missed), masters) if masters else None,
        by=basis.by,
        why=basis.why,
        software=__version__,
        previous_sha256=previous,
        quality=scores.quality,
    )
