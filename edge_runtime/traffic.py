"""What the publisher counts, and what the broker's answers say of its events."""

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
        refused: Topics whose last event the broker refused; one for all replies.
        unread: Topics whose last event nobody subscribes to, replies aside (only MQTT 5 brokers tell).
    """

    acked: int = 0
    rejected: int = 0
    no_subscriber: int = 0
    connections: int = 0
    refused: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
