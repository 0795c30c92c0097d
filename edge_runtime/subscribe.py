"""A subscriber of events for other programs: each event once, holes seen, missing events asked for.

    with Subscription(BrokerAddress("broker", 1883, "quality-db"), "acme/plant1/+/+/+") as subscription:
        for event in subscription:
            print(event.station, event.name, event.payload["ts"])

An event is acknowledged to the broker only when the next one is asked for, so what a consumer was working on
when it died comes again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.catch_up import Ask, CatchUp
from kenpin.edge_runtime.command_key import CommandKey
from kenpin.edge_runtime.heard import Heard, Hole
from kenpin.edge_runtime.heard_file import load_heard, save_heard
from kenpin.edge_runtime.mailbox import Letter, Mailbox
from kenpin.edge_runtime.sign_command import Sender, make_command, sign_command
from kenpin.edge_runtime.strict_json import read_object
from kenpin.events import now_ms

_TICK_S = 0.2
_UNSETTLED = 10  # events that are acknowledged together; brokers send at least that many before they wait
_COMMAND_LIFE_MS = 30_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One event of a station.

    Attributes:
        station: The station's topic.
        name: Topic below it, such as `event/anomaly`. Answers to commands (`reply/<action>`) are numbered like
            events and come as well.
        payload: Its fields, as docs/events.md says.
    """

    station: str
    name: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Asking:
    """How missing events are asked for.

    Attributes:
        key: Signs the requests; the stations have it too.
        actor: Who asks, for the stations' records.
        patience_s: How long numbers have to be missing first: after an outage live events overtake those that
            waited, so holes close by themselves.
    """

    key: CommandKey
    actor: str = "subscriber"
    patience_s: float = 10.0


class Subscription:
    """Events of one or many stations, each once; for one thread.

    Args:
        broker: Where to subscribe, and as whom: the client id has to be this consumer's own.
        topic: The station's topic, or a filter of many: `acme/plant1/+/+/+`.
        state: File that remembers what was heard. With it, the broker keeps what comes while the consumer is
            away.
        asking: Lets missing events be asked for; default: they are only seen in `missing`.

    Attributes:
        doubles: Events that came again.
        foreign: Messages that are no events of a station.

    Raises:
        StoreError: The state cannot be read.
    """

    def __init__(
        self, broker: BrokerAddress, topic: str, *, state: Path | None = None, asking: Asking | None = None
    ) -> None:
        self.doubles = 0
        self.foreign = 0
        filters = (f"{topic}/event/+", f"{topic}/reply/+")
        self._mailbox = Mailbox(broker, filters, is_kept=state is not None)
        self._state = state
        self._asking = asking
        self._heard = load_heard(state) if state is not None else {}
        self._catch_up: dict[str, CatchUp] = {}
        self._requests: dict[str, str] = {}  # station's topic -> cmd_id of its last request
        self._unsettled: list[Letter] = []
        self._look_s = 0.0

    @property
    def missing(self) -> dict[str, tuple[Hole, ...]]:
        """Numbers that were not heard, by the station's topic; only stations where some are missing."""
        found = {station: heard.missing() for station, heard in self._heard.items()}
        return {station: holes for station, holes in found.items() if holes}

    @property
    def dropped(self) -> int:
        """Messages with QoS 0, which no station sends, that came faster than they were received."""
        return self._mailbox.dropped

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the broker. Without one nothing is heard, and one is tried again."""
        return self._mailbox.is_connected

    @property
    def lost(self) -> int:
        """How many events were asked for in vain since the start; they are no longer in `missing`."""
        return sum(one.lost for one in self._catch_up.values())

    def __enter__(self) -> Subscription:
        self._mailbox.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._settle()  # after an error the last event comes again
        finally:
            self._mailbox.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.receive(timeout_s=60.0)
            if event is not None:
                yield event

    def receive(self, *, timeout_s: float) -> Event | None:
        """The next event, `None` where none came in time. The last one counts as dealt with.

        Args:
            timeout_s: How long to wait, in seconds.

        Raises:
            StoreError: The state cannot be written; the events come again after a restart.
            BrokerError: The broker takes the login or the subscription no more, as after a change of its rules.
        """
        by_s = time.monotonic() + timeout_s
        while True:
            if self._mailbox.is_empty() or len(self._unsettled) >= _UNSETTLED:
                self._settle()
            self._look_for_holes()
            left_s = by_s - time.monotonic()
            letter = self._mailbox.take(timeout_s=max(0.0, min(left_s, _TICK_S)))
            event = self._read(letter) if letter is not None else None
            if event is not None or left_s <= 0:
                return event

    def _read(self, letter: Letter) -> Event | None:
        """What a message says; `None` for a double and for what is no event."""
        self._unsettled.append(letter)
        station, kind, name = letter.topic.rsplit("/", 2)
        try:
            payload = read_object(letter.body, max_depth=1)
            seq, session_id = payload["seq"], payload["session_id"]
        except (ValueError, KeyError):
            seq, session_id = 0, ""
        if not (type(seq) is int and seq > 0 and isinstance(session_id, str) and session_id):
            self.foreign += 1
            return None
        if not self._heard.setdefault(station, Heard()).take(seq, session_id):
            self.doubles += 1
            return None
        asked = self._requests.get(station)
        if kind == "reply" and asked is not None and payload.get("cmd_id") == asked:
            self._hear_answer(station, payload)
        return Event(station, f"{kind}/{name}", payload)

    def _settle(self) -> None:
        """Write down what was dealt with, and only then acknowledge it."""
        if not self._unsettled:
            return
        if self._state is not None:
            save_heard(self._state, self._heard)
        for letter in self._unsettled:
            self._mailbox.acknowledge(letter)
        self._unsettled = []

    def _look_for_holes(self) -> None:
        now_s = time.monotonic()
        if self._asking is None or now_s < self._look_s:
            return
        self._look_s = now_s + _TICK_S
        for station, heard in self._heard.items():
            catch_up = self._catch_up.get(station)
            if catch_up is None:
                catch_up = self._catch_up[station] = CatchUp(heard, patience_s=self._asking.patience_s)
            ask = catch_up.look(now_s)
            if ask is not None:
                self._request(station, ask, self._asking)

    def _request(self, station: str, ask: Ask, asking: Asking) -> None:
        arguments = {"since_seq": str(ask.since_seq), "count": str(ask.count)}
        sender = Sender(station.rpartition("/")[2], asking.actor, _COMMAND_LIFE_MS)
        command = make_command("replay", arguments, sender, now_ms=now_ms())
        self._requests[station] = command.cmd_id
        self._mailbox.post(f"{station}/cmd/replay", sign_command(command, asking.key))
        _log.warning("Asked %s for events from number %d on.", station, ask.since_seq)

    def _hear_answer(self, station: str, reply: Mapping[str, Any]) -> None:
        if reply.get("ok") is True:
            self._catch_up[station].accept()
        else:
            _log.warning("%s refuses to send events again: %s", station, json.dumps(reply.get("message", "")))
