"""A day without a broker: what the station's memory does meanwhile, and what arrives when it is back.

    python -m benchmarks.mqtt_outage [--events 86400] [--backlog-per-s 200]

86,400 events are a day of one per second; here they come as fast as the disk takes them. It needs mosquitto.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mqtt_station import TOPIC
from benchmarks.rig import Broker, Listener
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.report import rss_mb
from kenpin.errors import StoreError

_LOOK_S = 1.0


@dataclass(frozen=True)
class Found:
    """What became of it.

    Attributes:
        committed: Events in the outbox.
        lost: Of those, how many never arrived.
        doubles: Events that came again.
        is_in_order: Whether each first arrival had a higher number than the one before.
        offline_mb: Memory of the station with a tenth of the events, and with all of them.
        drained_mb: The most while they were sent.
        drained_s: From the first that arrived until the last was noted as acknowledged.
    """

    committed: int
    lost: int
    doubles: int
    is_in_order: bool
    offline_mb: tuple[float, float]
    drained_mb: float
    drained_s: float


class Station:
    """The station's process.

    Args:
        database: Where it keeps its events.
        port: Where its broker will be.
        options: Of `benchmarks.mqtt_station`.
    """

    def __init__(self, database: Path, port: int, options: tuple[str, ...]) -> None:
        self._database = database
        command = [sys.executable, "-m", "benchmarks.mqtt_station", str(database), str(port), *options]
        self._process = subprocess.Popen(command)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def rss_mb(self) -> float:
        """Its memory, in MB."""
        return rss_mb(self._process.pid)

    def count(self, condition: str = "true") -> int:
        """How many events are like that."""
        try:
            with reading(self._database) as connection:
                (count,) = connection.execute(f"SELECT count(*) FROM outbox WHERE {condition}").fetchone()  # noqa: S608
        except StoreError:
            return 0  # it has only begun
        return int(count)


def outage(root: Path, events: int, backlog_per_s: float) -> Found:
    """Let events wait, then start the broker.

    Args:
        root: An empty folder.
        events: How many.
        backlog_per_s: As in `Desk`.
    """
    broker = Broker(root / "broker")
    pace = ("--per-s", "1e9", "--backlog-per-s", str(backlog_per_s))
    options = ("--count", str(events), "--batch", "100", *pace)
    with closing(Station(root / "station.db", broker.port, options)) as station:
        _until(lambda: station.count() >= events / 10)
        few_mb = station.rss_mb()
        _until(lambda: station.count() >= events)
        many_mb = station.rss_mb()
        broker.start()  # the station tries again after up to 45 s, long after the listener is there
        arrived: list[int] = []
        lasting = ("-V", "5", "-i", "scada", "-c", "-x", "3600")
        asked = ("-q", "1", "-t", f"{TOPIC}/event/#", *lasting)
        with closing(Listener(broker.port, lambda line: arrived.append(json.loads(line)["seq"]), *asked)):
            _until(lambda: bool(arrived))
            started_s = time.monotonic()
            drained_mb = _until(lambda: station.count("acked_ms IS NULL") == 0, station.rss_mb)
            drained_s = time.monotonic() - started_s
            time.sleep(2)
            seqs = list(arrived)
        committed = station.count()
    broker.kill()
    first = list(dict.fromkeys(seqs))
    lost, doubles = committed - len(first), len(seqs) - len(first)
    return Found(committed, lost, doubles, first == sorted(first), (few_mb, many_mb), drained_mb, drained_s)


def _until(condition: Callable[[], bool], measure: Callable[[], float] = lambda: 0.0) -> float:
    """Wait for something; the highest of what was measured meanwhile."""
    highest = measure()
    while not condition():
        time.sleep(_LOOK_S)
        highest = max(highest, measure())
    return highest


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=86_400)
    parser.add_argument("--backlog-per-s", type=float, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = outage(Path(folder), options.events, options.backlog_per_s)
    print("| an outage | measured |\n|---|---|")
    print(f"| events that waited | {found.committed} |")
    print(f"| lost, doubles | {found.lost}, {found.doubles} |")
    print(f"| in their order | {'yes' if found.is_in_order else 'NO'} |")
    print(
        f"| memory with a tenth of them, with all | {found.offline_mb[0]:.1f}, {found.offline_mb[1]:.1f} MB |"
    )
    print(f"| the most while they were sent | {found.drained_mb:.1f} MB |")
    per_s = found.committed / found.drained_s
    print(f"| sent and acknowledged in | {found.drained_s:.0f} s ({per_s:.0f} per second) |")


if __name__ == "__main__":
    main()
