"""The calibration record: two thresholds, what they rest on, who set them; append-only, chained and signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kenpin.answers import Answers
from kenpin.canonical_json import canonical_json
from kenpin.errors import BundleError, CalibrationError
from kenpin.line_file import append_line, ending, whole_lines
from kenpin.precision import Precision
from kenpin.quality_limits import QualityLimits
from kenpin.signing import PublicKey, SecretKey, verify
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_public_key

_ALWAYS_SIGNED = ("schema_", "state")  # though they have a default
_RECALIBRATE = "move the file away, keep it as evidence, and calibrate again with: kenpin calibrate fit"


class Bound(BaseModel):
    """A rate that was seen and what it proves.

    Attributes:
        seen: Number of parts that did.
        of: Number of parts that were shown.
        bound: One-sided exact (Clopper-Pearson) limit of the true rate, 0 to 1, rounded to the unsafe side.
        confidence: Confidence of the limit, 0 to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seen: int = Field(ge=0)
    of: int = Field(gt=0)
    bound: float = Field(ge=0, le=1)
    confidence: float = Field(gt=0, lt=1)


class Origin(BaseModel):
    """Where the good parts came from: a bound holds for parts like these only.

    Attributes:
        lots: Number of lots that they were of; 0 = not known.
        minutes: Time from the first picture to the last one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lots: int = Field(ge=0)
    minutes: float = Field(ge=0)


class Fresh(BaseModel):
    """Good parts that were shown after the thresholds stood.

    Attributes:
        of_rev: The record that set these thresholds.
        parts: Number of parts, all looks together.
        stopped: How many of them were stopped (REVIEW or NG).
        looks: How often the count was looked at.
        scores: Score of each picture, by name.
        at_most: Rate of false calls that had to be proved for CONFIRMED, 0 to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    of_rev: int = Field(ge=1)
    parts: int = Field(ge=1)
    stopped: int = Field(ge=0)
    looks: int = Field(ge=1)
    scores: dict[str, float]
    at_most: float = Field(gt=0, lt=1)


