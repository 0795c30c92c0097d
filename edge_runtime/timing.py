"""How long the publisher waits for what."""

from __future__ import annotations

from dataclasses import dataclass

from kenpin.edge_runtime.protocol_choice import DAY_S


@dataclass(frozen=True)
class Timing:
    """How long the publisher waits, in seconds.

    Attributes:
        keepalive_s: Silence after which the broker is probed.
        reconnect_s: Shortest and longest pause before a new connection.
        connack_s: A broker that does not answer CONNECT in this time may not know the version of MQTT.
        ack_s: A message that is not acknowledged in this time breaks the connection; longer where the broker
            needs it.
        refused_s: Pause after the broker refused an event; longer each time in a row.
        status_s: Between two status messages.
        kpi_s: Between two kpi messages.
        watch_s: Between two looks at paho's thread, and at events that were thrown away.
        prune_s: Between two removals of old acknowledged events.
        probe_s: How long MQTT 3.1.1 is spoken before 5 is tried again.
    """

    keepalive_s: int = 15
    reconnect_s: tuple[float, float] = (1.0, 30.0)
    connack_s: float = 10.0
    ack_s: float = 10.0
    refused_s: float = 5.0
    status_s: float = 60.0
    kpi_s: float = 10.0
    watch_s: float = 1.0
    prune_s: float = 3600.0
    probe_s: float = DAY_S
