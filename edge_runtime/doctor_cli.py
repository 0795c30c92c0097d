"""`kenpin doctor` and `kenpin support`: what is wrong here, what to do about it, and what to send."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from kenpin import options
from kenpin.config import StationConfig
from kenpin.config_file import load_config
from kenpin.console import human_console
from kenpin.edge_runtime.doctor import Finding, examine
from kenpin.edge_runtime.doctor_host import host_checks
from kenpin.edge_runtime.doctor_station import station_checks
from kenpin.edge_runtime.support import write_dump
from kenpin.out_file import refuse_other

_STYLE = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The station's TOML file.")
@options.as_json
def doctor(config_path: Path | None, as_json: bool) -> None:
    """Look at everything that a station needs; without --config only at this machine.

    Ends with 1 when a line says FAIL. Changes nothing.
    """
    findings = _examine(load_config(config_path) if config_path is not None else None)
    if as_json:
        click.echo(json.dumps({"findings": [dataclasses.asdict(f) for f in findings]}))
    else:
        human_console().print(_table(findings))
    if any(f.verdict == "FAIL" for f in findings):
        raise click.exceptions.Exit(1)


@click.command()
@options.config
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Zip file to write.")
def support(config_path: Path, out: Path) -> None:
    """Collect what somebody elsewhere needs to see of a station; no password, key or picture is in it."""
    refuse_other(out, "doctor.json")
    config = load_config(config_path)
    names = write_dump(config, _examine(config), out)
    click.echo(f"{out}: {', '.join(names)}\nlook into it before you send it", err=True)


def _examine(config: StationConfig | None) -> list[Finding]:
    checks = host_checks(config.station.state_dir if config is not None else Path.cwd())
    return examine([*checks, *(station_checks(config) if config is not None else [])])


def _table(findings: list[Finding]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings:
        words = finding.words + (f"\n  cure: {finding.cure}" if finding.cure else "")
        table.add_row(Text(finding.verdict, _STYLE[finding.verdict]), finding.name, words)
    return table
