"""What the way of an event to the broker takes: time, disk and memory, with the store synced at each commit.

    python -m benchmarks.mqtt [--seconds 20] [--backlog 5000] [--offline 100000]

It starts mosquitto on loopback, or amqtt where there is none, which is slower.
"""

from __future__ import annotations

import argparse
import logging
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.mqtt_station import STATION, bad_part, publishing
from benchmarks.stamp import stamp
from kenpin.broker import DemoBroker, demo_broker, held_port
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import connect, open_database, transaction
from kenpin.edge_runtime.link_signal import Acked
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.report import rss_mb
from kenpin.edge_runtime.room import Room
from kenpin.edge_runtime.store import Store

PER_S = 50
IDENTITY = Identity(STATION)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--backlog", type=int, default=5000)
    parser.add_argument("--offline", type=int, default=100_000)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # an absent broker is part of it
    with tempfile.TemporaryDirectory() as folder, demo_broker(None, Path(folder)) as broker:
        root = Path(folder)
        rows = [
            *live(root / "live.db", _port(broker), options.seconds),
            *hand_over(root / "put.db"),
            (
                "backlog, as fast as it goes",
                f"{drain(root / 'a.db', _port(broker), options.backlog, 1e9):.0f} events/s",
            ),
            (
                "backlog, default pace",
                f"{drain(root / 'b.db', _port(broker), min(options.backlog, 1000), 200):.0f} events/s",
            ),
            *offline(root / "offline.db", options.offline),
        ]
    print(f"{stamp()}, {broker.name}, Python {sys.version.split()[0]}\n")
    print("| what | measured |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def live(path: Path, port: int, seconds: int) -> Iterator[tuple[str, str]]:
    """From the decision to the broker's acknowledgement, and how long the line waits for its commit.

    Beside each commit the disk is measured: the smallest that SQLite does with as many bytes.
    """
    commits_ms, bare_ms, decided_s = [], [], {}
    with (
        closing(Store(path)) as store,
        closing(_bare(path.with_name("bare.db"))) as bare,
        publishing(path, port, IDENTITY) as publisher,
    ):
        acked_s = _watch_acknowledgements(publisher)
        _wait_for_connection(publisher)
        start_s = time.perf_counter()
        for number in range(seconds * PER_S):
            time.sleep(max(0.0, start_s + number / PER_S - time.perf_counter()))
            entry = bad_part(IDENTITY)
            before_s = time.perf_counter()
            (seq,) = store.commit([entry])
            publisher.wake()
            commits_ms.append((time.perf_counter() - before_s) * 1000)
            decided_s[seq] = before_s  # the only events are those of parts, so both count alike
            bare_ms.append(_milliseconds(lambda: bare.execute("INSERT INTO row VALUES (?)", (bytes(1500),))))
        _wait(publisher, len(decided_s))
    waits_ms = [(acked_s[seq] - decided_s[seq]) * 1000 for seq in decided_s]
    yield f"decision to PUBACK, {PER_S} events/s", _quantiles(waits_ms)
    yield "commit of a part with its event", _quantiles(commits_ms)
    yield "bare commit of as many bytes, in turn with it", _quantiles(bare_ms)


def hand_over(path: Path) -> Iterator[tuple[str, str]]:
    """What the event adds to the transaction of the part, without the commit."""
    _, event = bad_part(IDENTITY)
    puts_ms: list[float] = []
    work_ms: list[float] = []
    with closing(open_database(path)) as connection:
        outbox = Outbox(connection)
        for _ in range(200):
            with transaction(connection):
                for _ in range(10):
                    before_s = time.thread_time()
                    puts_ms.append(_milliseconds(lambda: outbox.put(event)))
                    work_ms.append((time.thread_time() - before_s) * 1000)
    yield "`put` in an open transaction", _quantiles(puts_ms, digits=2)
    yield "of that, the processor's time", _quantiles(work_ms, digits=2)


def drain(path: Path, port: int, count: int, backlog_per_s: float) -> float:
    """Events per second that waited when the connection came."""
    batches = -(-count // 100)
    with closing(Store(path)) as store:
        for _ in range(batches):
            store.commit([bad_part(IDENTITY) for _ in range(100)])
        with publishing(path, port, IDENTITY, backlog_per_s=backlog_per_s) as publisher:
            _wait_for_connection(publisher)
            start_s = time.perf_counter()
            _wait(publisher, 100 * batches)
            return 100 * batches / (time.perf_counter() - start_s)


def offline(path: Path, count: int) -> Iterator[tuple[str, str]]:
    """Memory and disk while the broker is away."""
    connection = open_database(path)
    outbox = Outbox(connection, Room(1 << 40))
    _, event = bad_part(IDENTITY)
    body = event.to_json().decode()
    with held_port() as port, publishing(path, port, IDENTITY):
        _fill(outbox, connection, body, count // 10)
        before_mb = rss_mb()
        _fill(outbox, connection, body, count - count // 10)
        after_mb = rss_mb()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    size = path.stat().st_size
    yield f"memory over {count} offline events", f"{before_mb:.1f} -> {after_mb:.1f} MB"
    yield f"disk per event of {len(body)} B", f"{size / count:.0f} B"
    yield "events in 256 MiB", f"{(256 << 20) / (size / count):.0f}"


def _port(broker: DemoBroker) -> int:
    return int(broker.url.rpartition(":")[2])


def _bare(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("CREATE TABLE row (bytes BLOB)")
    return connection


def _milliseconds(step: Callable[[], object]) -> float:
    before_s = time.perf_counter()
    step()
    return (time.perf_counter() - before_s) * 1000


def _watch_acknowledgements(publisher: Publisher) -> dict[int, float]:
    """By number of the event, when its acknowledgement came to the publisher's thread."""
    found: dict[int, float] = {}
    delivery = publisher._delivery
    usual = delivery.take

    def take(answer: Acked) -> None:
        sent = delivery._on_way.get(answer.mid)
        if sent is not None:
            found[sent.seq] = time.perf_counter()
        usual(answer)

    delivery.take = take  # type: ignore[method-assign]
    return found


def _fill(outbox: Outbox, connection: sqlite3.Connection, body: str, count: int) -> None:
    for _ in range(0, count, 100):
        with transaction(connection):
            for _ in range(100):
                outbox.append("event/anomaly", body)


def _wait_for_connection(publisher: Publisher) -> None:
    while not publisher.traffic.connections:
        time.sleep(0.001)


def _wait(publisher: Publisher, count: int) -> None:
    by_s = time.monotonic() + 300
    while publisher.traffic.acked < count and time.monotonic() < by_s:
        time.sleep(0.001)


def _quantiles(milliseconds: list[float], *, digits: int = 1) -> str:
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return f"p50 {p50:.{digits}f} ms, p99 {p99:.{digits}f} ms"


if __name__ == "__main__":
    main()
