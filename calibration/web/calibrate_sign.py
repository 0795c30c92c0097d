"""Signing: what was shown becomes a calibration record, and the masters become known to the shift check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kenpin.book import calibration_lock, open_book
from kenpin.calibration.fit import Basis, record_fit
from kenpin.calibration.masters_book import add_master, make_master
from kenpin.calibration.scores import ScoreSet
from kenpin.calibration.web.align_in_use import align_in_use
from kenpin.calibration.web.calibrate_limits import Assessment
from kenpin.calibration.web.calibrate_parts import NamedMaster, Shown, ShownPart
from kenpin.calibration.web.calibrate_run import Start
from kenpin.calibration.web.calibrate_shown import measured_pictures
from kenpin.calibration.web.signature import Signature
from kenpin.errors import CalibrationError, KenpinError
from kenpin.masters import Expected, read_masters
from kenpin.placed import Placement, record_placed
from kenpin.quality_limits import QualityLimits, learn_limits
from kenpin.record import CalibrationRecord, newest_for, station_records
from kenpin.station_folder import StationFolder


def sign(
    folder: StationFolder, start: Start, shown: Shown, placed: Assessment, signed: Signature
) -> CalibrationRecord:
    """Append the record of the thresholds that are shown.

    The rule's own record comes first, with its proof; where a hand has moved the thresholds, a second one
    follows that says so.

    Args:
        folder: The station's folder.
        start: What the calibration began with.
        shown: The parts.
        placed: Where T1 and T2 stand, and that they may be signed.
        signed: Who signs, and why.

    Raises:
        CalibrationError: Another bundle is active by now, a master would pass, or it cannot be written.
        DataError: There are too few good parts.
        StoreError: The audit cannot be written.
    """
    why = _with_left_out(signed.why, shown.left) + _unnamed(shown, placed.t1)
    with calibration_lock(folder):
        if folder.active_sha256 != start.bundle_sha256:
            raise CalibrationError(
                "another bundle is active than the parts were scored with",
                where=folder.active,
                cure="give this calibration up and begin a new one",
            )
        scores = ScoreSet(
            shown.good_scores,
            shown.master_scores,
            _quality(folder, shown.good),
            shown.origin,
            shown.left_scores,
        )
        precision = start.precision
        record = record_fit(folder, scores, Basis(start.bundle_sha256, precision, signed.by, why))
        if (record.t1, record.t2) != (placed.t1, placed.t2):
            placement = Placement(placed.t1, placed.t2, looks=1, by=signed.by, why=why)
            record = record_placed(open_book(folder), start.bundle_sha256, placement)
    return record


def half_signed(folder: StationFolder, start: Start) -> CalibrationRecord | None:
    """The record that a signing left which broke off, as on a full disk; `None` without one.

    It may be the rule's own one, before the position that a hand has chosen: in force, though nobody meant it.

    Args:
        folder: The station's folder.
        start: What the calibration that goes on began with.
    """
    try:
        newest = newest_for(station_records(folder), start.bundle_sha256)
    except KenpinError:
        return None  # what cannot be read is not in force
    named = (newest.good if newest is not None else {}).keys()
    seqs = (int(name.removeprefix("seq ")) for name in named if name.startswith("seq "))
    return newest if any(seq > start.first_seq for seq in seqs) else None


def register_masters(
    folder: StationFolder, masters: Sequence[NamedMaster], t2: float, signed: Signature
) -> None:
    """Let the shift check ask for the masters from now on; those that it knows already stay as they are.

    One at T2, as the weakest often is, falls below it in every other picture: it is to be stopped, no more, and
    one that is known is then asked for no more either.

    Args:
        folder: The station's folder.
        masters: As they were shown.
        t2: Scores from here on are NG.
        signed: Who signs, and why.

    Raises:
        StoreError, ConfigError: It cannot be written.
    """
    known = {name: master.expected for name, master in read_masters(folder).registered.items()}
    for named in masters:
        name = named.label.name
        picture = _content(folder.images / named.part.image_ref) if named.part.image_ref else b""
        expected: Expected = "NG" if named.part.score > t2 else "REVIEW"
        asks_too_much = (known.get(name), expected) == ("NG", "REVIEW")
        if not picture or (name in known and not asks_too_much):
            continue
        known[name] = expected
        master = make_master(name, named.label.type, expected, picture=picture, suffix=".png")
        add_master(folder, master, picture, by=signed.by, why=signed.why)


def without_picture(folder: StationFolder, masters: Sequence[NamedMaster]) -> list[str]:
    """Names of the masters that the shift check will not know, as their pictures have given way to newer ones.

    Args:
        folder: The station's folder.
        masters: As they were shown.
    """
    kept = {m.label.name for m in masters if m.part.image_ref and (folder.images / m.part.image_ref).is_file()}
    return sorted({m.label.name for m in masters} - kept - read_masters(folder).registered.keys())


def _with_left_out(why: str, left: Sequence[ShownPart]) -> str:
    """Whoever reads the record must know which parts the technician did not count."""
    return f"{why} (left out: seq {', '.join(str(part.seq) for part in left)})" if left else why


def _unnamed(shown: Shown, t1: float) -> str:
    """Who shows many bad parts and names those that suit must be seen to have done so."""
    passing = sum(score < t1 for score in shown.unnamed)
    told = f"shown after the good parts and not named: {len(shown.unnamed)}, {passing} of them below T1"
    return f" ({told})" if shown.unnamed else ""


def _quality(folder: StationFolder, good: Sequence[ShownPart]) -> QualityLimits | None:
    """Limits of light, focus and position, from the pictures of good parts that are still there."""
    seen = list(measured_pictures(folder, good))
    # Where the view follows the part, the part has no place to keep.
    parts = min(len(seen), len({part.part_id for part in good}))
    return learn_limits(seen, place=not align_in_use(folder), parts=parts)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
