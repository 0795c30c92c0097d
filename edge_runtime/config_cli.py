"""`kenpin config`: check a station's configuration, write its schema for editors."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import click

from kenpin.config import StationConfig
from kenpin.config_file import load_config
from kenpin.counted import counted
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.camera_source import login
from kenpin.edge_runtime.certificate import RENEW_DAYS, days_left, load_pair
from kenpin.edge_runtime.command_key import load_keys
from kenpin.edge_runtime.outputs import check_outputs
from kenpin.edge_runtime.own_ports import check_ports
from kenpin.edge_runtime.source import SourceUrl, without_login
from kenpin.edge_runtime.sources import check_address
from kenpin.edge_runtime.sparkplug_feed import SparkplugFeed
from kenpin.edge_runtime.trigger_input import check_trigger
from kenpin.errors import ConfigError, SourceError
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder


@click.group()
def config() -> None:
    """Check a station's configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Read a station.toml and say what is wrong with it, and with the keys and certificates that it names.

    Run it as the station's user, who must be able to read them. No camera and no connection is opened.
    """
    loaded = load_config(file)
    for url in loaded.source.urls:
        check_address(url)
    check_trigger(loaded, has_modbus=bool(loaded.output.modbus))
    check_outputs(loaded.output)
    check_ports(loaded)
    for path in loaded.station.trusted_keys:
        PublicKey.load(path)
    warnings = [*_missing(loaded), *_check_secrets(loaded)]
    if loaded.sparkplug.enabled:
        SparkplugFeed.from_config(loaded, StationFolder(loaded.station.state_dir))
    click.echo(f"{file}: correct", err=True)
    click.echo(f"  station {loaded.station.id}, folder {loaded.station.state_dir.absolute()}", err=True)
    click.echo(f"  frames from {', '.join(map(without_login, loaded.source.urls))}", err=True)
    click.echo(f"  events to {loaded.mqtt.url or 'no broker, the store only'}", err=True)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)


def _missing(loaded: StationConfig) -> list[str]:
    """Which folders and files no frame can come from yet, in words; a drive may be mounted later."""
    found = []
    for url in map(SourceUrl.parse, loaded.source.urls):
        try:
            url.check_there()
        except SourceError as error:
            found.append(f"{error.what}: {error.where}")
    return found


def _check_secrets(loaded: StationConfig) -> list[str]:
    """Look whether what is named can be used; which certificates end soon, in words."""
    mqtt, web, commands = loaded.mqtt, loaded.web, loaded.commands
    renew = f"make a new one: kenpin mqtt issue --client {loaded.station.id}"
    certificates: list[tuple[Path | None, str]] = [(web.tls_cert_file, "make a new one, and its key")]
    if mqtt.url:
        certificates += [(mqtt.cert_file, renew), (mqtt.ca_file, "get the new one of who signed the broker's")]
    found = [(path, days_left(path, cure)) for path, cure in certificates if path is not None]
    if web.tls_cert_file is not None and web.tls_key_file is not None:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), web.tls_cert_file, web.tls_key_file)
    if mqtt.url:
        BrokerAddress.from_config(mqtt, client_id=loaded.station.id)
    for url in map(SourceUrl.parse, loaded.source.urls):
        try:
            login(url)
        except SourceError as error:  # what a station that runs waits for is wrong here
            raise ConfigError(error.what, where=error.where, cure=error.cure) from None
    if commands.keys is not None:
        load_keys(commands.keys)
    return [f"{path} ends in {counted(days, 'day')}" for path, days in found if days < RENEW_DAYS]


@config.command()
def schema() -> None:
    """Print the JSON Schema of station.toml."""
    click.echo(json.dumps(StationConfig.model_json_schema(), indent=2))
