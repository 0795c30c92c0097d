"""What arrives of a station's events when it and its broker are killed, and when the broker loses messages.

    python -m benchmarks.mqtt_faults [--kills 20] [--flap-s 3600] [--forget 5000]

It needs mosquitto. A subscriber, which is another program, hears all that is sent; a consumer of this library
asks at the end for what never came.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.mqtt_ordeal import SETTLE_S, Consumer, Found, Ordeal, until, wait_for
from benchmarks.mqtt_station import KEY, STATION, bad_part, publishing
from benchmarks.rig import Broker
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.subscribe import Asking


@contextmanager
def _ordeal(*, per_s: float) -> Iterator[Ordeal]:
    with tempfile.TemporaryDirectory() as folder, closing(Ordeal(Path(folder), per_s=per_s)) as made:
        made.begin()
        yield made


def kills(count: int, *, longest_s: float = 4.0) -> Found:
    """The station or the broker dies, by chance, at any moment.

    Args:
        count: How often.
        longest_s: From one time to the next.
    """
    chance = random.Random(1)
    with _ordeal(per_s=50) as ordeal:
        for _ in range(count):
            time.sleep(chance.uniform(0.5, longest_s))
            if chance.random() < 0.5:
                ordeal.kill_station()
                ordeal.start_station()
            else:
                ordeal.broker.kill()
                time.sleep(chance.uniform(0, longest_s / 2))
                ordeal.broker.start()
        return ordeal.settle()


def flapping(seconds: float) -> Found:
    """The broker is killed again and again."""
    chance = random.Random(2)
    with _ordeal(per_s=2) as ordeal:
        by_s = time.monotonic() + seconds
        while time.monotonic() < by_s:
            time.sleep(chance.uniform(1, 30))
            ordeal.broker.kill()
            time.sleep(chance.uniform(0.5, 5))
            ordeal.broker.start()
        return ordeal.settle()


def forgetting(count: int) -> Found:
    """The broker acknowledges events for a consumer that is away, and forgets them all."""
    identity = Identity(STATION)
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder) / "station.db")) as store:
        broker = Broker(Path(folder) / "broker", keeps=False)
        broker.start()
        state = Path(folder) / "heard.json"
        with publishing(store.path, broker.port, identity, backlog_per_s=1e9) as publisher:
            with Consumer(broker.port, state) as consumer:
                store.commit([bad_part(identity)])
                publisher.wake()
                wait_for(lambda: consumer.heard, "the first event")
            for _ in range(0, count, 100):
                store.commit([bad_part(identity) for _ in range(100)])
                publisher.wake()
            wait_for(lambda: store.depth().waiting == 0, "the acknowledgements")
            broker.kill()
            broker.start()
            return _recovered(
                store, broker, state, lambda: (store.commit([bad_part(identity)]), publisher.wake())
            )


def _recovered(store: Store, broker: Broker, state: Path, happen: Callable[[], object]) -> Found:
    """Until the consumer has what was forgotten."""
    started_s = time.monotonic()
    with reading(store.path) as connection:
        owed = {seq for (seq,) in connection.execute("SELECT seq FROM outbox WHERE seq > 1")}
    with Consumer(broker.port, state, asking=Asking(KEY, patience_s=3.0)) as asker:
        happen()
        until(lambda: owed <= asker.heard, SETTLE_S)
        lost = len(owed - asker.heard)
    broker.kill()
    return Found(len(owed) + 1, len(owed), lost, 0, 0, time.monotonic() - started_s)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flap-s", type=float, default=60)
    parser.add_argument("--forget", type=int, default=5000)
    options = parser.parse_args()
    print("| what | events | came by a replay only | lost | sent again | although noted as sent | settled |")
    print("|---|---|---|---|---|---|---|")
    if options.kills:
        _print(f"{options.kills} kills of station or broker", kills(options.kills))
    if options.flap_s:
        _print(f"broker killed again and again for {options.flap_s:g} s", flapping(options.flap_s))
    if options.forget:
        _print("broker forgets what it acknowledged", forgetting(options.forget))


def _print(what: str, found: Found) -> None:
    print(
        f"| {what} | {found.committed} | {found.unheard} | {found.lost} | {found.sent_again} | {found.wrongly} "
        f"| {found.settled_s:.1f} s |",
        flush=True,
    )


if __name__ == "__main__":
    main()
