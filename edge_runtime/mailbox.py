"""A subscriber's connection: paho behind callbacks that only enqueue, and acknowledgements by hand.

It speaks MQTT 3.1.1, which every broker knows. A broker sends only so many messages without an acknowledgement
(mosquitto: 20), so they do not pile up here; of those that want none, and no station sends such, a thousand may
wait.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode

from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.link import end_thread, revive
from kenpin.errors import BrokerError

_SUBSCRIBED_S = 10.0
_KEEPALIVE_S = 15
_MAX_WAITING = 1000
_UNAVAILABLE = 136  # a broker that starts or is full, and will take us later; all other refusals stay

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Letter:
    """A message that arrived.

    Attributes:
        connection: Number of the connection that it came through.
        mid: Its number on that connection.
        qos: 0 or 1.
        topic: The whole topic.
        body: The payload, as it came.
    """

    connection: int
    mid: int
    qos: int
    topic: str
    body: bytes


class Mailbox:
    """What arrives for a client; the connection comes back by itself.

    Args:
        broker: Where to connect, and as whom.
        filters: Topics to subscribe to, QoS 1.
        is_kept: Whether the broker keeps messages while there is no connection.

    Attributes:
        dropped: Messages with QoS 0 that came while too many waited.
    """

    def __init__(self, broker: BrokerAddress, filters: tuple[str, ...], *, is_kept: bool) -> None:
        self.dropped = 0
        self._broker = broker
        self._filters = [(topic, 1) for topic in filters]
        self._letters: queue.SimpleQueue[Letter] = queue.SimpleQueue()
        self._connection = 0
        self._answered = threading.Event()
        self._refusal = ""
        self._client = self._make_client(is_kept=is_kept)

    def open(self) -> None:
        """Connect and subscribe.

        Raises:
            BrokerError: The broker does not answer, or refuses.
        """
        self._client.connect_async(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_S)
        self._client.loop_start()
        is_answered = self._answered.wait(_SUBSCRIBED_S)
        if is_answered and not self._refusal:
            return
        self.close()
        raise self._deaf()

    def close(self) -> None:
        """End the connection."""
        self._client.disconnect()
        end_thread(self._client)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client.is_connected()

    def is_empty(self) -> bool:
        """Whether there is nothing to be taken now."""
        return self._letters.empty()

    def take(self, *, timeout_s: float) -> Letter | None:
        """The next message, `None` where none came in time.

        Raises:
            BrokerError: At a new connection the broker refused the client or its subscription.
        """
        if revive(self._client):  # or nothing would be heard any more
            _log.warning("The network thread of %s had died and was started again.", self._broker.client_id)
        try:
            return self._letters.get(timeout=timeout_s)
        except queue.Empty:
            if self._refusal:
                raise self._deaf() from None
            return None

    def acknowledge(self, letter: Letter) -> None:
        """Tell the broker that a message was dealt with; one of a former connection comes again instead."""
        if letter.connection == self._connection:  # on a new one its number may be another message's
            self._client.ack(letter.mid, letter.qos)

    def post(self, topic: str, body: str) -> None:
        """Publish, where there is a connection; what cannot be sent now is not kept."""
        if self.is_connected:
            self._client.publish(topic, body, qos=1)

    def _deaf(self) -> BrokerError:
        return BrokerError(
            f"the broker does not take the subscription: {self._refusal or 'it does not answer'}",
            where=f"{', '.join(topic for topic, _ in self._filters)} at {self._broker}",
            cure="check the address, the login and what the broker's rules let this client read",
        )

    def _make_client(self, *, is_kept: bool) -> Client:
        client = self._broker.client(clean_session=not is_kept, manual_ack=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: Client, _data: Any, _flags: Any, code: ReasonCode, _props: Any) -> None:
        self._connection += 1
        if code.value == _UNAVAILABLE and self._answered.is_set():
            return
        if code.is_failure:
            self._refusal = str(code)
            self._answered.set()
        else:
            self._refusal = ""
            client.subscribe(self._filters)

    def _on_subscribe(self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _p: Any) -> None:
        self._refusal = next((str(code) for code in codes if code.is_failure), "")
        self._answered.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.qos == 0 and self._letters.qsize() >= _MAX_WAITING:
            self.dropped += 1
            return
        letter = Letter(self._connection, message.mid, message.qos, message.topic, bytes(message.payload))
        self._letters.put(letter)
