"""The session of a Sparkplug edge node: what was said, and which message comes next.

No network, no clock, no thread. The rules are those of Sparkplug 3.0, chapters 4 to 6; the tests are named
after them (`tck-id-…`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kenpin.edge_runtime.sparkplug_payload import BD_SEQ, REBIRTH, DataType, Metric, Value, encode_payload
from kenpin.errors import BrokerError, ConfigError

NODE = ""  # the device's name where none is meant, but the node itself
_ROUND = 256
_ID = re.compile(r"[^+/#\x00]+")


@dataclass(frozen=True)
class EdgeNode:
    """Where a station stands in the namespace of Sparkplug.

    Attributes:
        group_id: The group, such as the plant.
        node_id: The station; unique in its group.
        primary_host: The host without which nothing is sent; empty = none is waited for.

    Raises:
        ConfigError: One is empty, or has a character that a topic cannot have.
    """

    group_id: str
    node_id: str
    primary_host: str = ""

    def __post_init__(self) -> None:
        for name in (self.group_id, self.node_id, self.primary_host or "none"):
            if not _ID.fullmatch(name):
                raise ConfigError(
                    f"{name!r} is no id of Sparkplug", where="[sparkplug]", cure="use a name without + / #"
                )

    def __str__(self) -> str:
        return f"{self.group_id}/{self.node_id}"

    def topic(self, verb: str, device: str = NODE) -> str:
        """The topic of a message, such as `spBv1.0/plant/DDATA/st-01/cam`."""
        return "/".join(filter(None, ("spBv1.0", self.group_id, verb, self.node_id, device)))


@dataclass(frozen=True)
class Message:
    """A message to be published at once, with QoS 0 and not retained.

    Attributes:
        topic: The whole topic.
        body: The payload.
    """

    topic: str
    body: bytes


def check_device(device: str) -> None:
    """Check the name of a device.

    Raises:
        BrokerError: It is empty or has a character that a topic cannot have.
    """
    if not _ID.fullmatch(device):
        raise BrokerError(
            f"{device!r} is no device of Sparkplug", where="Sparkplug", cure="use a name without + / #"
        )


def next_bd_seq(last: int) -> int:
    """The number of the next CONNECT packet: 0 to 255, and again."""
    return (last + 1) % _ROUND


def encode_death(bd_seq: int, *, now_ms: int) -> bytes:
    """The payload of an NDEATH: only `bdSeq`, and no `seq`."""
    return encode_payload([_bd_seq(bd_seq, now_ms)], sent_ms=now_ms, seq=None)


class Session:
    """Turns what the station tells into messages, in the order that a host expects.

    Every value that was ever told is kept, for the next birth. Between `begin` and `birth`, and after `end`,
    values are only kept.

    Args:
        node: Whose session it is.

    Attributes:
        is_born: Whether the births were sent, so that data may follow.
    """

    def __init__(self, node: EdgeNode) -> None:
        self.is_born = False
        self._node = node
        self._bd_seq = 0
        self._seq = 0
        self._known: dict[str, dict[str, Metric]] = {NODE: {}}
        self._lost: set[str] = set()

    def begin(self, bd_seq: int) -> None:
        """A connection stands; nothing has been said on it.

        Args:
            bd_seq: As in the last will of this connection.
        """
        self._bd_seq = bd_seq
        self.is_born = False

    def end(self) -> None:
        """Send no data until the next birth: the connection is gone, or a rebirth is asked for."""
        self.is_born = False

    def birth(self, *, now_ms: int) -> list[Message]:
        """The NBIRTH and a DBIRTH for each device; at the start of a session and as a rebirth."""
        self.is_born = True
        self._seq = 0
        control = [Metric(REBIRTH, (DataType.BOOLEAN, False), now_ms), _bd_seq(self._bd_seq, now_ms)]
        metrics = _in_order(self._known[NODE].values()) + control
        node = self._message("NBIRTH", NODE, metrics, now_ms)
        present = [d for d in self._known if d != NODE and d not in self._lost]
        return [node, *(self._device_birth(device, now_ms) for device in present)]

    def tell(self, values: Mapping[str, Value], *, device: str = NODE, now_ms: int) -> list[Message]:
        """Take values; what is not named stays as it is.

        Args:
            values: Name -> data type and value, as `sparkplug_payload.checked` gives it.
            device: Whose they are; `NODE` = the node's own.
            now_ms: When they were taken, UTC.

        Returns:
            Data for what has changed. Births where a host could not know a metric; nothing outside a session.
        """
        is_new = self._needs_birth(values, device)
        known = self._known.setdefault(device, {})
        self._lost.discard(device)
        changed = [Metric(n, v, now_ms) for n, v in values.items() if n not in known or known[n].value != v]
        known.update((metric.name, metric) for metric in changed)
        if not self.is_born or not (changed or is_new):
            return []
        if not is_new:
            return [self._message("DDATA" if device else "NDATA", device, changed, now_ms)]
        return [self._device_birth(device, now_ms)] if device else self.birth(now_ms=now_ms)

    def lose(self, device: str, *, now_ms: int) -> list[Message]:
        """A device does not answer any more: a DDEATH, once. It is back as soon as it is told of."""
        if device not in self._known or device in self._lost:
            return []
        self._lost.add(device)
        return [self._message("DDEATH", device, [], now_ms)] if self.is_born else []

    def death(self, *, now_ms: int) -> Message:
        """The NDEATH that a node sends itself before it leaves, with QoS 1; it ends the session."""
        self.is_born = False
        return Message(self._node.topic("NDEATH"), encode_death(self._bd_seq, now_ms=now_ms))

    def _needs_birth(self, values: Mapping[str, Value], device: str) -> bool:
        """Whether the last birth did not tell of the device, or of a metric with this data type."""
        if device not in self._known or device in self._lost:
            return True
        types = {name: metric.value[0] for name, metric in self._known[device].items()}
        return any(types.get(name) != value[0] for name, value in values.items())

    def _device_birth(self, device: str, now_ms: int) -> Message:
        return self._message("DBIRTH", device, _in_order(self._known[device].values()), now_ms)

    def _message(self, verb: str, device: str, metrics: list[Metric], now_ms: int) -> Message:
        body = encode_payload(metrics, sent_ms=now_ms, seq=self._seq)
        self._seq = (self._seq + 1) % _ROUND
        return Message(self._node.topic(verb, device), body)


def _bd_seq(number: int, now_ms: int) -> Metric:
    return Metric(BD_SEQ, (DataType.INT64, number), now_ms)


def _in_order(metrics: Iterable[Metric]) -> list[Metric]:
    """By time, as `tck-id-operational-behavior-data-publish-nbirth-order` asks for."""
    return sorted(metrics, key=lambda metric: metric.time_ms)
