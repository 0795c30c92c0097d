"""The station as a Sparkplug B 3.0 edge node: what SCADA sees of it, on a connection beside the publisher's.

Sparkplug sends with QoS 0 and keeps nothing while the broker is away, so it shows how things are now; that no
event is lost is the publisher's work. One thread owns the session and with it every `seq`; all else puts
signals into its queue. See docs/sparkplug.md.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from kenpin.edge_runtime.arrivals import arrivals
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.clone_watch import CloneWatch
from kenpin.edge_runtime.once import Once
from kenpin.edge_runtime.sparkplug_host import PrimaryHost
from kenpin.edge_runtime.sparkplug_link import Down, Heard, LinkSignal, SparkplugLink, Subscribed, Timing, Up
from kenpin.edge_runtime.sparkplug_payload import REBIRTH, Value, checked, decode_commands
from kenpin.edge_runtime.sparkplug_refusal import Refusal, Refusals
from kenpin.edge_runtime.sparkplug_session import NODE, EdgeNode, Message, Session, check_device
from kenpin.errors import BrokerError
from kenpin.events import now_ms

_TICK_S = 0.2
_STOP_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Told:
    values: Mapping[str, Value]
    device: str
    now_ms: int


@dataclass(frozen=True)
class _Lost:
    device: str
    now_ms: int


@dataclass(frozen=True)
class _Stop:
    pass


_Signal: TypeAlias = LinkSignal | _Told | _Lost | _Stop


class Sparkplug:
    """The edge node.

    `tell` and `lose` are for any thread and never wait; `stop` blocks for a few seconds.

    Args:
        broker: Where to connect; its client id must be another one than the publisher's.
        node: Where the station stands in the namespace, and the host it waits for.
        report: Told of what was refused, ever more rarely, in the node's own thread.
        timing: How long it waits for what.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        node: EdgeNode,
        report: Callable[[Refusal], None],
        *,
        timing: Timing | None = None,
    ) -> None:
        timing = timing or Timing()
        self._broker = broker
        self._node = node
        self._rebirth_pause_s = timing.rebirth_s
        self._signals: queue.SimpleQueue[_Signal] = queue.SimpleQueue()
        self._link = SparkplugLink(broker, node, self._signals, timing)
        self._session = Session(node)
        self._host = PrimaryHost(node.primary_host)
        self._refusals = Refusals(report)
        self._connection = 0  # the one whose session this is
        self._is_subscribed = False
        self._is_stopping = False
        self._born_s = 0.0
        self._rebirth_s: float | None = None
        self._once = Once()
        self._clones = CloneWatch()
        self._thread = threading.Thread(target=self._run, name="sparkplug", daemon=True)

    @property
    def is_born(self) -> bool:
        """Whether hosts see the station online."""
        return self._session.is_born

    @property
    def refused(self) -> int:
        """Commands and other messages that were not obeyed since the start."""
        return self._refusals.total + self._link.dropped

    def start(self) -> None:
        """Start connecting; the broker may be absent."""
        self._link.open()
        self._thread.start()

    def tell(self, values: Mapping[str, Value], *, device: str = NODE) -> None:
        """Tell values; what is not named keeps its value, and only what has changed is sent.

        Args:
            values: Name -> data type and value, such as `{"parts": (DataType.INT64, 7)}`; `None` = null.
            device: Whose they are, such as a camera; `NODE` = the station's own.

        Raises:
            BrokerError: A name cannot be one, or a value is not of its data type.
        """
        if device != NODE:
            check_device(device)
        kept = {name: checked(name, value) for name, value in values.items()}
        self._signals.put(_Told(kept, device, now_ms()))

    def lose(self, device: str) -> None:
        """Say that a device does not answer any more; it is back as soon as it is told of."""
        self._signals.put(_Lost(device, now_ms()))

    def stop(self) -> None:
        """Say that the station goes offline, and end."""
        self._signals.put(_Stop())
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._is_stopping:
            self._guarded(self._work)
        self._guarded(self._leave)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Survive everything; what a stumble leaves half said, a rebirth says anew."""
        try:
            step()
        except Exception:
            _log.exception("The Sparkplug edge node stumbled and goes on.")
            self._ask_rebirth()

    def _work(self) -> None:
        """One round."""
        self._listen()
        if self._rebirth_s is not None and time.monotonic() >= self._rebirth_s:
            self._birth()
        if self._link.revive():
            _log.warning("The network thread of Sparkplug had died and was started again.")
        self._refusals.tell()

    def _listen(self) -> None:
        for signal in arrivals(self._signals, _TICK_S):
            self._handle(signal)

    def _handle(self, signal: _Signal) -> None:
        if isinstance(signal, _Told):
            self._send(self._session.tell(signal.values, device=signal.device, now_ms=signal.now_ms))
        elif isinstance(signal, _Lost):
            self._send(self._session.lose(signal.device, now_ms=signal.now_ms))
        elif isinstance(signal, Up):
            self._begin(signal)
        elif isinstance(signal, Subscribed):
            self._note_subscribed(signal)
        elif isinstance(signal, Down):
            self._end(signal)
        elif isinstance(signal, Heard):
            self._hear(signal)
        else:
            self._is_stopping = True

    def _begin(self, up: Up) -> None:
        """Subscribe; births follow when the broker has answered, so that no command for them is missed."""
        self._once.forget("away")
        self._clones.up(time.monotonic())
        self._connection = up.connection
        self._session.begin(up.bd_seq)
        self._host.begin()
        commands = (self._node.topic("NCMD"), self._node.topic("DCMD", "+"))
        self._link.subscribe([*commands, *self._host.topics])

    def _note_subscribed(self, subscribed: Subscribed) -> None:
        if subscribed.refused:
            self._once.say(
                "refused",
                f"The broker {self._broker} refuses {subscribed.refused} of the topics that {self._node} "
                "listens to: allow it to read its NCMD, DCMD and STATE.",
            )
        self._is_subscribed = True
        self._birth()
        if not self._host.is_online:
            self._once.say(
                "host", f"Sparkplug says nothing before the host {self._node.primary_host} is online."
            )

    def _end(self, down: Down) -> None:
        """Also called for the second of paho's two reports about the same loss."""
        self._session.end()
        self._is_subscribed = False
        self._rebirth_s = None
        self._clones.down(time.monotonic())
        if self._clones.suspects(time.monotonic()):  # or hosts get a death and a birth each second, for ever
            self._link.take_time()
        self._once.say("away", f"No connection to {self._broker} for Sparkplug ({down.reason}).")

    def _hear(self, heard: Heard) -> None:
        if heard.topic in self._host.topics:
            self._follow_host(heard)
        elif heard.is_retained:
            self._refusals.note(heard.topic, "a retained command, which may be of any age")
        else:
            self._obey(heard)

    def _follow_host(self, heard: Heard) -> None:
        was_online = self._host.is_online
        if not self._host.take(heard.topic, heard.body):
            self._refusals.note(heard.topic, "not a STATE message of Sparkplug")
        elif was_online and not self._host.is_online:
            _log.warning("The host %s is offline; Sparkplug waits for it.", self._node.primary_host)
            self._leave()
            self._link.open()
        elif self._host.is_online and not was_online:
            self._birth()

    def _obey(self, heard: Heard) -> None:
        """Nobody signs a command of Sparkplug, so all that is obeyed is the wish to be told all again."""
        try:
            commands = decode_commands(heard.body)
        except BrokerError as error:
            self._refusals.note(heard.topic, error.what)
            return
        if not commands:
            self._refusals.note(heard.topic, "a payload without a command")
        for command in commands:
            if heard.topic == self._node.topic("NCMD") and command.name == REBIRTH and command.value:
                self._ask_rebirth()
            else:
                self._refusals.note(heard.topic, f"the command {command.name[:64]!r}")

    def _ask_rebirth(self) -> None:
        """Stop sending data at once; births follow, also where many ask for them, no more than once a pause."""
        self._session.end()
        if self._rebirth_s is None:
            self._rebirth_s = max(time.monotonic(), self._born_s + self._rebirth_pause_s)

    def _birth(self) -> None:
        self._rebirth_s = None
        if self._is_subscribed and self._host.is_online:
            self._born_s = time.monotonic()
            self._send(self._session.birth(now_ms=now_ms()))

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            # `Down` and `Up` may still wait in the queue when a new connection stands, with another `bdSeq`.
            if self._connection != self._link.connection or not self._link.publish(message):
                self._session.end()
                return

    def _leave(self) -> None:
        self._link.leave(self._session.death(now_ms=now_ms()))
        self._is_subscribed = False
        self._rebirth_s = None
