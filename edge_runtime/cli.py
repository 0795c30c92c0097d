"""The command line of the station: `kenpin run` and `kenpin events`."""

from __future__ import annotations

import json
import logging
import re
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kenpin import options
from kenpin.config import StationConfig
from kenpin.config_file import load_config
from kenpin.console import human_console
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.decide import DECIDED, Verdict
from kenpin.edge_runtime.event_line import event_line
from kenpin.edge_runtime.folder_lock import sole_in_role
from kenpin.edge_runtime.outbox import Entry, Outbox
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.processes import run_processes
from kenpin.edge_runtime.report import Report
from kenpin.edge_runtime.roles import run_role
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.supervisor import end_with_parent
from kenpin.errors import ConfigError, StoreError, printable
from kenpin.heap import keep_freed_memory
from kenpin.station_folder import StationFolder

_log = logging.getLogger(__name__)

_PAGE = 500
_POLL_S = 0.2
_NUMBER = re.compile(r"[\d.]+(e-\d+)?")


@click.command()
@options.config
@click.option(
    "--source",
    "source_url",
    help="Take frames from here instead: folder:DIR, video:FILE, usb:0, synthetic:board.",
)
@click.option("--max-parts", type=click.IntRange(min=1), help="Stop after this many parts.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document.")
@click.option("--single-process", is_flag=True, help="Cameras and publisher as threads of one process.")
@click.option("--role", help="Run one process of the station only, as the systemd units do.")
def run(  # noqa: PLR0913, PLR0917 - one argument per option
    config_path: Path,
    source_url: str | None,
    max_parts: int | None,
    as_json: bool,
    single_process: bool,
    role: str | None,
) -> None:
    """Run the station until the source ends, Ctrl-C or SIGTERM.

    Each part gets one verdict. Only OK releases it, and only after its record is on disk. Each camera, the
    station itself and the publisher are processes of their own, which are started again when they fail.
    """
    config = load_config(config_path)
    if source_url is not None:
        source = config.source.model_copy(update={"url": source_url, "views": ()})
        config = config.model_copy(update={"source": source})
    if role is not None:
        end_with_parent()
        with sole_in_role(config.station.state_dir, role):
            try:
                run_role(role, config, max_parts=max_parts, on_part=Teller())
            except OSError:
                _log.exception("The %s process ends.", role)  # where, which the message does not say
                raise
        return
    if single_process:
        _refuse_alone(config)
        report = _run_here(config, max_parts)
    else:
        report = run_processes(config, config_path, source_url=source_url, max_parts=max_parts)
    if as_json:
        click.echo(json.dumps(_document(report)))
    else:
        _print_table(report)


def _refuse_alone(config: StationConfig) -> None:
    """What the publisher's own process does cannot be had without it, and must not be left out unseen."""
    for name, is_wanted in (
        ("output.mqtt", config.output.mqtt),
        ("sparkplug.enabled", config.sparkplug.enabled),
    ):
        if is_wanted:
            raise ConfigError(f"{name} needs a process of its own", cure="leave out --single-process")


def _run_here(config: StationConfig, max_parts: int | None) -> Report:
    keep_freed_memory()
    with Station(config, on_part=Teller()) as station:

        def stop(number: int, _frame: object) -> None:
            station.stop()
            signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait for the part

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        return station.run(max_parts=max_parts)


@click.command()
@options.state
@click.option("--since", type=click.IntRange(min=0), default=0, help="First number to show.")
@click.option("--watch", is_flag=True, help="Go on with events as they are committed, until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON array; with --watch one JSON object per line."
)
def events(state: Path, since: int, watch: bool, as_json: bool) -> None:
    """Read the station's events, sent or waiting, from its outbox.

    They can be read while the station runs. Acknowledged ones are kept for seven days.
    """
    entries = _follow(state, since) if watch else _stored(state, since)
    if as_json and not watch:
        click.echo(json.dumps([payload for _, payload in _readable(entries)]))
        return
    for entry, payload in _readable(entries):
        if as_json:
            click.echo(json.dumps(payload))
        else:
            fate = "waiting" if entry.acked_ms is None else "sent"
            click.echo(f"{event_line(entry.topic, payload)}  {fate}", err=True)


