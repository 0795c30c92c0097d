"""`kenpin calibrate set`, `show` and `cost`: to place T1 and T2 by hand, and what stands and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from kenpin import options
from kenpin.book import calibration_lock, open_book
from kenpin.calibration.cost import Costs, cheapest, cheapest_if_escapes_cost, cost_curve
from kenpin.calibration.tell import tell
from kenpin.edge_runtime.light import check_light
from kenpin.errors import CalibrationError, DataError
from kenpin.placed import Placement, record_placed
from kenpin.record import CalibrationRecord, newest_for, station_records
from kenpin.station_folder import StationFolder


@click.command()
@options.state
@options.as_json
def show(state: Path, *, as_json: bool) -> None:
    """Show the calibration in force and what it proves."""
    folder = StationFolder(state)
    tell(_newest(folder), folder, as_json=as_json)


@click.command()
@click.option("--t1", type=float, required=True, help="Scores below are OK.")
@click.option("--t2", type=float, required=True, help="Scores from here on are NG.")
@click.option(
    "--looks",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How often you will look at fresh parts; more looks need more parts.",
)
@options.state
@options.by
@click.option("--why", required=True, help="Reason, kept in the record.")
@options.as_json
def place(  # noqa: PLR0913 - one argument per option
    t1: float, t2: float, looks: int, *, state: Path, by: str, why: str, as_json: bool
) -> None:
    """Place T1 and T2 by hand for the active bundle.

    Nothing is known about a position chosen by eye until `kenpin calibrate confirm` has counted fresh parts.
    """
    folder = StationFolder(state)
    check_light(folder)
    with calibration_lock(folder):
        placed = Placement(t1=t1, t2=t2, looks=looks, by=by, why=why)
        record = record_placed(open_book(folder), folder.installed().name, placed)
    tell(record, folder, as_json=as_json)


def _figure(name: str, what: str, *, most: float | None = None) -> Callable[[options.Command], options.Command]:
    return click.option(name, type=click.FloatRange(0, most), callback=options.finite, required=True, help=what)


@click.command()
@_figure("--false-call", "Cost of a good part judged NG.")
@_figure("--escape", "Cost of a bad part judged OK.")
@_figure("--review", "Cost of a part that is looked at.")
@_figure("--defect-rate", "Share of bad parts.", most=1)
@options.state
@options.as_json
def cost(  # noqa: PLR0913 - one argument per option
    false_call: float, escape: float, review: float, defect_rate: float, *, state: Path, as_json: bool
) -> None:
    """Show where T1 would cost least on the parts that were shown, with T2 as it is. Changes nothing."""
    record = _newest(StationFolder(state))
    if not record.masters:
        raise DataError(
            "there are no masters, so nothing is known about escapes",
            where=f"record {record.rev}",
            cure="kenpin calibrate fit --good DIR --masters DIR",
        )
    costs = Costs(false_call, escape, review, defect_rate)
    curve = cost_curve(record, costs)
    best = cheapest(curve)
    halved, doubled = (cheapest_if_escapes_cost(record, costs, factor) for factor in (0.5, 2.0))
    now = next(point for point in curve if point.t1 == record.t1)
    what, counted = _counted(record)
    click.echo(f"now, T1 = {now.t1:.6g}: {now.cost:.4g} per 1,000 {what}", err=True)
    click.echo(f"least, T1 = {best.t1:.6g}: {best.cost:.4g} per 1,000 {what}", err=True)
    click.echo(f"least at {halved.t1:.6g} if an escape cost half, at {doubled.t1:.6g} if double", err=True)
    click.echo(f"this counts {counted}; it proves nothing about parts to come", err=True)
    if as_json:
        points = {"now": now, "least": best, "escape_halved": halved, "escape_doubled": doubled}
        document = {name: asdict(point) for name, point in points.items()}
        click.echo(json.dumps({**document, "curve": [asdict(point) for point in curve]}))


def _counted(record: CalibrationRecord) -> tuple[str, str]:
    """What a figure is of, and the same told: a record does not keep which of its pictures are of one part."""
    has_several = record.good_parts or (record.caught and record.caught.of < len(record.masters))
    if has_several:
        return "pictures", "pictures, of which a part has several"
    return "parts", "parts that were shown"


def _newest(folder: StationFolder) -> CalibrationRecord:
    """Of the active bundle; where it has none the newest of all, to say which bundle that is for."""
    records = station_records(folder)
    if not records:
        raise CalibrationError(
            "this station has never been calibrated",
            where=folder.records,
            cure="kenpin calibrate fit --good DIR --masters DIR --state DIR",
        )
    return newest_for(records, folder.active_sha256) or records[-1]
