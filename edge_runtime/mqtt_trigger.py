"""Triggers over MQTT: the one thing beside the publisher that speaks to the broker, on its own connection.

A network is no trigger cable: how late a picture is varies by milliseconds, and a trigger that comes while
the broker is away is lost, which the next one's number tells.
"""

from __future__ import annotations

import logging
import queue
import time
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode

from kenpin.config import StationConfig
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.link import end_thread, revive
from kenpin.edge_runtime.source import Trigger
from kenpin.edge_runtime.trigger_message import read_trigger
from kenpin.errors import ConfigError

_QUEUE = 1024
_KEEPALIVE_S = 15

_log = logging.getLogger(__name__)


class MqttTrigger:
    """Each message is a trigger: a number, or `{"trigger_id": 7, "part_id": "A-7"}`.

    Args:
        config: The station's configuration.
        topic: What to subscribe to; the whole topic.

    Attributes:
        refused: Messages that were none, or retained ones: those are of a part that has passed.
        trouble: Why none can come now, in words; empty while they can.

    Raises:
        ConfigError: There is no broker, or its address or a file of it cannot be used.
    """

    def __init__(self, config: StationConfig, topic: str) -> None:
        if not config.mqtt.url:
            raise ConfigError(
                "triggers by MQTT need a broker", where="[source] trigger", cure="add url to [mqtt]"
            )
        broker = BrokerAddress.from_config(config.mqtt, client_id=f"{config.station.id}-trigger")
        self.refused = 0
        self.trouble = "the broker was not reached yet"
        self._topic = topic
        self._queue: queue.Queue[Trigger] = queue.Queue(_QUEUE)
        client = broker.client()
        client.reconnect_delay_set(1, 10)
        client.on_connect = self._subscribe
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._lose
        client.on_message = self._take
        client.connect_async(broker.host, broker.port, _KEEPALIVE_S)
        client.loop_start()
        self._client = client

    def wait(self, deadline_s: float) -> Trigger | None:
        """Wait for the next trigger."""
        if revive(self._client):  # or nothing would be heard any more
            _log.warning("The network thread of the trigger had died and was started again.")
        try:
            return self._queue.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the connection."""
        self._client.disconnect()
        end_thread(self._client)

    def _subscribe(self, client: Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if code.is_failure:
            self.trouble = f"the broker refuses the station: {code}"
        else:
            client.subscribe(self._topic, qos=0)

    def _subscribed(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        is_refused = any(code.is_failure for code in codes)
        self.trouble = f"the broker does not let the station read {self._topic}" if is_refused else ""

    def _lose(self, *_: Any) -> None:
        self.trouble = self.trouble or "the connection to the broker is lost"

    def _take(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        trigger = None if message.retain else read_trigger(bytes(message.payload))
        if trigger is not None and not self._queue.full():
            self._queue.put(trigger)
            return
        self.refused += 1
        if self.refused == 1:
            kept = "the broker kept it, and its part has passed"
            why, told = kept if message.retain else "no number, or too many wait", message.payload[:80]
            _log.warning("A message on %s is no trigger: %s, %r. Such are ignored.", self._topic, why, told)
