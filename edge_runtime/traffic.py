"""What the publisher counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Traffic:
    """What was counted since the start.

    Attributes:
        acked: Events that the broker acknowledged.
        rejected: Events that it refused; they are sent again.
        no_subscriber: Events that nobody subscribes to (only MQTT 5 brokers tell).
        connections: Connections that the broker accepted.
    """

    acked: int = 0
    rejected: int = 0
    no_subscriber: int = 0
    connections: int = 0
