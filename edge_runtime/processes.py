"""A station as processes: what `kenpin run` starts, and what it reports when they have ended."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kenpin.config import StationConfig
from kenpin.edge_runtime.child import ChildSpec
from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.folder_lock import sole_supervisor
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.report import Report
from kenpin.edge_runtime.roles import CAPTURE_S
from kenpin.edge_runtime.source import SourceUrl
from kenpin.edge_runtime.station import DRAIN_S
from kenpin.edge_runtime.supervisor import Supervisor
from kenpin.edge_runtime.vitals import Vitals, read_vitals
from kenpin.events import Anomaly, now_ms
from kenpin.station_folder import StationFolder


def run_processes(
    config: StationConfig, config_path: Path, *, source_url: str | None, max_parts: int | None
) -> Report:
    """Run a station as processes until it ends.

    Args:
        config: The station's configuration.
        config_path: Its file, for the processes.
        source_url: The source that was given instead of that in the file.
        max_parts: Stop after this many parts.

    Raises:
        ConfigError, SourceError: The source is no address, or a folder or file that is not there; or another
            station runs on the folder.
        Exit: A process did not come up; it has said why.
    """
    for url in config.source.urls:
        SourceUrl.parse(url).check_there()
    folder = StationFolder(config.station.state_dir)
    folder.create()
    folder.run.mkdir(parents=True, exist_ok=True)
    start_ms, before = now_ms(), read_vitals(folder.run).get("station")
    with sole_supervisor(folder.root):  # before any child touches a socket or the broker
        code = Supervisor(_specs(config, config_path, source_url, max_parts), folder.run).run()
    told = read_vitals(folder.run).get("station")
    if told in (None, before) and not code:
        click.echo("stopped before the station had begun: there is nothing to report", err=True)
    if told in (None, before) or code:
        raise click.exceptions.Exit(code)
    return _report(folder, start_ms, told)


def _specs(
    config: StationConfig, config_path: Path, source_url: str | None, max_parts: int | None
) -> list[ChildSpec]:
    def command(role: str, *more: str) -> list[str]:
        source = () if source_url is None else ("--source", source_url)
        base = [sys.executable, "-m", "kenpin", "run", "--role", role, "--config", str(config_path)]
        return [*base, *source, *more]

    limit = () if max_parts is None else ("--max-parts", str(max_parts))
    special = {
        "station": ChildSpec("station", command("station", *limit)),
        "publisher": ChildSpec("publisher", command("publisher"), stop_s=DRAIN_S + 10),
        "health": ChildSpec("health", command("health")),
    }
    return [special.get(role) or ChildSpec(role, command(role), watchdog_s=CAPTURE_S) for role in config.roles]


def _report(folder: StationFolder, start_ms: int, station: Vitals) -> Report:
    with reading(folder.database) as connection:
        outbox = Outbox(connection)
        return Report(
            Snapshot.from_vitals(station),
            outbox.acked_since(start_ms, Anomaly.topic),
            outbox.depth(),
            station.texts.get("precision", ""),
            station.session_id,
            station.numbers.get("resident_bytes", 0.0) / 1e6,
        )
