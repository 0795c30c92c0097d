"""The MQTT connection of a Sparkplug edge node: a client of its own, as it needs a last will of its own.

The callbacks of paho only put signals into a queue. MQTT 3.1.1, which every host's broker speaks.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeAlias

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.link import end_thread, hang_up, revive, set_pauses
from kenpin.edge_runtime.sparkplug_session import EdgeNode, Message, encode_death, next_bd_seq
from kenpin.events import now_ms

_LONGEST = 4096  # of what is longer, no more than the beginning is looked at
_WAITING = 256  # commands beyond are dropped, so that a flood of them does not fill the memory
_GOODBYE_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """How long the edge node waits, in seconds.

    Attributes:
        keepalive_s: Silence after which the broker is probed.
        reconnect_s: Shortest and longest pause before a new connection; both vary by half.
        rebirth_s: Shortest time between two births that hosts ask for.
    """

    keepalive_s: int = 15
    reconnect_s: tuple[float, float] = (1.0, 30.0)
    rebirth_s: float = 1.0


@dataclass(frozen=True)
class Up:
    """The broker accepted the connection.

    Attributes:
        connection: Its number, as in `SparkplugLink.connection`.
        bd_seq: As in its last will.
    """

    connection: int
    bd_seq: int


@dataclass(frozen=True)
class Subscribed:
    """The broker answered the subscription.

    Attributes:
        refused: How many of its topics the broker refused.
    """

    refused: int


@dataclass(frozen=True)
class Down:
    """There is no connection, and not because this side has left.

    Attributes:
        reason: Why, in words.
    """

    reason: str


@dataclass(frozen=True)
class Heard:
    """A message came.

    Attributes:
        topic: The whole topic.
        body: The payload.
        is_retained: Whether the broker had kept it.
    """

    topic: str
    body: bytes
    is_retained: bool


LinkSignal: TypeAlias = Up | Subscribed | Down | Heard


class SparkplugLink:
    """A connection that comes back by itself, with the next `bdSeq` in its last will each time.

    Args:
        broker: Where to connect; its client id must be another one than the publisher's.
        node: Whose NDEATH is the last will.
        signals: Where everything that happens is put.
        timing: How long it waits for what.

    Attributes:
        connection: Changes with every connection made and lost.
        dropped: Commands that were too many to be looked at.
    """

    def __init__(
        self, broker: BrokerAddress, node: EdgeNode, signals: SimpleQueue[Any], timing: Timing
    ) -> None:
        self._broker = broker
        self._node = node
        self._signals = signals
        self._timing = timing
        self._bd_seq = -1  # the first CONNECT carries 0
        self._is_down = threading.Event()
        self._is_down.set()
        self.connection = 0
        self.dropped = 0

    def open(self) -> None:
        """Start connecting, in a thread of paho; the broker may be absent."""
        client = self._broker.client()
        client.max_inflight_messages = 0
        set_pauses(client, *self._timing.reconnect_s)
        self._listen(client)
        client.connect_async(self._broker.host, self._broker.port, self._timing.keepalive_s)
        client.loop_start()
        self._client = client

    def subscribe(self, topics: list[str]) -> None:
        """Ask for topics with QoS 1; `Subscribed` follows."""
        self._client.subscribe([(topic, 1) for topic in topics])

    def publish(self, message: Message) -> bool:
        """Hand a message to the connection, QoS 0 and not retained; whether there was one."""
        info = self._client.publish(message.topic, message.body, qos=0)
        return info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def take_time(self) -> None:
        """Always wait for long before a new attempt, until it is opened anew."""
        long = self._timing.reconnect_s[1]
        set_pauses(self._client, long, long)

    def revive(self) -> bool:
        """Start paho's thread again if it has died; whether it had."""
        return revive(self._client)

    def leave(self, last: Message) -> None:
        """Say the last message with QoS 1, then disconnect and close; it blocks for a few seconds at most."""
        if not self._is_down.is_set():
            with contextlib.suppress(RuntimeError, ValueError):  # the connection broke meanwhile
                self._client.publish(last.topic, last.body, qos=1).wait_for_publish(_GOODBYE_S)
        self._client.disconnect()
        self._is_down.wait(_GOODBYE_S)
        hang_up(self._client)
        end_thread(self._client)
        self._client.reinitialise()  # closes the sockets that paho otherwise leaves to the garbage collector

    def _listen(self, client: Client) -> None:
        client.on_log = _log_caught
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    def _on_socket_open(self, client: Client, *_: Any) -> None:
        # After TCP and TLS stand and just before CONNECT goes out: once per CONNECT, not per attempt.
        self._bd_seq = next_bd_seq(self._bd_seq)
        body = encode_death(self._bd_seq, now_ms=now_ms())
        client.will_set(self._node.topic("NDEATH"), body, qos=1, retain=False)

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, code: ReasonCode, _props: Any) -> None:
        if code.is_failure:
            self._signals.put(Down(str(code)))
            return
        self._is_down.clear()
        self.connection += 1
        self._signals.put(Up(self.connection, self._bd_seq))

    def _on_connect_fail(self, *_: Any) -> None:
        failure = sys.exc_info()[1]
        self._signals.put(Down(self._broker.why(failure)))

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, code: ReasonCode, _props: Any) -> None:
        self.connection += 1
        self._is_down.set()
        if code.is_failure:  # else this side has left
            self._signals.put(Down(str(code)))

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        self._signals.put(Subscribed(sum(code.is_failure for code in codes)))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if "STATE" not in message.topic.split("/")[:2] and self._signals.qsize() > _WAITING:
            self.dropped += 1
            return
        self._signals.put(Heard(message.topic, bytes(message.payload[:_LONGEST]), message.retain))


def _log_caught(_client: Client, _data: Any, _level: int, text: str) -> None:
    """Of what paho has to say, only that a callback of this module failed is news."""
    if text.startswith("Caught exception"):
        _log.error("%s", text)
