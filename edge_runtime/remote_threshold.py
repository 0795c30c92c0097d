"""Thresholds that are moved by command: a signed record as at the station, near to what a person set there."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

from kenpin.book import Book, calibration_lock, open_book
from kenpin.calibrating import refuse_while_calibrating
from kenpin.edge_runtime.command_action import SetThreshold
from kenpin.edge_runtime.light import check_light
from kenpin.errors import CalibrationError
from kenpin.placed import Placement, record_placed
from kenpin.record import CalibrationRecord
from kenpin.station_folder import StationFolder

_BY_COMMAND = "placed by command"


@dataclass(frozen=True)
class Reach:
    """How far a command may go.

    Attributes:
        step: Distance of T1 and of T2 from where a person has set them, in standard deviations of the good
            parts' scores. Many commands together get no further.
        two_persons: Whether every change must be signed by two, as no command is.
    """

    step: float
    two_persons: bool = False


def move_thresholds(folder: StationFolder, command: SetThreshold, by: str, reach: Reach) -> None:
    """Append a record with the thresholds of a command.

    Args:
        folder: The station's folder.
        command: Where they shall stand, and why.
        by: Who signs.
        reach: How far it may go.

    Raises:
        CalibrationError: It goes too far, a master would pass, the light is another one, two persons must sign,
            the active bundle was never calibrated, somebody calibrates or checks, or nothing can be written.
        ConfigError: The reason is empty.
        StoreError: The audit cannot be written; nothing was changed.
    """
    if reach.two_persons:
        raise CalibrationError(
            "a second person must sign every change here, and a command has one sender",
            cure="use the station's page",
        )
    refuse_while_calibrating(folder)
    check_light(folder)
    with calibration_lock(folder):
        book, bundle = open_book(folder), folder.installed().name
        _check_reach(_set_by_a_person(book, bundle), command, reach.step)
        placed = Placement(command.t1, command.t2, looks=1, by=by, why=command.why, method=_BY_COMMAND)
        record_placed(book, bundle, placed)


def _set_by_a_person(book: Book, bundle_sha256: str) -> CalibrationRecord:
    """The newest record with thresholds from the station; that fresh parts confirmed others changes nothing."""
    by_persons = tuple(record for record in book.records if record.method != _BY_COMMAND)
    return replace(book, records=by_persons).newest(bundle_sha256)


def _check_reach(signed: CalibrationRecord, command: SetThreshold, step: float) -> None:
    scores = list(signed.good.values())
    reach = step * statistics.stdev(scores) if len(scores) > 1 else 0.0
    for name, asked, stands in (("T1", command.t1, signed.t1), ("T2", command.t2, signed.t2)):
        if abs(asked - stands) > reach:
            raise CalibrationError(
                f"{name} may be {stands - reach:.6g} to {stands + reach:.6g} by command, not {asked:.6g}: "
                f"threshold_step is {step:g} standard deviations of the good scores of record {signed.rev}",
                cure="set it at the station",
            )
