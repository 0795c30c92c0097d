"""`kenpin mqtt`: certificates, and rules for a broker that lets nobody in whom it does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

import click

from kenpin.edge_runtime.broker_templates import (
    ACL,
    ANY_LINE,
    BROKER,
    HOME_ASSISTANT,
    PORT,
    SCADA,
    acl,
    mosquitto_conf,
)
from kenpin.edge_runtime.pki import AUTHORITY, Authority, Credentials, Lifetime, write_new
from kenpin.errors import ConfigError

_CONF = "mosquitto.conf"
_AUTHORITY_DAYS = 3650
_days = click.option(
    "--days",
    type=click.IntRange(1, _AUTHORITY_DAYS),
    default=825,
    show_default=True,
    help="Until the certificates of broker and clients end.",
)


@click.group()
def mqtt() -> None:
    """Make certificates and access rules for the MQTT broker."""


@mqtt.command("init-pki")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option(
    "--station", "stations", multiple=True, required=True, help="Its id, the last level of its topic; repeat."
)
@click.option("--host", "hosts", multiple=True, required=True, help="Name or address of the broker; repeat.")
@click.option("--prefix", default=ANY_LINE, show_default=True, help="Topic levels above a station; + is any.")
@click.option(
    "--broker-dir",
    type=click.Path(path_type=Path),
    help="Where its files will be on the broker's machine.  [default: OUT/broker]",
)
@click.option(
    "--home-assistant",
    is_flag=True,
    help="Let stations make themselves known to Home Assistant, and it read them.",
)
@_days
def init_pki(  # noqa: PLR0913, PLR0917 - one argument per option
    out: Path,
    stations: Sequence[str],
    hosts: Sequence[str],
    prefix: str,
    broker_dir: Path | None,
    home_assistant: bool,
    days: int,
) -> None:
    """Make an authority, certificates for the broker, the stations and SCADA, and mosquitto's files.

    One folder for each who gets something; the authority's key stays. Nothing is overwritten.
    """
    others = (SCADA, HOME_ASSISTANT) if home_assistant else (SCADA,)
    _check_names(stations, others)
    broker_dir = (broker_dir or out / BROKER).absolute()
    authority, lifetime = Authority.create(Lifetime.of_days(_AUTHORITY_DAYS)), Lifetime.of_days(days)
    broker = authority.issue_broker(hosts, lifetime)
    clients = {name: authority.issue_client(name, lifetime) for name in (*stations, *others)}
    rules = acl(prefix, home_assistant=home_assistant)
    _make_folder(out)
    authority.own.save(out, AUTHORITY)
    _make_folder(out / BROKER)
    _hand_out(authority, broker, out / BROKER, BROKER)
    write_new(out / BROKER / _CONF, mosquitto_conf(broker_dir).encode())
    write_new(out / BROKER / ACL, rules.encode())
    _save_clients(authority, clients, out)
    click.echo(_what_is_where(out) + _next_steps(out, broker_dir, hosts[0], stations[0]), err=True)


@mqtt.command()
@click.option("--pki", type=click.Path(path_type=Path), required=True, help="Folder of init-pki.")
@click.option("--client", "names", multiple=True, help="A station's id, or scada; repeat.")
@click.option("--host", "hosts", multiple=True, help="For the broker: its names and addresses; repeat.")
@_days
def issue(pki: Path, names: Sequence[str], hosts: Sequence[str], days: int) -> None:
    """Make certificates for more stations, or new ones before the old end.

    Nothing is overwritten: move a client's folder, or the broker's broker.pem and broker.key, away first.
    """
    if not names and not hosts:
        raise ConfigError("nothing to make a certificate for", cure="give --client NAME or --host NAME")
    authority, lifetime = Authority.load(pki), Lifetime.of_days(days)
    broker = authority.issue_broker(hosts, lifetime) if hosts else None
    clients = {name: authority.issue_client(name, lifetime) for name in names}
    if broker is not None:
        broker.save(pki / BROKER, BROKER)
    _save_clients(authority, clients, pki)
    made = [pki / "clients" / name for name in names] + ([pki / BROKER] if broker else [])
    click.echo("made: " + ", ".join(map(str, made)), err=True)


def _check_names(stations: Sequence[str], others: Sequence[str]) -> None:
    for name in stations:
        if name in others:
            raise ConfigError(
                f"no station can be called {name}: that name has other rights", cure="rename the station"
            )
        if HOME_ASSISTANT in others and "." in name:
            raise ConfigError(
                f"Home Assistant takes no dot in a topic, so the rules do not fit the station {name}",
                cure="rename the station, or leave --home-assistant out and write the rules by hand",
            )


def _save_clients(authority: Authority, clients: Mapping[str, Credentials], out: Path) -> None:
    for name, credentials in clients.items():
        _make_folder(out / "clients" / name)
        _hand_out(authority, credentials, out / "clients" / name, name)


def _hand_out(authority: Authority, credentials: Credentials, folder: Path, name: str) -> None:
    """All that one side needs, and no more: its own files and the authority's certificate."""
    credentials.save(folder, name)
    write_new(folder / f"{AUTHORITY}.pem", authority.own.certificate_pem)


def _make_folder(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise ConfigError(
            "the folder exists, and nothing is overwritten",
            where=folder,
            cure="choose another, or move it away",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder: {error.strerror}", where=folder, cure="choose a place that you may write"
        ) from None


def _what_is_where(out: Path) -> str:
    return f"""{out}/{AUTHORITY}.key: who has it can be any station: keep it here, with a copy in a safe place
{out}/{BROKER}: for the broker
{out}/clients: for each station a folder; {SCADA} is for SCADA, which reads everything and commands
"""


def _next_steps(out: Path, broker_dir: Path, host: str, station: str) -> str:
    url_host = f"[{host}]" if ":" in host else host
    return f"""1. start the broker
{_broker_steps(out, broker_dir)}
2. copy {out}/clients/{station} to /etc/kenpin/mqtt on {station}
   let the user that runs the station own the files, mode 600; in station.toml, the same for the others:
   [station]
   topic = "..."   # its last level must be {station}
   [mqtt]
   url = "mqtts://{url_host}:{PORT}"
   ca_file = "/etc/kenpin/mqtt/{AUTHORITY}.pem"
   cert_file = "/etc/kenpin/mqtt/{station}.pem"
   key_file = "/etc/kenpin/mqtt/{station}.key"
3. kenpin doctor --config station.toml"""


def _broker_steps(out: Path, broker_dir: Path) -> str:
    if broker_dir == out.absolute() / BROKER:
        return f"""   mosquitto -c {quote(str(broker_dir / _CONF))}
   (to try it as this user; for a service, make it all with --broker-dir /etc/mosquitto/kenpin)"""
    there = quote(str(broker_dir))
    return f"""   sudo install -d -o mosquitto -m 700 {there}
   sudo install -o mosquitto -m 600 {quote(str(out / BROKER))}/* {there}
   sudo ln -s {quote(str(broker_dir / _CONF))} /etc/mosquitto/conf.d/kenpin.conf
   sudo systemctl restart mosquitto"""
