"""A calibration record in words that a technician reads."""

from __future__ import annotations

import math

from kenpin.calibration.confirm import WANTED_RATE, confidence_of_looks, counts_with_fresh
from kenpin.calibration.origin import is_narrow
from kenpin.calibration.threshold import CONFIDENCE, parts_needed
from kenpin.counted import counted
from kenpin.events import rfc3339
from kenpin.record import CalibrationRecord

_ENOUGH_GOOD_PARTS = 50
_LISTED = 8
WIDE_LIGHT = 4.0  # highest over lowest light: half and double the middle are within


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
    lines += _fresh(record) + _further(record)
    return lines


def _quality(record: CalibrationRecord) -> str:
    limits = record.quality
    if limits is None:
        return "no limits for light, focus and position: a frame is only checked for being a frame"
    colour = "".join(
        f", {name} over green {a:.2f} to {b:.2f}"
        for name, (a, b) in zip(("blue", "red"), limits.colour or (), strict=False)
    )
    place = f", shift up to {limits.shift:.1%} of the frame" if limits.reference else ", parts have no place"
    learned = f"from {limits.pictures} pictures"
    light = f"light {limits.light_told}{colour}"
    return f"frames are judged at {light}, focus from {limits.focus:.2g}{place} ({learned})"


def warnings_about(record: CalibrationRecord) -> list[str]:
    """What weakens the record, one sentence each."""
    found = [*_origin(record)]
    if record.false_calls is None:
        found.append(f"{record.method}: no bound of false calls until fresh parts prove one")
    elif record.false_calls.of < _ENOUGH_GOOD_PARTS:
        found.append(f"only {counted(record.false_calls.of, 'good part')}; show at least {_ENOUGH_GOOD_PARTS}")
    if record.caught is None:
        found.append("no masters: nothing is known about how many bad parts are caught")
    return found + _size(record) + _light(record) + _several_pictures(record) + _overlap(record)


def more_parts_needed(record: CalibrationRecord) -> int | None:
    """How many more good parts, none of them stopped, would prove 10 false calls per 1,000; 0 = proved.

    `None` = no number does: all looks that were planned at fresh parts are taken.
    """
    calls = record.false_calls
    if calls is not None and (record.fresh or counts_with_fresh(record)):
        needed = parts_needed(WANTED_RATE, stopped=calls.seen, confidence=calls.confidence) - calls.of
        return None if needed > 0 and _looks_are_taken(record) else max(needed, 0)
    return 0 if calls is not None and calls.bound <= WANTED_RATE else _alone(record)


def _alone(record: CalibrationRecord) -> int:
    """How many fresh good parts, none of them stopped, prove it where no others count."""
    return parts_needed(WANTED_RATE, stopped=0, confidence=confidence_of_looks(record))


def _looks_are_taken(record: CalibrationRecord) -> bool:
    """Where fresh parts count alone they may be looked at only as often as planned."""
    fresh, calls = record.fresh, record.false_calls
    return bool(fresh and calls and calls.of == fresh.parts and fresh.looks >= record.looks)


def _origin(record: CalibrationRecord) -> list[str]:
    """A bound holds for parts like those that were shown."""
    origin = record.origin
    if origin is None or not is_narrow(origin):
        return []
    lot = "are of 1 lot and " if origin.lots else ""
    within = max(1, math.ceil(origin.minutes))
    shown = f"{lot}were taken within {within} min"
    parts = "at each showing the good parts" if record.fresh else "all good parts"
    return [f"{parts} {shown}: what they prove holds for those only; show two lots or times of day"]


def _size(record: CalibrationRecord) -> list[str]:
    if record.quality is None or record.quality.size is not None:
        return []
    unseen = "neither a frame of a wrong size nor a part out of its place is noticed"
    return [f"the good pictures have several sizes: {unseen}; calibrate with those of the station's camera"]


def _light(record: CalibrationRecord) -> list[str]:
    """Limits are as wide as the good pictures differ; those of two lamps, or of a collection, see nothing."""
    limits = record.quality
    if limits is None or limits.light[1] < WIDE_LIGHT * limits.light[0]:
        return []
    allowed = f"the light of the good pictures differs so much that {limits.light_told} is allowed"
    return [f"{allowed}: half or double the light is not noticed; calibrate with pictures of one light"]


def _several_pictures(record: CalibrationRecord) -> list[str]:
    counts = [("master", len(record.masters), record.caught.of)] if record.caught else []
    # With fresh parts, and after thresholds were placed by hand, other parts are counted than are shown here.
    if record.false_calls and record.rank and not record.fresh:
        counts.insert(0, ("good part", len(record.good), record.false_calls.of))
    return [
        f"{pictures:,} pictures show {counted(parts, what)}; pictures of one part are not independent, "
        "so each part counts once, by its worst picture"
        for what, pictures, parts in counts
        if parts < pictures
    ]


def _fresh(record: CalibrationRecord) -> list[str]:
    fresh = record.fresh
    if fresh is None:
        return []
    times = f"{fresh.looks} looks" if fresh.looks > 1 else "1 look"
    wanted = f"CONFIRMED needs not more than {fresh.at_most * 1000:g} per 1,000"
    return [f"{fresh.stopped} of {fresh.parts} fresh good parts stopped, in {times}; {wanted}"]


def _further(record: CalibrationRecord) -> list[str]:
    """What it would take to prove more."""
    calls, more = record.false_calls, more_parts_needed(record)
    if more is None:
        return ["the planned looks at fresh parts are taken: more of them prove nothing; calibrate anew"]
    if not more and not record.fresh and not counts_with_fresh(record):
        return [f"{counted(_alone(record), 'fresh good part')}, none of them stopped, would make it CONFIRMED"]
    # Where every tenth good part is stopped, counting more of them proves nothing that anyone wants.
    if not more or (calls is not None and calls.seen * 10 >= calls.of):
        return []
    alone = "" if record.fresh or counts_with_fresh(record) else "fresh ones alone, "
    shown = f"{counted(more, 'more good part')}, {alone}none of them stopped"
    return [f"{shown}, would prove {WANTED_RATE * 1000:.0f} per 1,000"]


def _false_calls(record: CalibrationRecord) -> str:
    calls = record.false_calls
    if calls is None:
        return "false calls: NOT PROVED"
    return (
        f"{calls.seen} of {calls.of} good parts stopped: {CONFIDENCE * 100:.0f} % certain "
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
    what = "that score no higher than good parts" if record.rank else "that would be REVIEW and not NG"
    found = []
    if stopped:
        worst = ", ".join(name for _, name in stopped[-_LISTED:][::-1])
        found.append(f"good pictures that would be stopped: {len(stopped)} ({worst}); are they good?")
    if unclear:
        lowest = ", ".join(name for _, name in unclear[:_LISTED])
        found.append(f"masters {what}: {len(unclear)} ({lowest})")
    return found
