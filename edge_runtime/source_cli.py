"""`kenpin record` and `kenpin trigger`: a source's frames into a folder, and a trigger by hand."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from shlex import quote

import click
from rich.progress import Progress

from kenpin import options
from kenpin.config_file import load_config
from kenpin.console import human_console
from kenpin.counted import counted
from kenpin.edge_runtime.replay_source import record as write_recording
from kenpin.edge_runtime.source import SourceUrl
from kenpin.edge_runtime.sources import make_source
from kenpin.edge_runtime.trigger_input import send_trigger
from kenpin.errors import ConfigError
from kenpin.station_folder import StationFolder


@click.command()
@click.option("--source", "url", required=True, help="Where to take frames from, as in station.toml.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--frames", type=click.IntRange(min=1), default=100, show_default=True)
def record(url: str, out: Path, frames: int) -> None:
    """Write a source's frames, with their times and numbers, to a folder that replay:DIR plays back."""
    if SourceUrl.parse(url).options.get("trigger") in ("software", "1"):
        raise ConfigError(
            "nobody triggers this camera here, so it would take no picture",
            where="--source",
            cure="give trigger=off, or the line of its cable",
        )
    with closing(make_source(url)) as source, Progress(console=human_console()) as progress:
        source.open()
        bar = progress.add_task("record", total=frames)
        count = write_recording(source, out, frames=frames, taken=lambda: progress.advance(bar))
    play = quote(f"replay:{out}")
    click.echo(f"{counted(count, 'frame')} in {out}; play it with --source {play}", err=True)


@click.command()
@options.config
@click.option("--trigger-id", type=click.IntRange(min=0), required=True, help="One higher than the last one.")
@click.option("--part-id", default="", help="Default: made from the number.")
def trigger(config_path: Path, trigger_id: int, part_id: str) -> None:
    """Ask a running station of this machine for one part; needs trigger = "software" in [source]."""
    config = load_config(config_path)
    send_trigger(StationFolder(config.station.state_dir).run, trigger_id, part_id)
