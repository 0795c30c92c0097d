"""`kenpin review`: take what people said at the review bench to the next training."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kenpin import options
from kenpin.calibration.review_export import export_review
from kenpin.station_folder import StationFolder


@click.group()
def review() -> None:
    """Use the answers that were given at the review bench."""


@review.command()
@options.state
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the pictures.")
@options.as_json
def export(state: Path, out: Path, *, as_json: bool) -> None:
    """Write labelled pictures as good/ and bad/ with a manifest.csv, for kenpin train --data."""
    counts = export_review(StationFolder(state), out)
    click.echo(f"pictures in {out}: {counts['good']} good, {counts['bad']} bad", err=True)
    if counts["disputed"]:
        click.echo(f"left out, as people do not agree: {counts['disputed']}", err=True)
    if counts["without_picture"]:
        click.echo(f"left out, as no picture was kept: {counts['without_picture']}", err=True)
    if counts["gone"]:
        click.echo(f"left out, as their pictures gave way to newer ones: {counts['gone']}", err=True)
        click.echo("export sooner, or give them more room: review_mb in [evidence]", err=True)
    if as_json:
        click.echo(json.dumps({"out": str(out), **counts}))
