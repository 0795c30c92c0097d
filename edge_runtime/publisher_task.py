"""What others ask of the publisher's thread, and what its link tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.link_signal import Signal


@dataclass(frozen=True)
class Wake:
    """There is something to do."""


@dataclass(frozen=True)
class Tell:
    """A message that is worth something now or never.

    Attributes:
        topic: The whole topic.
        body: The payload.
        by_s: Until when it is to be published, on `time.monotonic()`.
    """

    topic: str
    body: bytes
    by_s: float


@dataclass(frozen=True)
class LookBack:
    """Events that were acknowledged wait once more."""


@dataclass(frozen=True)
class TellAgain:
    """How the station is, and what lets others find it, is to be published once more."""


@dataclass(frozen=True)
class Renew:
    """The broker is to be connected to anew, by other credentials."""

    broker: BrokerAddress


Task: TypeAlias = Signal | Wake | Tell | LookBack | TellAgain | Renew
