"""The site: where a station's cameras and its publisher run. In one process, or each in its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kenpin.config import StationConfig
from kenpin.edge_runtime.announce import Identity, State
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.captured_source import CapturedSource
from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.result_inbox import wake_publisher
from kenpin.edge_runtime.source import FrameSource
from kenpin.edge_runtime.sources import make_source
from kenpin.station_folder import StationFolder


class News(Protocol):
    """Who brings the station's events and its state to the broker."""

    @property
    def acked(self) -> int:
        """Events that the broker acknowledged since the start, as far as this process knows."""
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

    acked = 0

    def __init__(self, folder: StationFolder | None = None) -> None:
        self._folder = folder

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


def in_this_process() -> Site:
    """Cameras and publisher as threads of the station."""
    return Site(_own_cameras, _own_publisher)


def in_own_processes() -> Site:
    """Cameras and publisher as processes of their own, which somebody else starts."""
    return Site(_captured, lambda config, _identity, _counters: NoNews(StationFolder(config.station.state_dir)))


def camera_urls(config: StationConfig) -> tuple[str, ...]:
    """Addresses of all cameras of a station, the leading one first."""
    return (config.source.url, *config.source.views)


def _own_cameras(config: StationConfig, _folder: StationFolder) -> list[FrameSource]:
    return [make_source(url) for url in camera_urls(config)]


def _captured(config: StationConfig, folder: StationFolder) -> list[FrameSource]:
    made = [make_source(url) for url in camera_urls(config)]
    return [CapturedSource(folder.run, k, source) for k, source in enumerate(made)]


def _own_publisher(config: StationConfig, identity: Identity, counters: Callable[[], Snapshot]) -> News:
    if not config.mqtt.url:
        return NoNews()
    broker = BrokerAddress.from_config(config.mqtt, client_id=config.station.id)
    folder = StationFolder(config.station.state_dir)
    return Publisher(Desk(broker, config.station.topic, identity, folder.database, counters))
