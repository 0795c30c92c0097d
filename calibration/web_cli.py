"""`kenpin web`: serve the technician's page, and say who may log in there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TextIO, cast

import click

from kenpin import options
from kenpin.calibration.web.app import create_app
from kenpin.calibration.web.server import serve
from kenpin.calibration.web.users import NAME, RoleWord, Users
from kenpin.config_file import load_config
from kenpin.errors import ConfigError, reason_of
from kenpin.events import rfc3339
from kenpin.station_folder import StationFolder

_config = click.option("--config", type=click.Path(path_type=Path), help="The station's configuration.")


@click.group(invoke_without_command=True)
@_config
@click.pass_context
def web(ctx: click.Context, config: Path | None) -> None:
    """Serve the technician's page of a station."""
    if ctx.invoked_subcommand is not None:
        return
    if config is None:
        raise click.UsageError("give --config station.toml", ctx)
    station = load_config(config)
    section = station.web
    folder = StationFolder(station.station.state_dir)
    folder.create()
    app = create_app(folder, section, station=station.station.id, review_mb=station.evidence.review_mb)
    told = f"the page is at {'https' if section.has_tls else 'http'}://{section.listen}"
    serve(app, section, lambda: click.echo(told, err=True))


@web.group()
def user() -> None:
    """Say who may log in at the page."""


@user.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["viewer", "technician", "engineer"]), required=True, help="What they may do."
)
@click.option(
    "--pin-file", type=click.File(encoding="utf-8"), help="File with the PIN, or - ; default: ask for it."
)
@options.state
@options.by
def add(name: str, role: str, pin_file: TextIO | None, state: Path, by: str) -> None:
    """Add a user, or give one another role and PIN."""
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{name!r} is no name for a user", cure="take 1 to 32 letters, digits and . - _ without spaces"
        )
    Users(StationFolder(state)).add(name, cast(RoleWord, role), _pin(pin_file), by=by)
    click.echo(f"{name} may log in as {role}", err=True)


def _pin(file: TextIO | None) -> str:
    if file is None:
        return str(click.prompt("PIN", hide_input=True, confirmation_prompt=True))
    try:
        return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        what = f"the PIN cannot be read: {reason_of(error)}"
        raise ConfigError(what, where=file.name, cure="give a file of one line, the PIN") from None


@user.command()
@click.argument("name")
@options.state
@options.by
def remove(name: str, state: Path, by: str) -> None:
    """Take a user off the list."""
    Users(StationFolder(state)).remove(name, by=by)
    click.echo(f"{name} may not log in any more", err=True)


@user.command("list")
@options.state
@options.as_json
def show(state: Path, *, as_json: bool) -> None:
    """List who may log in."""
    folder = StationFolder(state)
    folder.require()
    users = Users(folder).read()
    for name, known in sorted(users.items()):
        click.echo(f"{name:<32} {known.role:<10} since {rfc3339(known.since_ms)}", err=True)
    if as_json:
        told = [{"name": n, "role": u.role, "since_ms": u.since_ms} for n, u in sorted(users.items())]
        click.echo(json.dumps({"users": told}))
