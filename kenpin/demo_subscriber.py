"""An independent reader of what a station publishes: plain paho, none of the station's code."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from kenpin.errors import BrokerError, reason_of

_TIMEOUT_S = 10.0


class Subscriber:
    """Collects the events of one station while the block lasts.

    Attributes:
        received_ns: When each event came first, UTC in nanoseconds, by event id.
        duplicates: How often an event came again.

    Args:
        url: Address of the broker.
        topic: The station's topic.

    Raises:
        BrokerError: The broker does not accept the subscription.
    """

    def __init__(self, url: str, topic: str) -> None:
        self.received_ns: dict[str, int] = {}
        self.duplicates = 0
        self._parts = urlsplit(url)
        self._topic = f"{topic}/event/anomaly"
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        # What is not an event of a station does not count, and must not end the thread.
        self._client.suppress_exceptions = True
        if self._parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> Subscriber:
        tls = self._parts.scheme == "mqtts"
        host, port = self._parts.hostname or "", self._parts.port or (8883 if tls else 1883)
        try:
            self._client.connect(host, port)
        except OSError as error:
            raise BrokerError(
                f"the subscriber cannot connect: {reason_of(error)}",
                where=f"{host}:{port}",
                cure="check the broker",
            ) from None
        self._client.loop_start()
        if not self._subscribed.wait(_TIMEOUT_S):
            self.__exit__()
            raise BrokerError(
                "the broker does not accept the subscription",
                where=self._topic,
                cure="allow anonymous clients, or leave --broker away",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, ids: Collection[str], timeout_s: float = _TIMEOUT_S) -> None:
        """Wait until all these events have come, or the time is up."""
        end = time.monotonic() + timeout_s
        while not self.received_ns.keys() >= set(ids) and time.monotonic() < end:
            time.sleep(0.05)

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)

    def _on_subscribe(self, client: Client, userdata: object, mid: int, reasons: list[Any], *_: Any) -> None:
        if not any(reason.is_failure for reason in reasons):
            self._subscribed.set()

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        now_ns = time.time_ns()
        event_id = json.loads(message.payload)["id"]
        if event_id in self.received_ns:
            self.duplicates += 1
        else:
            self.received_ns[event_id] = now_ns
