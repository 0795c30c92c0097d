"""What a link tells: all that happens to it, and all that comes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Up:
    """The broker accepted the connection.

    Attributes:
        connection: Its number, as in `Link.connection`.
        receive_maximum: Unacknowledged messages that the broker takes at a time.
    """

    connection: int
    receive_maximum: int


@dataclass(frozen=True)
class Down:
    """There is no connection.

    Attributes:
        reason: Why, in words.
        version_refused: The broker does not speak this version of MQTT.
        version_doubtful: It answered CONNECT with nothing at all, as some do that do not speak it.
        denied: It does not let the station in: a wrong login, a certificate that it does not take, a ban.
    """

    reason: str
    version_refused: bool = False
    version_doubtful: bool = False
    denied: bool = False


@dataclass(frozen=True)
class Acked:
    """The broker answered a message.

    Attributes:
        mid: The message.
        code: Reason code of MQTT 5; from 0x80 on it was refused.
        reason: The same in words.
    """

    mid: int
    code: int
    reason: str


@dataclass(frozen=True)
class Incoming:
    """Somebody published where the station listens.

    Attributes:
        topic: The whole topic.
        body: The payload, as it came; of one over 64 KiB its beginning.
        retained: Whether the broker had kept it.
    """

    topic: str
    body: bytes
    retained: bool


@dataclass(frozen=True)
class Deaf:
    """The broker does not let the station listen.

    Attributes:
        reason: Why, in words.
    """

    reason: str


Signal: TypeAlias = Up | Down | Acked | Incoming | Deaf
