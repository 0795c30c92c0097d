"""The site: where a station's cameras and its publisher run. In one process, or each in its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kenpin import __version__
from kenpin.config import StationConfig
from kenpin.edge_runtime import home_assistant
from kenpin.edge_runtime.announce import Identity, State
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.captured_source import CapturedSource
from kenpin.edge_runtime.commander import Commander, Order
from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.remote_threshold import Reach
from kenpin.edge_runtime.result_inbox import wake_publisher
from kenpin.edge_runtime.source import FrameSource
from kenpin.edge_runtime.sources import make_sources
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.station_folder import StationFolder


class News(Protocol):
    """Who brings the station's events and its state to the broker."""

    @property
    def is_unstable(self) -> bool:
        """Whether the broker drops the connection again and again."""
        ...

    @property
    def is_denied(self) -> bool | None:
        """Whether the broker refuses the station, or some of what it says; `None` = it cannot be told."""
        ...

    @property
    def damaged_file(self) -> tuple[int, int] | None:
        """Which file of the database was found damaged when it was read; `None` = all is well."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    def set_state(self, state: State, reason: str = "") -> None:
        """Say how the station is."""
        ...

    def wake(self) -> None:
        """Say that an event waits in the outbox."""
        ...

    def stop(self, *, reason: str, drain_s: float) -> None:
        """Say goodbye."""
        ...


@dataclass(frozen=True)
class Site:
    """Makes what a station works with.

    Attributes:
        cameras: The cameras, not opened yet.
        news: Who publishes.
    """

    cameras: Callable[[StationConfig, StationFolder], list[FrameSource]]
    news: Callable[[StationConfig, Identity, Callable[[], Snapshot]], News]


class NoNews:
    """Events stay in the store: there is no broker, or a process of its own reads them there."""

    def __init__(self, folder: StationFolder | None = None) -> None:
        self._folder = folder

    @property
    def is_unstable(self) -> bool:
        """What the publisher's process tells, where there is one."""
        return bool(self._told("broker_unstable"))

    @property
    def is_denied(self) -> bool | None:
        """The same; without a broker, nobody refuses anything."""
        told = self._told("broker_denied")
        return None if told is None else bool(told)

    @property
    def damaged_file(self) -> tuple[int, int] | None:
        """The same."""
        publisher = read_vitals(self._folder.run).get("publisher") if self._folder is not None else None
        device, _, inode = publisher.texts.get("damaged_file", "").partition(":") if publisher else ("", "", "")
        return (int(device), int(inode)) if device else None

    def start(self) -> None:
        """Nothing to begin."""

    def set_state(self, state: State, reason: str = "") -> None:
        """The vitals tell it."""

    def wake(self) -> None:
        """Wake the publisher's process, where there is one."""
        if self._folder is not None:
            wake_publisher(self._folder.run)

    def stop(self, *, reason: str, drain_s: float) -> None:
        """Nothing to end."""

    def _told(self, number: str) -> float | None:
        if self._folder is None:
            return 0.0
        publisher = read_vitals(self._folder.run).get("publisher")
        return None if publisher is None else publisher.numbers.get(number)


def in_this_process() -> Site:
    """Cameras and publisher as threads of the station."""
    return Site(_own_cameras, _own_publisher)


def in_own_processes() -> Site:
    """Cameras and publisher as processes of their own, which somebody else starts."""
    return Site(_captured, _published_elsewhere)


def _own_cameras(config: StationConfig, _folder: StationFolder) -> list[FrameSource]:
    return make_sources(config.source.urls)


def _captured(config: StationConfig, folder: StationFolder) -> list[FrameSource]:
    made = make_sources(config.source.urls)
    return [CapturedSource(folder.run, k, source) for k, source in enumerate(made)]


def make_publisher(config: StationConfig, identity: Identity, counters: Callable[[], Snapshot]) -> Publisher:
    """The publisher of a station, and behind it the commander where commands are allowed.

    Raises:
        ConfigError: The broker's address, or a file that is named, cannot be used.
        StoreError: The database cannot be opened.
    """
    broker = BrokerAddress.from_config(config.mqtt, client_id=config.station.id)
    folder = StationFolder(config.station.state_dir)
    commander: Commander | None = None
    if config.commands.keys is not None:
        reach = Reach(config.commands.threshold_step, two_persons=config.web.second_person)
        allowed = reach if config.commands.remote_write else None
        order = Order(
            folder,
            identity,
            config.commands.keys,
            allowed,
            lambda: made.look_back(),  # noqa: PLW0108 made below
            lambda: made.tell_again(),  # noqa: PLW0108
        )
        commander = Commander(order)
    topic, pace = config.station.topic, config.mqtt.backlog_per_s
    made = Publisher(
        Desk(broker, topic, identity, folder.database, counters, commander, pace, _discovery(config))
    )
    return made


def _discovery(config: StationConfig) -> tuple[str, bytes] | None:
    if not config.homeassistant.enabled:
        return None
    body = home_assistant.discovery(config.station.topic, sw_version=__version__)
    return home_assistant.discovery_topic(config.station.id), body


def _published_elsewhere(config: StationConfig, _identity: Identity, _counters: object) -> News:
    return NoNews(StationFolder(config.station.state_dir) if config.mqtt.url else None)


def _own_publisher(config: StationConfig, identity: Identity, counters: Callable[[], Snapshot]) -> News:
    return make_publisher(config, identity, counters) if config.mqtt.url else NoNews()
