"""One MQTT client of paho, tamed: its callbacks only put signals into a queue, it holds nothing back.

paho keeps messages in memory and loses, doubles or reorders them around a reconnection. The publisher behind
the outbox needs none of that, so the link publishes only on a live connection and forgets what paho kept
whenever a connection starts.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from paho.mqtt.client import Client, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.cloud_event import message_properties, will_properties
from kenpin.edge_runtime.link_signal import Acked, Deaf, Down, Incoming, Up
from kenpin.tls_refusal import tls_words

REFUSED = 0x80  # reason codes from here on
_MAX_INCOMING_BYTES = 65536
_MAX_WAITING = 1000  # signals; whoever floods the station's topics must not fill its memory
# Messages; a station carries out 5 commands in a second. A flood fills the connection, and the broker's
# acknowledgements of events wait behind it.
_HEARD_PER_S = 200
_DEAF_S = 60.0  # without listening, after a flood
_SHOWN_S = 2.0  # of listening again, in which a flood that lasts shows itself
_UNSUPPORTED_VERSION = 0x84
# Bad client id, user name or password, not authorized, banned, bad authentication method, no messages retained,
# no QoS 1: no new attempt will change it.
_DENIED = (0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9A, 0x9B)
_TAKEN_OVER = 0x8E
_TOO_LARGE = 0x95
_HEAD_BYTES = 5 + 2 + 2  # of a PUBLISH at most: fixed header, length of the topic, message id
_NO_REASON = 0x80
_NO_ANSWER = "it ended without an answer; is a broker there, and does it want TLS (mqtts://) or none?"
_GOODBYE_S = 0.5
TLS_ALERT = "_ALERT_"  # in what OpenSSL names a refusal by the other side
_NOT_TRUSTED, _CLOCK = "CERTIFICATE_VERIFY_FAILED", "not yet valid"  # by this side

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Will:
    """What the broker publishes when the station vanishes, retained, with QoS 1.

    Attributes:
        topic: The whole topic.
        body: Makes the payload; called for each connection, so that it can carry the time of it.
    """

    topic: str
    body: Callable[[], bytes]


@dataclass(frozen=True)
class Terms:
    """How a link behaves.

    Attributes:
        keepalive_s: Silence after which the broker is probed.
        reconnect_s: Shortest and longest pause before a new attempt; both vary by half, so that a hundred
            stations do not come back in the same instant.
        listen_to: Topic filter to subscribe to; empty = none.
    """

    keepalive_s: int = 15
    reconnect_s: tuple[float, float] = (1.0, 30.0)
    listen_to: str = ""


class Link:
    """A connection that comes back by itself.

    Args:
        broker: Where to connect.
        will: The last will.
        signals: Where everything that happens is put.
        terms: How it behaves.

    Attributes:
        dropped: Incoming messages that were too many to be looked at.
        connection: Changes with every connection made and lost. `Down` and `Up` may still wait in the queue
            when a new connection stands; who compares this number sends nothing on the wrong one.
    """

    def __init__(
        self, broker: BrokerAddress, will: Will, signals: SimpleQueue[Any], terms: Terms | None = None
    ) -> None:
        self._broker = broker
        self._will = will
        self._signals = signals
        self._terms = terms or Terms()
        self._source = will.topic.rpartition("/")[0]  # the station's own topic
        self.connection = 0
        self.dropped = 0
        self._heard = Allowance(_HEARD_PER_S)
        self._is_deaf, self._deaf_until_s = False, -math.inf
        self._asked_s: float | None = None  # when CONNECT went out that has no answer yet
        self._alert = ""  # why the broker ended the handshake
        self._max_packet = sys.maxsize  # bytes that the broker takes
        self._unsent = 0  # messages that were larger

    def open(self, version: MQTTProtocolVersion) -> None:
        """Start connecting, in a thread of paho; the broker may be absent.

        Args:
            version: MQTT 5 or 3.1.1.
        """
        self._is_v5 = version == MQTTProtocolVersion.MQTTv5
        # A session kept by the broker would bring back what the outbox sends anyway.
        client = self._broker.client(protocol=version, clean_session=None if self._is_v5 else True)
        client.on_log = self._on_log
        client.max_inflight_messages = 0  # the publisher's own window counts
        short, long = self._terms.reconnect_s
        set_pauses(client, short, long)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.connect_async(
            self._broker.host,
            self._broker.port,
            self._terms.keepalive_s,
            **(_connect_options() if self._is_v5 else {}),
        )
        client.loop_start()
        self._client = client

    def publish(
        self, topic: str, body: bytes, *, qos: int, retain: bool = False, expiry_s: int = 0
    ) -> int | None:
        """Hand a message to the connection.

        Args:
            topic: The whole topic.
            body: The payload, JSON.
            qos: 0 or 1; paho tells of no refusal with 2.
            retain: Whether the broker keeps it.
            expiry_s: For how many seconds the broker may keep it for somebody; 0 = for ever.

        Returns:
            The message's id, to be found again in `Acked`; `None` without a connection.
        """
        if not self._client.is_connected():
            return None  # paho would say no, and keep it all the same
        properties = message_properties(body, source=self._source, expiry_s=expiry_s) if self._is_v5 else None
        # Most brokers name no limit, and packing what describes a message takes time.
        if self._max_packet < sys.maxsize and (size := _size_of(topic, body, properties)) > self._max_packet:
            return self._keep_back(size)
        info = self._client.publish(topic, body, qos=qos, retain=retain, properties=properties)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def _keep_back(self, size: int) -> int:
        """Say no in the broker's place, which would end the connection, again and again."""
        self._unsent += 1
        reason = f"a message of {size} bytes, and it takes {self._max_packet}: raise its largest packet size"
        self._signals.put(Acked(-self._unsent, _TOO_LARGE, reason))
        return -self._unsent

    def renew(self, broker: BrokerAddress) -> None:
        """Use another way in when it is opened next.

        Args:
            broker: The same broker, with other credentials.
        """
        self._broker = broker

    def take_time(self) -> None:
        """Always wait for long before a new attempt, until it is opened anew."""
        long = self._terms.reconnect_s[1]
        set_pauses(self._client, long, long)

    def revive(self) -> bool:
        """Start paho's thread again if it has died; whether it had."""
        return revive(self._client)

    @property
    def trouble(self) -> str:
        """What is wrong with what it hears, in words; empty when nothing is."""
        if time.monotonic() > self._deaf_until_s + _SHOWN_S:
            return ""
        return (
            f"commands_flooded: more than {_HEARD_PER_S} messages in a second at {self._terms.listen_to}; "
            "no command is heard for a minute, and longer while it lasts"
        )

    def listen_again(self) -> None:
        """Ask anew for what others publish, a while after a flood of it; to be called often."""
        if self._is_deaf and time.monotonic() > self._deaf_until_s:
            self._is_deaf = False
            self._listen(self._client)

    def is_unanswered(self, limit_s: float) -> bool:
        """Whether CONNECT has been without an answer for longer."""
        asked_s = self._asked_s
        return asked_s is not None and time.monotonic() - asked_s > limit_s

    def break_off(self) -> None:
        """Give up a connection that does not answer; a new one follows by itself."""
        hang_up(self._client)

    def disconnect(self) -> None:
        """Say goodbye, so that the broker does not publish the last will; `Down` follows."""
        self._client.disconnect()

    def close(self) -> None:
        """Say goodbye, as far as the broker takes it, and end paho's thread."""
        self._client.disconnect()
        by_s = time.monotonic() + _GOODBYE_S
        while self._client.socket() is not None and time.monotonic() < by_s:
            time.sleep(0.005)  # paho's thread sends it; without it the broker would publish the last will
        hang_up(self._client)
        end_thread(self._client)

    def _on_socket_open(self, client: Client, _data: Any, opened: Any) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # After TCP and TLS stand and just before CONNECT goes out: once per connection, not per attempt.
        self._asked_s = time.monotonic()
        self._alert = ""
        body = self._will.body()
        properties = will_properties(body, source=self._source) if self._is_v5 else None
        client.will_set(self._will.topic, body, qos=1, retain=True, properties=properties)

    def _on_connect(
        self, client: Client, _data: Any, _flags: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._asked_s = None
        # What paho kept from the last connection would go out now, before and beside the outbox.
        client.drop_out_messages()
        if code.is_failure:
            is_version, is_denied = code.value == _UNSUPPORTED_VERSION, code.value in _DENIED
            self._signals.put(Down(str(code), version_refused=is_version, denied=is_denied))
        else:
            self._listen(client)
            self._max_packet = getattr(properties, "MaximumPacketSize", sys.maxsize)
            self.connection += 1
            self._signals.put(Up(self.connection, getattr(properties, "ReceiveMaximum", 65535)))

    def _listen(self, client: Client) -> None:
        if self._is_deaf or not self._terms.listen_to:
            return
        if self._is_v5:
            # What was retained is no command to a station that has just started.
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            client.subscribe(self._terms.listen_to, options=options)
        else:
            client.subscribe(self._terms.listen_to, qos=1)

    def _on_log(self, _client: Client, _data: Any, _level: int, text: str) -> None:
        """Of what paho has to say, two things are news: a callback failed; a certificate was refused.

        In TLS 1.3 the broker's word on a certificate comes when the handshake is over, and only here.
        """
        if text.startswith("Caught exception"):
            _log.error("%s", text)
        elif TLS_ALERT in text:
            self._alert = tls_words(text)

    def _on_connect_fail(self, *_: Any) -> None:
        failure = sys.exc_info()[1]
        said = str(failure)
        # A clock that was not set yet sees certificates of the future, and that passes by itself.
        is_untrusted = _NOT_TRUSTED in said and _CLOCK not in said
        self._signals.put(Down(self._broker.why(failure), denied=TLS_ALERT in said or is_untrusted))

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _props: Any
    ) -> None:
        self.connection += 1
        is_doubtful = self._asked_s is not None and not self._alert
        # Some brokers answer a message that is not allowed so, and not in PUBACK.
        is_denied = bool(self._alert) or (flags.is_disconnect_packet_from_server and code.value in _DENIED)
        reason = self._alert or (_NO_ANSWER if is_doubtful else _why(flags, code))
        self._signals.put(Down(reason, version_doubtful=is_doubtful, denied=is_denied))
        self._asked_s = None

    def _on_publish(self, _client: Client, _data: Any, mid: int, code: ReasonCode, _props: Any) -> None:
        self._signals.put(Acked(mid, code.value, str(code)))
        _acknowledge_at_once(self._client.socket())

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        for code in codes:
            if code.is_failure:
                self._signals.put(Deaf(str(code)))

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        if not (self._is_deaf or self._heard.take()):
            # In this order: another thread that saw the first without the second would listen again.
            self._deaf_until_s = time.monotonic() + _DEAF_S
            self._is_deaf = True
            client.unsubscribe(self._terms.listen_to)
        if self._is_deaf or self._signals.qsize() >= _MAX_WAITING:
            self.dropped += 1
        else:
            # With 3.1.1 a broker is told no limit, and one that lies keeps none. What is longer is refused.
            body = bytes(message.payload[:_MAX_INCOMING_BYTES])
            self._signals.put(Incoming(message.topic, body, message.retain))


