"""`kenpin simulate`: a station without a camera, for whoever connects a SCADA."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import click
from pydantic import ValidationError

from kenpin.config import MqttSection, StationSection
from kenpin.config_file import load_config
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress, cure_for
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.part_news import PartNews
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.simulate import SimulatedStation
from kenpin.edge_runtime.store import Store
from kenpin.errors import BrokerError, ConfigError, StoreError

_CONNECT_S = 10.0
_DRAIN_S = 30.0
_LAST_EVERY_S = 0.0  # every part shows at camera/<camera>/last


@click.command()
@click.option("--url", help="The broker, mqtt://HOST or mqtts://HOST, without a login.")
@click.option("--topic", help="Topic of the simulated station; its last level is its id.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="Take topic, broker and login from a station's TOML file."
)
@click.option(
    "--pause-s", type=click.FloatRange(0, 60), default=0.2, show_default=True, help="After each step."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kenpin-simulated"),
    show_default=True,
    help="Folder for its events, so that their numbers go on the next time.",
)
def simulate(url: str | None, topic: str | None, config: Path | None, pause_s: float, state: Path) -> None:
    """Publish every topic, every event and every state of every alarm, flagged as a test.

    Use a topic of its own: two stations of one id push each other off the broker. It takes no commands.
    """
    station, mqtt = _sections(url, topic, config)
    broker = BrokerAddress.from_config(mqtt, client_id=station.id)
    identity = Identity(station.id, test=True)
    news = PartNews(identity, "all", last_every_s=_LAST_EVERY_S)
    with closing(Store(_database(state), news=news)) as store:
        publisher = Publisher(Desk(broker, station.topic, identity, store.path, Counters().snapshot))
        publisher.start()
        try:
            _wait_for_connection(publisher, broker)
            _say(SimulatedStation(store, identity, publisher.set_state).walk(), publisher, pause_s)
        finally:
            publisher.stop(reason="shutdown", drain_s=_DRAIN_S)
        left = store.depth().waiting
    if left:
        raise BrokerError(f"events still wait: {left}", where=broker, cure="check the broker, and start again")


def _say(steps: Iterable[str], publisher: Publisher, pause_s: float) -> None:
    for said in steps:
        publisher.wake()
        click.echo(said, err=True)
        time.sleep(pause_s)


def _sections(url: str | None, topic: str | None, config: Path | None) -> tuple[StationSection, MqttSection]:
    if config is not None and not (url or topic):
        loaded = load_config(config)
        station, mqtt = loaded.station, loaded.mqtt
    elif url and topic and config is None:
        station, mqtt = _checked(url, topic)
    else:
        raise ConfigError("no broker, or two", cure="give either --url and --topic, or --config")
    if not mqtt.url:
        raise ConfigError("the configuration names no broker", where=config or "", cure="set mqtt.url")
    return station, mqtt


def _checked(url: str, topic: str) -> tuple[StationSection, MqttSection]:
    try:
        return StationSection(topic=topic), MqttSection(url=url, insecure=True)  # nothing in it is a secret
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(what, where=f"--url {url} --topic {topic}", cure="correct the option") from None


def _database(state: Path) -> Path:
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder: {error.strerror}", where=state, cure="give --state"
        ) from None
    return state / "simulation.db"


def _wait_for_connection(publisher: Publisher, broker: BrokerAddress) -> None:
    by_s = time.monotonic() + _CONNECT_S
    while not publisher.traffic.connections:
        if publisher.is_denied or time.monotonic() > by_s:
            why = publisher.why_away
            what = f"no connection to the broker: {why or 'it does not answer'}"
            raise BrokerError(what, where=broker, cure=f"{cure_for(why)}; its files go into --config")
        time.sleep(0.05)