def _readable(entries: Iterable[Entry]) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Each with its payload; one that was damaged on the disk is said, and hides none of the others."""
    for entry in entries:
        try:
            payload = entry.payload()
        except StoreError as error:
            click.echo(f"warning: {error.what}", err=True)
        else:
            yield entry, payload


class Teller:
    """Says each part that was not released.

    Of parts without a decision for one reason, whatever numbers it names, the first, second, fourth, eighth
    and so on in a row: a station that waits for its calibration over a weekend, or whose camera sees an empty
    belt, must not push everything else out of the journal.
    """

    def __init__(self) -> None:
        self._why: tuple[Verdict, str] | None = None
        self._in_row = 0

    def __call__(self, part: Part) -> None:
        """Tell of a part that is settled."""
        decision = part.decision
        why = (decision.verdict, _NUMBER.sub("", decision.reason))
        self._in_row = self._in_row + 1 if why == self._why else 1
        self._why = why
        is_said_already = decision.verdict not in DECIDED and self._in_row & (self._in_row - 1)
        if decision.verdict is Verdict.OK or is_said_already:
            return
        score = f"  score {decision.scored.score:.4g}" if decision.scored else ""
        limits = f" (T1 {part.record.t1:.4g}, T2 {part.record.t2:.4g})" if score and part.record else ""
        reason = f"  {decision.reason}" if decision.reason else ""
        row = f"  ({self._in_row} in a row)" if decision.verdict not in DECIDED and self._in_row > 2 else ""
        said = printable(f"{decision.verdict.value:<11} {part.part_id}{score}{limits}{reason}{row}")
        with suppress(OSError):  # a terminal that went away must not stop the line
            click.echo(said.replace("\n", " "), err=True)


def _document(report: Report) -> dict[str, Any]:
    now = report.counters
    return {
        "parts": {verdict.value: count for verdict, count in now.parts.items()},
        "latency_ms_p50": now.latency_ms_p50,
        "latency_ms_p99": now.latency_ms_p99,
        "infer_ms_p50": now.infer_ms_p50,
        "engine_precision": report.precision,
        "events_written": now.events,
        "events_acked": report.events_acked,
        "outbox_depth": report.depth.waiting,
        "session_id": report.session_id,
        "rss_mb": report.rss_mb,
        "reasons": dict(now.reasons),
    }


def _print_table(report: Report) -> None:
    now = report.counters
    table = Table(title="Station", show_header=False)
    for verdict, count in now.parts.items():
        table.add_row(verdict.value, str(count))
    table.add_section()
    table.add_row("capture to verdict", f"p50 {now.latency_ms_p50:.1f} ms, p99 {now.latency_ms_p99:.1f} ms")
    table.add_row("engine", f"{report.precision or 'none'}, p50 {now.infer_ms_p50:.1f} ms")
    table.add_row("NG and REVIEW told", f"{now.events} written, {report.events_acked} acknowledged")
    table.add_row("events of any kind", f"{report.depth.waiting} waiting")
    table.add_row("memory", f"{report.rss_mb:.0f} MB")
    for reason, count in now.reasons.items():
        table.add_row(f"{count} without decision", reason)
    human_console().print(table)


def _stored(state: Path, since: int) -> Iterator[Entry]:
    with reading(StationFolder(state).database) as connection:
        outbox = Outbox(connection)
        while page := outbox.replay(since=since, limit=_PAGE):
            yield from page
            since = page[-1].seq + 1


def _follow(state: Path, since: int) -> Iterator[Entry]:
    while True:
        for entry in _stored(state, since):
            since = entry.seq + 1
            yield entry
        time.sleep(_POLL_S)
