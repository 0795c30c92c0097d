"""A calibration record in words that a technician reads."""

from __future__ import annotations

from kenpin.calibration.threshold import parts_needed
from kenpin.events import rfc3339
from kenpin.record import CalibrationRecord

_WANTED_RATE = 0.01
_ENOUGH_GOOD_PARTS = 50
_LISTED = 8


def describe(record: CalibrationRecord) -> list[str]:
    """What the record sets and what it proves, one sentence per line."""
    lines = [
        f"calibration record {record.rev}, {record.state}, {rfc3339(record.created_ms)}, by {record.by}"
        + (f": {record.why}" if record.why else ""),
        f"bundle {record.bundle_sha256[:16]}, {record.precision} model",
        f"T1 = {record.t1:.6g}: scores below are OK",
        f"T2 = {record.t2:.6g}: scores from here on are NG"
        + (", between them REVIEW" if record.t1 < record.t2 else ""),
        record.method,
        _false_calls(record),
    ]
    if record.caught is not None:
        lines.append(_caught(record))
    lines.append(_quality(record))
    more = more_parts_needed(record)
    # Where every tenth good part is stopped, counting more of them proves nothing that anyone wants.
    if more and record.false_calls.seen * 10 < record.false_calls.of:
        lines.append(
            f"{more:,} more good parts, none of them stopped, would prove {_WANTED_RATE * 1000:.0f} per 1,000"
        )
    return lines


def _quality(record: CalibrationRecord) -> str:
    limits = record.quality
    if limits is None:
        return "no limits for light, focus and position: a frame is only checked for being a frame"
    low, high = limits.light
    place = f", shift up to {limits.shift:.1%} of the frame" if limits.reference else ", parts have no place"
    learned = f"from {limits.pictures} pictures"
    return (
        f"frames are judged at light {low:.0f} to {high:.0f}, focus from {limits.focus:.2g}{place} ({learned})"
    )


def warnings_about(record: CalibrationRecord) -> list[str]:
    """What weakens the record, one sentence each."""
    found = []
    good_parts = record.false_calls.of
    if good_parts < _ENOUGH_GOOD_PARTS:
        found.append(f"only {good_parts} good parts; show at least {_ENOUGH_GOOD_PARTS}")
    if record.caught is None:
        found.append("no masters: nothing is known about how many bad parts are caught")
    counts = [("good parts", len(record.good), good_parts)]
    if record.caught is not None:
        counts.append(("masters", len(record.masters), record.caught.of))
    for what, pictures, parts in counts:
        if parts < pictures:
            found.append(
                f"{pictures} pictures show {parts} {what}; pictures of one part are not independent, "
                "so each part counts once, by its worst picture"
            )
    return found + _overlap(record)


def more_parts_needed(record: CalibrationRecord) -> int:
    """How many more good parts, none of them stopped, would prove 10 false calls per 1,000; 0 = proved."""
    calls = record.false_calls
    return max(parts_needed(_WANTED_RATE, stopped=calls.seen) - calls.of, 0)


def _false_calls(record: CalibrationRecord) -> str:
    calls = record.false_calls
    return (
        f"{calls.seen} of {calls.of} good parts stopped: {calls.confidence * 100:.0f} % certain "
        f"not more than {calls.bound * 1000:.1f} per 1,000"
    )


def _caught(record: CalibrationRecord) -> str:
    caught = record.caught
    assert caught is not None
    return (
        f"{caught.seen} of {caught.of} masters stopped: {caught.confidence * 100:.0f} % certain "
        f"at least {caught.bound * 100:.1f} % of parts like these are caught"
    )


def _overlap(record: CalibrationRecord) -> list[str]:
    """Good parts that would be stopped and masters that are no clear NG: look at these with your own eyes."""
    stopped = sorted((score, name) for name, score in record.good.items() if score >= record.t1)
    unclear = sorted((score, name) for name, score in record.masters.items() if score < record.t2)
    found = []
    if stopped:
        worst = ", ".join(name for _, name in stopped[-_LISTED:][::-1])
        found.append(f"{len(stopped)} good pictures would be stopped; are they good? {worst}")
    if unclear:
        lowest = ", ".join(name for _, name in unclear[:_LISTED])
        found.append(f"{len(unclear)} masters score no higher than good parts: {lowest}")
    return found
