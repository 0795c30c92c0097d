"""`kenpin masters`: limit samples, and the check at the start of the shift."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from kenpin import options
from kenpin.calibrating import refuse_while_calibrating
from kenpin.calibration.masters_book import add_master, make_master, remove_master, set_interval
from kenpin.calibration.masters_check import Result, Seen, Step, check_masters, doubt_of, suspects_csv
from kenpin.calibration.masters_hold import PartWatch, held_for_check
from kenpin.counted import counted
from kenpin.errors import DataError
from kenpin.events import now_ms, rfc3339
from kenpin.frame import read_picture
from kenpin.masters import Expected, read_masters
from kenpin.masters_due import masters_due, read_demand
from kenpin.station_folder import StationFolder

_product = click.option(
    "--product", default="", help="Whose master it is.  [default: the product that the station judges]"
)


@click.group()
def masters() -> None:
    """Keep limit samples, and check that the station still sees them."""


@masters.command()
@click.argument("name", metavar="ID")
@click.option("--type", "kind", required=True, help="What is wrong with it.")
@click.option("--picture", type=click.Path(path_type=Path), required=True, help="Its picture.")
@click.option(
    "--expected",
    type=click.Choice(["OK", "REVIEW", "NG"]),
    default="NG",
    show_default=True,
    help="The least that the station must say of it.",
)
@_product
@options.state
@options.by
@options.why
def add(  # noqa: PLR0913, PLR0917 - one argument per option
    name: str, kind: str, picture: Path, expected: Expected, product: str, state: Path, by: str, why: str
) -> None:
    """Register a master; one of the same name and product is replaced."""
    refuse_while_calibrating(StationFolder(state))
    read_picture(picture)
    content = picture.read_bytes()
    master = make_master(name, kind, expected, picture=content, suffix=picture.suffix.lower())
    master = master.model_copy(update={"product": product})
    master = add_master(StationFolder(state), master, content, by=by, why=why)
    of = f" of {master.product}" if master.product else ""
    click.echo(f"master {name}{of} is registered; show it with: kenpin masters check", err=True)


@masters.command()
@click.argument("name", metavar="ID")
@_product
@options.state
@options.by
@click.option("--why", required=True, help="Reason, kept in the audit.")
def remove(name: str, product: str, state: Path, by: str, why: str) -> None:
    """Take a master off the list."""
    refuse_while_calibrating(StationFolder(state))
    remove_master(StationFolder(state), name, by=by, why=why, product=product or None)
    click.echo(f"master {name} is no longer registered", err=True)


@masters.command()
@click.argument("hours", type=click.FloatRange(0, 24 * 31), callback=options.finite)
@options.state
@options.by
@click.option("--why", required=True, help="Reason, kept in the audit.")
def interval(hours: float, state: Path, by: str, why: str) -> None:
    """Set after how many HOURS the masters must be shown again; 0 = no demand."""
    folder = StationFolder(state)
    set_interval(folder, hours, by=by, why=why)
    demand = f"due every {hours:g} h" if hours else "never due"
    due = read_demand(folder).why(now_ms())
    still = f"; yet no part is released: {due.words}; {due.cure}" if due else ""
    click.echo(f"the masters are {demand}{still}", err=True)


@masters.command("list")
@options.state
@options.as_json
def show(state: Path, *, as_json: bool) -> None:
    """List the masters, and when they were last shown."""
    folder = StationFolder(state)
    folder.require()
    known = read_masters(folder)
    due = masters_due(folder, now_ms())
    click.echo(f"masters of {known.product or 'all products'}:", err=True)
    for master in known.registered.values():
        click.echo(f"{master.id:<12} {master.expected:<7} {master.type}  {master.picture}", err=True)
    for product, names in sorted(known.others.items()):
        click.echo(f"of {product}, not to be shown now: {', '.join(sorted(names))}", err=True)
    click.echo(due or (f"shown {rfc3339(known.last.ts_ms)}" if known.last else "no check is due"), err=True)
    if as_json:
        document = {
            "product": known.product,
            "others": {product: sorted(names) for product, names in sorted(known.others.items())},
            "masters": [m.model_dump(exclude={"kind"}) for m in known.registered.values()],
            "interval_h": known.interval_h,
            "due": due,
            "last_check_ms": known.last.ts_ms if known.last else 0,
        }
        click.echo(json.dumps(document))


@masters.command()
@options.state
@click.option(
    "--wait-s",
    type=click.FloatRange(0, min_open=True),
    callback=options.finite,
    default=60,
    show_default=True,
    help="For each part.",
)
@options.by
@options.as_json
@click.pass_context
def check(ctx: click.Context, state: Path, wait_s: float, by: str, *, as_json: bool) -> None:
    """Show each master three times, a good part after each, while the station runs and releases nothing.

    Ends with 1 when a master passes or a good part is stopped; then every part is listed since the last check
    that was passed.
    """
    folder = StationFolder(state)
    watch = PartWatch(folder, wait_s=wait_s)

    with _broken_off_by_signals(), held_for_check(folder, by) as note:

        def next_seen(step: Step) -> Seen:
            click.echo(step.words, err=True)
            return watch.next(note)

        result = check_masters(folder, next_seen, by=by)
    _tell(folder, result)
    if as_json:
        document = result.check.model_dump(exclude={"kind", "ts_ms"})
        click.echo(json.dumps({**document, "suspects": [asdict(s) for s in result.suspects]}))
    ctx.exit(0 if result.check.passed else 1)


@contextmanager
def _broken_off_by_signals() -> Iterator[None]:
    """A lost connection ends the check as Ctrl-C does: what was judged wrongly is still written down."""
    signals = (signal.SIGHUP, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _tell(folder: StationFolder, result: Result) -> None:
    if result.check.passed:
        click.echo("PASSED: every master was seen, every good part passed", err=True)
        return
    for showing in (s for s in result.check.showings if not s.is_right):
        what = f"master {showing.master}" if showing.master else "the good part"
        click.echo(f"FAILED: {what} was {showing.verdict}, expected {showing.expected}", err=True)
    doubt = doubt_of(result.suspects)
    path = folder.root / "masters" / f"suspects-{result.check.showings[0].seq}.csv"
    try:
        path.write_text(suspects_csv(result.suspects), encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(
            f"the list of {counted(doubt.parts, 'part')} in doubt cannot be written: {error.strerror}",
            where=path,
            cure="make room, and ask for the list with: kenpin masters check --json",
        ) from None
    click.echo(
        f"parts in doubt since the last passed check: {doubt.parts}, {doubt.released} of them released; "
        f"hold them back: {path}",
        err=True,
    )
