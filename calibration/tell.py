"""A calibration record on the terminal, or as one JSON document."""

from __future__ import annotations

import json

import click

from kenpin.calibration.words import describe, more_parts_needed, warnings_about
from kenpin.record import CalibrationRecord, newest_for, station_records
from kenpin.station_folder import StationFolder


def tell(record: CalibrationRecord, folder: StationFolder, *, as_json: bool) -> None:
    """Say what a record sets and proves, and what weakens it.

    Args:
        record: The record.
        folder: The station's folder.
        as_json: Whether to print it as JSON as well.
    """
    sentences, weak = describe(record), warnings_about(record)
    active = folder.active_sha256
    if record.bundle_sha256 != active:
        weak.append(_not_for_the_active(record, folder, active))
    for line in sentences + [f"warning: {w}" for w in weak]:
        click.echo(line, err=True)
    if as_json:
        document = {
            "record": record.model_dump(mode="json", by_alias=True),
            "in_force": record.bundle_sha256 == active,
            "more_good_parts_for_10_per_1000": more_parts_needed(record),
            "sentences": sentences,
            "warnings": weak,
        }
        click.echo(json.dumps(document))


def _not_for_the_active(record: CalibrationRecord, folder: StationFolder, active: str) -> str:
    meant = record.bundle_sha256[:16]
    words = f"this calibration is for bundle {meant}, but "
    if active and newest_for(station_records(folder), active) is not None:
        change = f"kenpin bundle activate {meant} {folder.as_option}"
        return (
            f"{words}{active[:16]} is active, by a calibration of its own; to change to the other one: {change}"
        )
    return (
        words
        + (f"{active[:16]} is active" if active else "none is active")
        + ": the station is NOT CALIBRATED and releases no part"
    )
