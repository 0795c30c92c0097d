"""A station that is killed, its broker that is killed, and who finds out what became of the events."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mqtt_station import KEY, TOPIC
from benchmarks.rig import Broker, Subscriber
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.subscribe import Asking, Subscription

SETTLE_S = 180.0


@dataclass(frozen=True)
class Found:
    """What became of the events.

    Attributes:
        committed: Events in the station's outbox.
        unheard: Of those, how many the consumer had not before it asked.
        lost: How many it has not after it asked.
        sent_again: How many the station sent more than once before anybody asked, each time counted.
        wrongly: Of those, how many although it had noted the acknowledgement.
        settled_s: From the last blow until nothing waited.
    """

    committed: int
    unheard: int
    lost: int
    sent_again: int
    wrongly: int
    settled_s: float


class Consumer:
    """Reads events in a thread of its own and remembers their numbers.

    Args:
        port: Of the broker.
        state: Its memory.
        asking: How it asks for what is missing; default: not at all.
    """

    def __init__(self, port: int, state: Path, *, asking: Asking | None = None) -> None:
        self.heard: set[int] = set()
        address = BrokerAddress("127.0.0.1", port, "consumer")
        self._subscription = Subscription(address, TOPIC, state=state, asking=asking)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Consumer:
        self._subscription.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._subscription.__exit__(None, None, None)

    def _read(self) -> None:
        while not self._is_over.is_set():
            event = self._subscription.receive(timeout_s=0.2)
            if event is not None:
                self.heard.add(event.payload["seq"])


class Ordeal:
    """A station as a process, a broker, a subscriber and a consumer.

    Args:
        root: An empty folder.
        per_s: Events per second.
    """

    def __init__(self, root: Path, *, per_s: float) -> None:
        self.database = root / "station.db"
        self.broker = Broker(root / "broker")
        self.broker.start()
        self._state = root / "heard.json"
        self._per_s = per_s
        self._subscriber = Subscriber(self.broker.port, f"{TOPIC}/event/#")
        self._consumer = Consumer(self.broker.port, self._state).__enter__()
        self._station: subprocess.Popen[bytes] | None = None

    def start_station(self, *, count: int = 1 << 60) -> None:
        """Let it commit so many events and publish."""
        command = [sys.executable, "-m", "benchmarks.mqtt_station", str(self.database), str(self.broker.port)]
        self._station = subprocess.Popen([*command, "--per-s", str(self._per_s), "--count", str(count)])

    def begin(self) -> None:
        """Start the station and wait until something of it arrives."""
        self.start_station()
        wait_for(lambda: self._subscriber.events, "the first event")

    def kill_station(self) -> None:
        """Kill -9."""
        if self._station is not None:
            self._station.kill()
            self._station.wait()

    def settle(self) -> Found:
        """Let what waits be sent, look at what came, then let the consumer ask for what did not."""
        started_s = time.monotonic()
        self.kill_station()
        before = len(self._acked_ms())
        self.start_station(count=1)  # one more shows the end of what is missing
        wait_for(lambda: self._is_done(more_than=before), "the end of the backlog")
        settled_s = time.monotonic() - started_s
        _until_still(lambda: len(self._subscriber.events))
        again, wrongly = sendings(self._subscriber.events, self._acked_ms())
        heard = self._consumer.heard
        self._consumer.__exit__()
        committed = set(range(1, max(self._acked_ms()) + 1))  # numbers have no gaps, so none can hide
        unheard = committed - heard
        with Consumer(self.broker.port, self._state, asking=Asking(KEY, patience_s=3.0)) as asker:
            until(lambda: unheard <= asker.heard, SETTLE_S)
        return Found(len(committed), len(unheard), len(unheard - asker.heard), again, wrongly, settled_s)

    def close(self) -> None:
        """End all of it."""
        self.kill_station()
        self._subscriber.close()
        self.broker.kill()

    def _acked_ms(self) -> dict[int, int | None]:
        with reading(self.database) as connection:
            rows = connection.execute("SELECT seq, acked_ms FROM outbox WHERE topic LIKE 'event/%'")
            return dict(rows.fetchall())

    def _is_done(self, *, more_than: int) -> bool:
        acked_ms = self._acked_ms()
        return len(acked_ms) > more_than and None not in acked_ms.values()


def sendings(events: list[dict[str, float]], acked_ms: dict[int, int | None]) -> tuple[int, int]:
    """How often the station sent an event once more, and how often although it had noted its acknowledgement.

    A broker that was killed brings some messages twice by itself; those are the same to the last digit, while
    the station writes into each sending how long after the exposure it is.

    Args:
        events: Payloads as they came.
        acked_ms: By number of the event, when it was noted, UTC in milliseconds since 1970.
    """
    sent = {(int(e["seq"]), e["ts_ms"] + e["capture_to_publish_ms"]) for e in events}
    # In whole milliseconds, as acknowledgements are noted: some come within the one of the sending.
    wrongly = sum(int(at_ms) > (acked_ms[seq] or at_ms) for seq, at_ms in sent)
    return len(sent) - len({seq for seq, _ in sent}), wrongly


def until(condition: Callable[[], object], limit_s: float) -> bool:
    """Wait for something; whether it came in time."""
    by_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > by_s:
            return False
        time.sleep(0.1)
    return True


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait for something that has to come."""
    if not until(condition, SETTLE_S):
        raise RuntimeError(f"{what} did not come in {SETTLE_S:g} s")


def _until_still(count: Callable[[], int]) -> None:
    """Until a count has stood for two seconds."""
    before, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < 2:
        if count() != before:
            before, since_s = count(), time.monotonic()
        time.sleep(0.1)