class CalibrationRecord(BaseModel):
    """One decision of a technician on the thresholds.

    A score below `t1` is OK, from `t2` on NG, between them REVIEW.

    Attributes:
        rev: 1, 2, 3 …; the `threshold_rev` of every event.
        created_ms: UTC, milliseconds since 1970.
        state: `TRIAL` until fresh parts have confirmed it.
        bundle_sha256: The bundle it belongs to; with any other one the station is not calibrated.
        precision: Which of the bundle's models gave the scores; whatever runs it has proven on the golden
            frames that it scores alike.
        t1: Scores below are OK.
        t2: Scores from here on are NG.
        method: How the thresholds were chosen, in words.
        good: Score of each good part, by name.
        masters: Score of each known bad part, by name.
        false_calls: Good parts stopped (REVIEW or NG): upper limit of the rate; missing while nothing is
            proved, as after thresholds were placed by hand.
        caught: Masters stopped: lower limit of the rate; missing without masters.
        by: Who signs.
        why: Reason in words.
        quality: Limits of a frame's quality, learned on these parts; missing where there were too few.
        software: Version of kenpin.
        previous_sha256: SHA-256 of the line before; empty in the first record.
        rank: T1 stands just above the `rank`-th highest good score, fixed beforehand; 0 = placed by hand.
        looks: How often fresh parts may be looked at, fixed beforehand.
        origin: Where the good parts came from, as far as it is known.
        fresh: What fresh parts have shown.
        shown_sha256: SHA-256 of every picture of a good part that was shown for these thresholds.
        cameras: How each camera was set then, by its name; without those of which nothing is known.
        good_levels: Scores of the levels coarse, mid and fine of each picture in `good`; missing where only
            whole scores were known.
        good_parts: How many parts `good` shows, where some have several pictures; 0 = one picture each.
        answers: What people had said on the review bench when fresh parts were counted by it; missing where
            they were not, or nobody had said anything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_: Literal["kenpin.calibration.v1"] = Field(default="kenpin.calibration.v1", alias="schema")
    rev: int = Field(ge=1)
    created_ms: int
    state: Literal["TRIAL", "CONFIRMED"] = "TRIAL"
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Precision
    t1: float
    t2: float
    method: str
    good: dict[str, float]
    masters: dict[str, float]
    false_calls: Bound | None
    caught: Bound | None
    by: str
    why: str
    software: str
    previous_sha256: str
    quality: QualityLimits | None = None
    rank: int = Field(default=1, ge=0)
    looks: int = Field(default=1, ge=1)
    origin: Origin | None = None
    fresh: Fresh | None = None
    shown_sha256: tuple[str, ...] = ()
    cameras: dict[str, dict[str, float | str]] = {}
    good_levels: dict[str, tuple[float, float, float]] | None = None
    good_parts: int = Field(default=0, ge=0)
    answers: Answers | None = None

    @model_validator(mode="after")
    def _ordered(self) -> CalibrationRecord:
        if self.t1 > self.t2:
            raise ValueError("t1 must not be above t2")
        return self


class _Line(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record: CalibrationRecord
    signature: str


def _body(record: CalibrationRecord) -> dict[str, object]:
    """What is signed. Fields that say nothing are left out, or a new one would break older signatures."""
    fields = CalibrationRecord.model_fields.items()
    without = {n for n, f in fields if getattr(record, n) == f.default and n not in _ALWAYS_SIGNED}
    return record.model_dump(mode="json", by_alias=True, exclude=without)


def append_record(path: Path, record: CalibrationRecord, key: SecretKey) -> None:
    """Sign a record and append it; it is on disk when this returns. Only one process may do so at a time.

    A record that a full disk or a power cut left unfinished was never in force: it is taken off.

    Args:
        path: The file of records.
        record: Its `previous_sha256` must be `head(path)`.
        key: The station's key.

    Raises:
        OSError: It cannot be written; the records before are as they were.
    """
    body = _body(record)
    signature = key.sign(canonical_json(body), comment=f"calibration rev {record.rev}")
    append_line(path, canonical_json({"record": body, "signature": signature}))


def head(path: Path) -> str:
    """SHA-256 of the last line, or an empty string: what the next record must name as its predecessor."""
    newest, _ = ending(path)
    return "" if newest is None else hashlib.sha256(newest).hexdigest()


def newest_for(records: Sequence[CalibrationRecord], bundle_sha256: str) -> CalibrationRecord | None:
    """The newest record of a bundle; `None` where it was never calibrated.

    Args:
        records: Oldest first.
        bundle_sha256: The bundle.
    """
    return next((record for record in reversed(records) if record.bundle_sha256 == bundle_sha256), None)


def station_records(folder: StationFolder) -> list[CalibrationRecord]:
    """All records of a station, oldest first, verified; none where it was never calibrated.

    Raises:
        CalibrationError: A line is damaged, not signed by this station, or out of the chain.
        ConfigError: The station's public key cannot be read.
    """
    if not folder.records.exists():
        return []
    return load_records(folder.records, station_public_key(folder))


def record_in_force(folder: StationFolder) -> CalibrationRecord | None:
    """The newest record of the active bundle; `None` where nothing is active or it was never calibrated.

    Raises:
        CalibrationError: The records do not verify.
        ConfigError: The station's public key cannot be read.
    """
    active = folder.active_sha256
    return newest_for(station_records(folder), active) if active else None


def load_records(path: Path, key: PublicKey) -> list[CalibrationRecord]:
    """Read and verify all records, oldest first; not an unfinished one at the end.

    Args:
        path: The file of records; a missing one holds none.
        key: The station's public key.

    Raises:
        CalibrationError: A line is damaged, not signed by this station, or out of the chain.
    """
    records: list[CalibrationRecord] = []
    previous = ""
    for number, line in enumerate(whole_lines(path), start=1):
        where = f"{path}, line {number}"
        try:
            parsed = _Line.model_validate_json(line)
            body = canonical_json(_body(parsed.record))
            verify(body, parsed.signature, [key], where=where)
        except ValidationError:
            raise _not_understood(line, key, where) from None
        except BundleError as error:
            raise CalibrationError(
                f"the calibration record: {error.what}", where=where, cure=_RECALIBRATE
            ) from None
        if parsed.record.previous_sha256 != previous or parsed.record.rev != len(records) + 1:
            raise CalibrationError(
                "a calibration record was removed or inserted", where=where, cure=_RECALIBRATE
            )
        previous = hashlib.sha256(line).hexdigest()
        records.append(parsed.record)
    return records


def _not_understood(line: bytes, key: PublicKey, where: str) -> CalibrationError:
    """Why a line cannot be read: nobody shall move a record away because this version is too old for it."""
    try:
        said = json.loads(line)
        verify(canonical_json(said["record"]), str(said["signature"]), [key], where=where)
    except (BundleError, ValueError, KeyError, TypeError, RecursionError):
        return CalibrationError("the calibration record is damaged", where=where, cure=_RECALIBRATE)
    cure = "update kenpin here, or go back to the copy of the station's folder that this version wrote"
    return CalibrationError("the calibration record is of another version of kenpin", where=where, cure=cure)
