"""`kenpin service`: a station as systemd units."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Literal

import click

from kenpin import options
from kenpin.config import StationConfig, host_port, is_loopback
from kenpin.config_file import load_config
from kenpin.edge_runtime.source import SourceUrl
from kenpin.edge_runtime.systemd_units import MARK, TARGET, Installation, make_units
from kenpin.errors import ConfigError
from kenpin.station_folder import owner_name
from kenpin.synced_file import replace_synced

_UNITS = Path("/etc/systemd/system")
_HOMES = ("/home", "/root", "/run/user")
# Since JetPack 6, CUDA on a Jetson opens what is below nvgpu, and host1x-fence.
_GPU = ("nvidia*", "nvhost-*", "nvmap", "nvgpu/*/*", "host1x-fence", "nvsciipc", "dri/*")
_CAMERAS = ("video*", "media*", "gpiochip*", "bus/usb/*/*")
_folder = click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=_UNITS, show_default=True, help="Of the units."
)


@click.group()
def service() -> None:
    """Run a station by systemd: started at boot, watched, started again."""


@service.command()
@options.config
@click.option("--user", default="", help="Who runs it; must own the station's folder.  [default: this user]")
@_folder
@click.option("--dry-run", is_flag=True, help="Print the units and write nothing.")
def install(config_path: Path, user: str, folder: Path, *, dry_run: bool) -> None:
    """Write the units; starts nothing."""
    config = load_config(config_path)
    units = make_units(_installation(config, config_path, user))
    if dry_run:
        for name, text in units.items():
            click.echo(f"==> {name}\n{text}")
        return
    _check_ours(folder, units.keys())
    try:
        for name, text in units.items():
            replace_synced(folder / name, text.encode())
    except OSError as error:
        raise ConfigError(
            f"the units cannot be written: {error.strerror}", where=folder, cure="run this with sudo"
        ) from None
    click.echo(
        f"written to {folder}: {', '.join(units)}\n"
        f"next: sudo systemctl daemon-reload && sudo systemctl enable --now {TARGET}\n"
        "then: kenpin doctor --config FILE; journalctl -u 'kenpin-*' -f",
        err=True,
    )


@service.command()
@_folder
def uninstall(folder: Path) -> None:
    """Remove the units that install wrote; the station's folder stays."""
    # `systemctl edit` and `enable` make folders beside them.
    found = [path for path in sorted(folder.glob("kenpin*")) if path.is_file()]
    names = [path.name for path in found if path.read_text(errors="replace").startswith(MARK)]
    try:
        for name in names:
            (folder / name).unlink()
    except OSError as error:
        raise ConfigError(
            f"the units cannot be removed: {error.strerror}", where=folder, cure="run this with sudo"
        ) from None
    click.echo(f"removed: {', '.join(names) or 'nothing'}\nnext: sudo systemctl daemon-reload", err=True)


def device_nodes(root: Path = Path("/dev")) -> list[str]:
    """The nodes of GPU and cameras that are there."""
    return [str(node) for name in (*_GPU, *_CAMERAS) for node in sorted(root.glob(name))]


def _installation(config: StationConfig, config_path: Path, user: str) -> Installation:
    program = shutil.which("kenpin", path=str(Path(sys.executable).parent)) or shutil.which("kenpin")
    if program is None:
        raise ConfigError("the program kenpin is not found", where=sys.prefix, cure="pip install kenpin there")
    state = config.station.state_dir
    user = user or getpass.getuser()
    _check_user(user, state)
    _check_whole(config, config_path)
    _check_seen(config, config_path, program)
    _check_names(program, config_path.resolve(), state, config.output.log or "")
    plc, _ = host_port(config.output.modbus)
    return Installation(
        kenpin=Path(program),
        config=config_path.resolve(),
        state=state,
        log=config.output.log,
        user=user,
        roles=config.roles,
        devices=device_nodes(),
        network_cameras=any(url.startswith(("rtsp:", "aravis:", "pylon:")) for url in config.source.urls),
        csi_cameras=any(url.startswith("csi:") for url in config.source.urls),
        lan_output=config.source.trigger.startswith("mqtt:") or (plc != "" and not is_loopback(plc)),
        page=_page(config),
    )


def _named(config: StationConfig) -> Mapping[str, Sequence[Path | None]]:
    mqtt, web = config.mqtt, config.web
    return {
        "state_dir": [config.station.state_dir],
        "trusted_keys": config.station.trusted_keys,
        "a file of [source]": [path for url in config.source.urls for path in SourceUrl.parse(url).files],
        "a file of [mqtt]": [mqtt.password_file, mqtt.ca_file, mqtt.cert_file, mqtt.key_file],
        "a file of [web]": [web.tls_cert_file, web.tls_key_file],
        "log of [output]": [config.output.log],
        "keys of [commands]": [config.commands.keys],
    }


def _is_at_home(path: Path) -> bool:
    return any(path.is_relative_to(home) for home in _HOMES)


def _check_seen(config: StationConfig, config_path: Path, program: str) -> None:
    """Units do not see the home folders: `ProtectHome=`."""
    for name, paths in {"the configuration": [config_path], **_named(config)}.items():
        for path in paths:
            if path is not None and _is_at_home(path.resolve()):
                raise ConfigError(
                    f"{name} lies in a home folder, which the units do not see",
                    where=path,
                    cure="put it elsewhere, as below /etc/kenpin or /var/lib/kenpin",
                )
    # The environment's Python is a link to another place, which must be seen too.
    for needed in (Path(program).absolute(), Path(sys.executable).resolve()):
        if _is_at_home(needed):
            click.echo(
                f"warning: {needed} lies in a home folder, which the units do not see: they will not start "
                "(203/EXEC). Make the environment elsewhere, as in /opt/kenpin, and install from there.",
                err=True,
            )


def _check_user(user: str, state: Path) -> None:
    """Units of somebody who is not there, or may not write, would be started again and again for ever."""
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        cure = f"sudo useradd --system {user}, as docs/service.md has it, or give another --user"
        raise ConfigError(f"there is no user {user} here", where="--user", cure=cure) from None
    if state.exists() and (owner := state.stat().st_uid) != uid:
        raise ConfigError(
            f"the station's folder belongs to {owner_name(owner)}, so {user} cannot run the station",
            where=state,
            cure=f"give --user {owner_name(owner)}, or let {user} own it: "
            f"sudo chown -R {user}: {quote(str(state))}",
        )


def _check_whole(config: StationConfig, config_path: Path) -> None:
    for name, paths in _named(config).items():
        for path in paths:
            if path is not None and not path.is_absolute():
                raise ConfigError(
                    f"{name} is not an absolute path: {path}",
                    where=config_path,
                    cure="write the whole path: systemd starts the station elsewhere",
                )


def _check_names(*paths: str | Path) -> None:
    """In a unit a space ends a path, and %, $, quotes and backslashes mean something else."""
    for path in paths:
        if re.search(r"""[\s%$"'\\;]""", str(path)):
            raise ConfigError(
                "systemd would read this path otherwise than it is written",
                where=path,
                cure="take names without spaces and without any of % $ ; \" ' \\",
            )


def _page(config: StationConfig) -> Literal["", "local", "network"]:
    """The page, where what it needs is installed."""
    if find_spec("fastapi") is None:
        return ""
    return "local" if is_loopback(config.web.host) else "network"


def _check_ours(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        path = folder / name
        if path.exists() and os.access(path, os.R_OK) and not path.read_text().startswith(MARK):
            raise ConfigError(
                "this unit was written by somebody else", where=path, cure="move it away, then install again"
            )
