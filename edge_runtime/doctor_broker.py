"""What the doctor looks at on the broker: a message there and back, the last will, and who reads the events."""

from __future__ import annotations

import queue
import socket
from typing import Any

from paho.mqtt.client import Client, MQTTMessage

from kenpin.config import StationConfig
from kenpin.counted import counted
from kenpin.edge_runtime.broker_address import BrokerAddress, cure_for
from kenpin.edge_runtime.certificate import RENEW_DAYS, common_names, days_left
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.doctor import Check, Diagnosis, failed, passed, warned
from kenpin.edge_runtime.link import TLS_ALERT
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.vitals import Vitals, read_vitals
from kenpin.errors import ConfigError
from kenpin.events import MAX_BYTES, now_ms, uuid7
from kenpin.station_folder import StationFolder
from kenpin.tls_refusal import tls_words

_ANSWER_S = 5.0
_OLD_S = 60.0
_HUNG_UP = b""  # in what was heard


def broker_checks(config: StationConfig) -> list[Check]:
    """Checks of the broker, as clients of their own names.

    Args:
        config: The station's configuration, with a broker.
    """
    return [
        Check("login", lambda: _login(config)),
        Check("broker", lambda: _broker(config)),
        Check("last will", lambda: _last_will(config)),
        Check("readers", lambda: _readers(config)),
    ]


def _client(config: StationConfig, suffix: str) -> tuple[Client, BrokerAddress]:
    broker = BrokerAddress.from_config(config.mqtt, client_id=f"{config.station.id}-{suffix}")
    return broker.client(), broker


def _listen(client: Client, broker: BrokerAddress, topic: str) -> tuple[queue.SimpleQueue[bytes], str]:
    """Connect and subscribe; why that failed, in words."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_connect(_client: Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            answers.put(str(code))
        else:
            client.subscribe(topic, 1)

    def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
        if not message.retain:  # what an earlier check left at the broker is no answer to this one
            heard.put(bytes(message.payload))

    client.on_connect = on_connect
    client.on_subscribe = lambda _c, _d, _m, codes, _p: answers.put(
        str(codes[0]) if codes[0].is_failure else ""
    )
    client.on_message = on_message
    # In TLS 1.3 the broker's word on a certificate comes when the handshake is over, here, and not each time.
    client.on_log = lambda _c, _d, _level, text: answers.put(tls_words(text)) if TLS_ALERT in text else None
    client.on_disconnect = lambda *_: heard.put(_HUNG_UP)
    try:
        client.connect(broker.host, broker.port, 10)
        client.loop_start()
        return heard, answers.get(timeout=_ANSWER_S)
    except OSError as error:
        return heard, broker.why(error)
    except queue.Empty:
        return heard, "no answer" if heard.empty() else "it hangs up without an answer"


def _login(config: StationConfig) -> Diagnosis:
    """By what the broker knows the station. Its rules go by the certificate's name, so that must be the id."""
    path, station = config.mqtt.cert_file, config.station.id
    if config.mqtt.insecure:
        return warned("insecure = true in [mqtt]", "use mqtts:// and a certificate: kenpin mqtt init-pki")
    if path is None:
        return passed(f"user {config.mqtt.username}" if config.mqtt.username else "none, this machine")
    cure = f"make one: kenpin mqtt issue --client {station}"
    try:
        names, days = common_names(path), days_left(path, cure)
    except ConfigError as error:
        return failed(f"{path}: {error.what}", f"{error.cure} (cert_file in [mqtt])")
    if names != [station]:
        return failed(f"{path} is for {', '.join(names)}, the station is {station}", cure)
    if days < RENEW_DAYS:
        return warned(f"{path} ends in {counted(days, 'day')}", cure)
    return passed(f"certificate of {station}, for {days} days")


