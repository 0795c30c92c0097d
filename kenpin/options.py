"""Options that several commands share."""

from __future__ import annotations

import getpass
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kenpin.errors import ConfigError
from kenpin.station_folder import DEFAULT_STATE, StationFolder

Command = TypeVar("Command", bound=Callable[..., Any])


def _check_readable(_context: click.Context, _option: click.Parameter, value: Path) -> Path:
    StationFolder(value).refuse_stranger()
    return value


state = click.option(
    "--state",
    type=click.Path(path_type=Path, readable=False),  # who may read it is said by the callback, with the cure
    callback=_check_readable,
    default=DEFAULT_STATE,
    show_default=True,
    help="The station's folder.",
)
config = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The station's TOML file.",
)
bundle = click.option(
    "--bundle", "bundle_path", type=click.Path(path_type=Path), help="Default: the active one."
)
masters = click.option("--masters", type=click.Path(path_type=Path), help="Folder of known bad parts.")
scores = click.option(
    "--scores", type=click.Path(path_type=Path), help="CSV: name,score,label(good|master)[,group]."
)
precision = click.option(
    "--precision", type=click.Choice(["int8", "fp16", "fp32"]), help="Default: what this station would run."
)
trust = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Public key that may have signed the bundle; may be given several times.  [default: this user's own]",
)
by = click.option(
    "--by",
    default="",
    callback=lambda _context, _option, value: signer(value),
    help="Who signs; default: the login name, before sudo.",
)
why = click.option("--why", default="", help="Reason, kept in the record.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def size(**given: Any) -> Callable[[Command], Command]:
    """The option `--size`, pixels; one that no model can have is refused before any picture is read."""
    return click.option("--size", type=int, callback=_check_size, **given)


def _check_size(_context: click.Context, _option: click.Parameter, value: int | None) -> int | None:
    if value is not None and (value % 16 or not 64 <= value <= 1024):
        raise ConfigError(f"--size {value} cannot be used", cure="give a multiple of 16 from 64 to 1024")
    return value


def signer(by: str = "") -> str:
    """Who signs; default: the login name, under sudo that of who called it.

    Raises:
        ConfigError: Nobody is named, and this user has no login name.
    """
    try:
        return by or os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        cure = "name who does it with --by, or run it as a user that has one"
        raise ConfigError("this user has no login name", cure=cure) from None


def finite(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    """For `callback`: a range does not keep out what is no number, nor what is endless.

    Raises:
        BadParameter: The value is not finite.
    """
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value
