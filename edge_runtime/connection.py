"""The publisher's connection: which version of MQTT it speaks, whether it holds, and what is wrong with it."""

from __future__ import annotations

import logging
import math
import queue
import random
import time
from typing import Any

from paho.mqtt.enums import MQTTProtocolVersion

from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.clone_watch import CloneWatch
from kenpin.edge_runtime.link import Link
from kenpin.edge_runtime.link_signal import Acked, Down, Up
from kenpin.edge_runtime.once import Once
from kenpin.edge_runtime.protocol_choice import ProtocolChoice
from kenpin.tls_refusal import tls_cure

_PAUSES_S = (1.0, 30.0)  # where the broker takes neither version: the first one, and the longest

_log = logging.getLogger(__name__)


class Connection:
    """Keeps one link open.

    Args:
        broker: Where it leads.
        link: The link; nobody else opens or closes it.
        signals: Where the link puts its signals.
        choice: Chooses the version.

    Attributes:
        is_up: Whether it stands.
        has_failed: Whether the last attempt failed.
        why_away: Why, in words; empty while it stands.
        is_denied: Whether the broker, when it answered last, did not let the station in; `None` = not yet.
    """

    def __init__(
        self, broker: BrokerAddress, link: Link, signals: queue.SimpleQueue[Any], choice: ProtocolChoice
    ) -> None:
        self.is_up = False
        self.has_failed = False
        self.why_away = ""
        self.is_denied: bool | None = None
        self._broker = broker
        self._link = link
        self._signals = signals
        self._choice = choice
        self._pause_s, self._open_s = _PAUSES_S[0], math.inf  # the next one, and when this one ends
        self._clones = CloneWatch()
        self._once = Once()
        self._said: set[str] = set()  # why it is away, since it was lost
        self._why_lost = ""  # the last one that stood

    @property
    def version(self) -> MQTTProtocolVersion:
        """What is spoken, or tried."""
        return self._choice.version

    @property
    def trouble(self) -> str:
        """What is wrong with it although it comes up, in words; empty when nothing is."""
        if not self._clones.suspects(time.monotonic()):
            return ""
        return (
            f"comms_unstable: the broker drops the connection again and again ({self._why_lost}); "
            f"does another station use the id {self._broker.client_id} (a copied disk)?"
        )

    def open(self) -> None:
        """Start connecting; the broker may be absent."""
        self._link.open(self._choice.version)

    def up(self) -> None:
        """The broker accepted it."""
        if self._said:
            self._said.clear()
            _log.warning("Connected to the broker %s.", self._broker)
        self.is_up, self.has_failed, self.is_denied, self.why_away = True, False, False, ""
        self._choice.worked()
        self._pause_s = _PAUSES_S[0]
        self._clones.up(time.monotonic())
        if not self.trouble:
            self._once.forget("unstable")

    def down(self, down: Down, *, expected: bool) -> None:
        """It is lost, or did not come up; also called for the second of paho's two reports about one loss."""
        if self._open_s < math.inf:
            return  # of one that was closed
        self._clones.down(time.monotonic())
        self._why_lost = down.reason if self.is_up else self._why_lost
        self.is_up, self.has_failed, self.why_away = False, True, down.reason
        self.is_denied = down.denied or self.is_denied
        if self._choice.failed(down, time.monotonic()):
            self._change_version(down)
        elif not expected:
            self._say_away(down)
        if self.trouble:
            self._once.say("unstable", self.trouble)
            self._link.take_time()

    def watch(self, *, connack_s: float) -> None:
        """Look after it; to be called often.

        Args:
            connack_s: A broker that does not answer CONNECT in this time may not know the version of MQTT.
        """
        if self._open_s < math.inf:  # nothing is open that could be looked after
            if time.monotonic() >= self._open_s:
                self._reopen()
            return
        if self._link.revive():
            _log.warning("The network thread had died and was started again.")
        if self._link.is_unanswered(connack_s):
            self._link.break_off()
        if self.is_up and self._choice.is_probe_due(time.monotonic()):
            self.is_up = False
            self._reopen()

    def renew(self, broker: BrokerAddress) -> None:
        """Connect anew by other credentials; goodbye is said, so the last will is not published.

        Args:
            broker: The same broker.
        """
        self._link.renew(broker)
        self.is_up = False
        self._reopen()

    def _say_away(self, down: Down) -> None:
        """Say each reason once; the first one may not be what lasts."""
        if down.reason not in self._said:
            self._said.add(down.reason)
            _log.warning(
                "No connection to the broker %s (%s). "
                "The line runs on; events are kept and sent when it is back.",
                self._broker,
                f"{down.reason}; {cure}" if (cure := tls_cure(down.reason)) else down.reason,
            )

    def _change_version(self, down: Down) -> None:
        if self._choice.version == MQTTProtocolVersion.MQTTv5:
            self._say_away(down)
            self._link.close()
            # A proxy whose broker is away hangs up on a hundred stations, which must not come back as one.
            self._open_s = time.monotonic() + self._pause_s * random.uniform(0.5, 1.5)
            self._pause_s = min(2 * self._pause_s, _PAUSES_S[1])
        else:
            self.has_failed = False
            self._reopen()

    def _reopen(self) -> None:
        self._open_s = math.inf
        self._link.close()
        kept = []
        while not self._signals.empty():
            signal = self._signals.get()
            if not isinstance(signal, Acked | Down | Up):  # those are of the connection that has ended
                kept.append(signal)
        for signal in kept:
            self._signals.put(signal)
        self._link.open(self._choice.version)