def _size_of(topic: str, body: bytes, properties: Properties | None) -> int:
    """Bytes of a PUBLISH, at most."""
    described = len(properties.pack()) if properties else 0  # type: ignore[no-untyped-call]
    return _HEAD_BYTES + len(topic.encode()) + described + len(body)


def _why(flags: DisconnectFlags, code: ReasonCode) -> str:
    """Why a connection ended, in words. Many brokers say nothing where a second client takes it away."""
    if code.value == _TAKEN_OVER:
        return "another client with this station's id has taken the connection"
    if code.value == _NO_REASON and not flags.is_disconnect_packet_from_server:
        return "it ended without a word, as when the broker ends or another client has this station's id"
    return str(code)


def _acknowledge_at_once(connected: Any) -> None:
    """Let the kernel confirm what has arrived: brokers that keep Nagle's algorithm wait for it, for 40 ms."""
    if connected is not None and hasattr(socket, "TCP_QUICKACK"):
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def revive(client: Client) -> bool:
    """Start paho's thread again if it has died, which it does without a word; whether it had."""
    return client.loop_start() == MQTTErrorCode.MQTT_ERR_SUCCESS


def hang_up(client: Client) -> None:
    """Shut a client's connection, without a goodbye."""
    connected = client.socket()
    if isinstance(connected, socket.socket):
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)


def end_thread(client: Client) -> None:
    """End paho's thread, and forget what was on its way: while there is such, it would go on for ever."""
    client.drop_out_messages()
    with contextlib.suppress(AttributeError):  # the thread may end between paho's check and its join
        client.loop_stop()


def set_pauses(client: Client, short_s: float, long_s: float) -> None:
    """Let a client wait before each new attempt; no two of them wait the same time.

    Args:
        client: It connects by itself.
        short_s: The first pause after a connection, in seconds; each further one is twice as long.
        long_s: The longest one.
    """
    short_s, long_s = (seconds * random.uniform(0.5, 1.5) for seconds in (short_s, long_s))
    client.reconnect_delay_set(short_s, max(short_s, long_s))  # type: ignore[arg-type]  # fractions work


def _connect_options() -> dict[str, Any]:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    properties.ReceiveMaximum = 16
    properties.MaximumPacketSize = _MAX_INCOMING_BYTES
    return {"clean_start": True, "properties": properties}