def _broker(config: StationConfig) -> Diagnosis:
    client, broker = _client(config, "doctor")
    topic = f"{config.station.topic}/doctor"
    try:
        heard, trouble = _listen(client, broker, topic)
        if trouble:
            return failed(f"{broker}: {trouble}", cure_for(trouble))
        word = uuid7(now_ms()).encode().ljust(MAX_BYTES)  # as long as an event may be
        client.publish(topic, word, qos=1)
        answer = _next(heard)
        if answer == word:
            return passed(f"{broker}, {'TLS, ' if broker.tls else ''}publishes and hears {topic}")
        if answer == _HUNG_UP:
            cure = "let it take QoS 1 and packets of 16 KiB (mosquitto: max_qos, max_packet_size)"
            return failed(f"{broker} hangs up on a message of {MAX_BYTES} bytes with QoS 1", cure)
        cure = f"let this station's user write and read {config.station.topic}/# on the broker"
        return failed(f"{broker} takes messages on {topic} and delivers none", cure)
    finally:
        client.disconnect()
        client.loop_stop()


def _next(heard: queue.SimpleQueue[bytes]) -> bytes | None:
    """The next message; `None` where none comes."""
    try:
        return heard.get(timeout=_ANSWER_S)
    except queue.Empty:
        return None


def _last_will(config: StationConfig) -> Diagnosis:
    topic = f"{config.station.topic}/doctor"
    listener, broker = _client(config, "doctor")
    dying, _ = _client(config, "doctor-will")
    try:
        heard, trouble = _listen(listener, broker, topic)
        if trouble:
            return failed(trouble, "see the line above")
        dying.will_set(topic, b"will", qos=1, retain=True)
        _, trouble = _listen(dying, broker, f"{topic}/none")
        connection = dying.socket()
        if trouble or not isinstance(connection, socket.socket):
            cure = "let it take QoS 1 and messages that it retains (mosquitto: max_qos, retain_available)"
            return failed(trouble or "no connection", cure)
        connection.shutdown(socket.SHUT_RDWR)  # as a machine that loses its power
        if not _next(heard):
            return failed("the broker did not publish it", "allow this user to publish its own status")
        listener.publish(topic, b"", qos=1, retain=True).wait_for_publish(_ANSWER_S)
        return passed("delivered when a station vanishes")
    finally:
        for client in (listener, dying):
            client.disconnect()
            client.loop_stop()


def _readers(config: StationConfig) -> Diagnosis:
    """Whether anybody subscribes to the events, as the broker told the publisher; a probe would be an event."""
    found = read_vitals(StationFolder(config.station.state_dir).run)
    publisher = found.get("publisher")
    if publisher is None or not publisher.is_alive:
        # With --single-process there is none; but then the cameras have no processes either.
        if any(role.startswith("capture-") and vitals.is_alive for role, vitals in found.items()):
            return failed(
                "the station runs without its publisher: alerts stay in the store",
                "journalctl -u kenpin-publisher -n 50; mend that; then sudo systemctl restart kenpin-publisher",
            )
        return passed("not known: the publisher is not running")
    if not publisher.numbers.get("broker_connected"):
        return failed(
            "the publisher has no connection to the broker now: alerts wait in the store",
            "see the lines above; where they say PASS, journalctl -u kenpin-publisher -n 50",
        )
    if publisher.numbers.get("broker_denied"):
        return failed(
            "the broker refuses the station, some messages or its commands: alerts may wait in the store",
            f"let its user write {config.station.topic}/# and read {config.station.topic}/cmd/+ there; "
            "journalctl -u kenpin-publisher",
        )
    return _waiting(config) or _read(config, publisher)


def _waiting(config: StationConfig) -> Diagnosis | None:
    """Events that a broker does not take although there is a connection; `None` where none is old."""
    with reading(StationFolder(config.station.state_dir).database) as connection:
        depth = Outbox(connection).depth()
    if depth.oldest_s < _OLD_S:
        return None
    words = f"{counted(depth.waiting, 'event')} wait for the broker, the oldest for {depth.oldest_s:.0f} s"
    cure = "look again in a minute: fewer wait where it takes them; else journalctl -u kenpin-publisher -n 50"
    return warned(words, cure)


def _read(config: StationConfig, publisher: Vitals) -> Diagnosis:
    if unread := publisher.texts.get("unread"):
        return warned(
            f"nobody subscribes to {unread.replace(',', ', ')}: alerts reach the broker and no one",
            f"let SCADA subscribe to {config.station.topic}/event/+ with QoS 1 and a session that is kept",
        )
    words = "each kind of event that was sent has one, as far as the broker tells (MQTT 5)"
    was_sent = publisher.numbers.get("events_acked_total")
    return passed(words if was_sent else "not known: no event was sent since the publisher's start")
