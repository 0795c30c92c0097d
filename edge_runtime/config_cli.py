"""`kenpin config`: check a station's configuration, write its schema for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kenpin.config import StationConfig, load_config
from kenpin.edge_runtime.outputs import check_outputs
from kenpin.edge_runtime.sources import check_address
from kenpin.edge_runtime.trigger_input import check_trigger
from kenpin.signing import PublicKey


@click.group()
def config() -> None:
    """Check a station's configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Read a station.toml and say what is wrong with it; nothing is opened but the keys that it trusts."""
    loaded = load_config(file)
    for url in loaded.source.urls:
        check_address(url)
    check_trigger(loaded, has_modbus=bool(loaded.output.modbus))
    check_outputs(loaded.output)
    for path in loaded.station.trusted_keys:
        PublicKey.load(path)
    click.echo(f"{file}: correct", err=True)
    click.echo(f"  station {loaded.station.id}, folder {loaded.station.state_dir}", err=True)
    click.echo(f"  frames from {', '.join(loaded.source.urls)}", err=True)
    click.echo(f"  events to {loaded.mqtt.url or 'no broker, the store only'}", err=True)


@config.command()
def schema() -> None:
    """Print the JSON Schema of station.toml."""
    click.echo(json.dumps(StationConfig.model_json_schema(), indent=2))
