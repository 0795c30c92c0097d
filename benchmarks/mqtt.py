"""What the way of an event to the broker takes: time, disk and memory, with the store synced at each commit.

    python -m benchmarks.mqtt [--seconds 20] [--backlog 5000] [--offline 100000]

It starts mosquitto on loopback, or amqtt where there is none, which is slower.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from kenpin.broker import DemoBroker, demo_broker
from kenpin.config import MqttSection
from kenpin.edge_runtime import announce
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.database import open_database, transaction
from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.link_signal import Acked
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.region import Region
from kenpin.edge_runtime.report import rss_mb
from kenpin.edge_runtime.room import Room
from kenpin.edge_runtime.store import Part, Store
from kenpin.events import Anomaly, now_ms
from kenpin.machine_state import processor
from kenpin.record import Bound, CalibrationRecord
from kenpin.train.run import git_commit

PER_S = 50
IDENTITY = Identity("bench")
SCORED = Scored(3.85, (2.0, 3.9, 3.3), np.zeros((28, 28), np.float32))
RECORD = CalibrationRecord(
    rev=1,
    created_ms=0,
    bundle_sha256="ab" * 32,
    precision="int8",
    t1=2.0,
    t2=2.5,
    method="benchmark",
    good={"a.png": 1.0},
    masters={},
    false_calls=Bound(seen=0, of=3, bound=0.7, confidence=0.95),
    caught=None,
    by="benchmark",
    why="benchmark",
    software="0",
    previous_sha256="",
)


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
            *live(root / "live.db", broker, options.seconds),
            (
                "backlog, as fast as it goes",
                f"{drain(root / 'a.db', broker, options.backlog, 1e9):.0f} events/s",
            ),
            (
                "backlog, default pace",
                f"{drain(root / 'b.db', broker, min(options.backlog, 1000), 200):.0f} events/s",
            ),
            *offline(root / "offline.db", options.offline),
        ]
    today = f"{datetime.now(tz=timezone.utc):%Y-%m-%d}"
    print(f"{processor()}, {today}, commit {git_commit()}, {broker.name}, Python {sys.version.split()[0]}\n")
    print("| what | measured |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def live(path: Path, broker: DemoBroker, seconds: int) -> Iterator[tuple[str, str]]:
    """From the decision to the broker's acknowledgement, and how long the line waits for its commit."""
    commits_ms, decided_s = [], {}
    with closing(Store(path)) as store, publishing(path, broker.url) as publisher:
        acked_s = _watch_acknowledgements(publisher)
        _wait_for_connection(publisher)
        start_s = time.perf_counter()
        for number in range(seconds * PER_S):
            time.sleep(max(0.0, start_s + number / PER_S - time.perf_counter()))
            part, event = _anomaly()
            before_s = time.perf_counter()
            (seq,) = store.commit([(part, event)])
            publisher.wake()
            commits_ms.append((time.perf_counter() - before_s) * 1000)
            decided_s[seq] = before_s  # the only events are those of parts, so both count alike
        _wait(publisher, len(decided_s))
    waits_ms = [(acked_s[seq] - decided_s[seq]) * 1000 for seq in decided_s]
    yield f"decision to PUBACK, {PER_S} events/s", _quantiles(waits_ms)
    yield "commit of a part with its event", _quantiles(commits_ms)


def drain(path: Path, broker: DemoBroker, count: int, backlog_per_s: float) -> float:
    """Events per second that waited when the connection came."""
    with closing(Store(path)) as store:
        for _ in range(0, count, 100):
            store.commit([_anomaly() for _ in range(100)])
        with publishing(path, broker.url, backlog_per_s) as publisher:
            _wait_for_connection(publisher)
            start_s = time.perf_counter()
            _wait(publisher, count // 100 * 100)
            return count / (time.perf_counter() - start_s)


def offline(path: Path, count: int) -> Iterator[tuple[str, str]]:
    """Memory and disk while the broker is away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"mqtt://127.0.0.1:{probe.getsockname()[1]}"
    connection = open_database(path)
    outbox = Outbox(connection, Room(1 << 40))
    _, event = _anomaly()
    body = event.to_json().decode()
    with publishing(path, nobody):
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


@contextmanager
def publishing(path: Path, url: str, backlog_per_s: float = 200) -> Iterator[Publisher]:
    """A publisher on a database."""
    address = BrokerAddress.from_config(MqttSection(url=url), client_id="bench")
    desk = Desk(address, "bench/st", IDENTITY, path, Counters().snapshot, backlog_per_s=backlog_per_s)
    publisher = Publisher(desk)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop(reason="shutdown", drain_s=0)


def _anomaly() -> tuple[Part, Anomaly]:
    part = Part(
        part_id="lamp-1-000010",
        camera="cam",
        session_id=IDENTITY.session_id,
        ts_ms=now_ms(),
        captured_ns=time.monotonic_ns(),
        decision=Decision(Verdict.NG, scored=SCORED),
        infer_ms=5.3,
        model=Model("lamp-1", "ab" * 32, "int8"),
        record=RECORD,
        region=Region(104, 136, 80, 88, 5184),
        image_ref="2026/11/27/01a20aa8-00ef-7d36-ad7c-57848fcd2585.png",
    )
    return part, announce.anomaly(IDENTITY, part, ng_rate=0.27)


def _watch_acknowledgements(publisher: Publisher) -> dict[int, float]:
    """By number of the event, when its acknowledgement came to the publisher's thread."""
    found: dict[int, float] = {}
    delivery = publisher._delivery
    usual = delivery.take

    def take(answer: Acked) -> None:
        sent = delivery._on_way.get(answer.mid)
        if sent is not None:
            found[sent[0]] = time.perf_counter()
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


def _quantiles(milliseconds: list[float]) -> str:
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


if __name__ == "__main__":
    main()
