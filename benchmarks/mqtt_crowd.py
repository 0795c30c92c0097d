"""A thousand stations at one broker: how long an event of the unluckiest takes, and all coming back at once.

    python -m benchmarks.mqtt_crowd [--stations 1000] [--processes 10] [--every-s 10] [--away-s 90]

Each has its store and its publisher, as at a line. With TMPDIR=/dev/shm the databases need not share one disk,
as they do not in a plant. It needs mosquitto.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.mqtt_station import LINE, bad_part, publishing
from benchmarks.rig import Broker, Listener
from kenpin.edge_runtime import publisher
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.store import Store
from kenpin.events import now_ms

_LIMIT_S = 600.0
_TICK_S = 2.0
Stand: TypeAlias = tuple[int, int]  # connections so far, and events that wait


@dataclass(frozen=True)
class Share:
    """The stations of one process.

    Attributes:
        root: Where their databases lie.
        port: Of the broker.
        numbers: Of the stations.
        every_s: From one event of a station to the next.
    """

    root: Path
    port: int
    numbers: range
    every_s: float

    def database(self, number: int) -> Path:
        """Of a station."""
        return self.root / f"st{number}.db"


class Station:
    """One of many.

    Args:
        share: Whose it is.
        number: Which.
        stack: Ends it.
    """

    def __init__(self, share: Share, number: int, stack: ExitStack) -> None:
        self._identity = Identity(f"st{number}")
        self._store = stack.enter_context(closing(Store(share.database(number))))
        self.publisher: Publisher = stack.enter_context(
            publishing(self._store.path, share.port, self._identity)
        )
        self._every_s = share.every_s
        self._due_s = time.monotonic() + random.uniform(0, share.every_s)

    def come_round(self) -> None:
        """Commit an event where it is time."""
        if time.monotonic() >= self._due_s:
            self._due_s += self._every_s
            self._store.commit([bad_part(self._identity)])
            self.publisher.wake()

    def stands(self) -> Stand:
        """How it stands."""
        return self.publisher.traffic.connections, self._store.depth().waiting


def live(share: Share, pipe: Connection) -> None:
    """Let the stations of a process live, and tell how they stand when asked."""
    logging.disable(logging.WARNING)  # an absent broker is part of it
    # Many share a processor here: they look less often for what nobody told them, and take turns less often.
    publisher._TICK_S = _TICK_S
    sys.setswitchinterval(0.1)
    with ExitStack() as stack:
        stations = [Station(share, number, stack) for number in share.numbers]
        while not pipe.closed:
            for station in stations:
                station.come_round()
            if pipe.poll(0.05):
                pipe.recv()
                pipe.send([station.stands() for station in stations])


class Crowd:
    """All stations.

    Args:
        shares: One for each process.
    """

    def __init__(self, shares: list[Share]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for share in shares:
            here, there = spawn.Pipe()
            process = spawn.Process(target=live, args=(share, there), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def until(self, are_so: Callable[[list[Stand]], bool]) -> float:
        """Wait until it is so; seconds."""
        started_s = time.monotonic()
        while not are_so(self.stand()):
            if time.monotonic() - started_s > _LIMIT_S:
                raise RuntimeError(f"it is not so after {_LIMIT_S:g} s")
            time.sleep(0.2)
        return time.monotonic() - started_s

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.join()

    def stand(self) -> list[Stand]:
        """How each station stands, in their order."""
        for pipe in self._pipes:
            pipe.send(None)
        return [stands for pipe in self._pipes for stands in pipe.recv()]


class Waits:
    """How long after each decision its event came, by station."""

    def __init__(self) -> None:
        self.ms: defaultdict[str, list[int]] = defaultdict(list)

    def note(self, line: str) -> None:
        """An event has come."""
        event = json.loads(line)
        self.ms[event["station"]].append(now_ms() - event["ts_ms"])


def crowd(root: Path, options: argparse.Namespace) -> None:
    """Let them come, live in peace, lose the broker and come back; print a table."""
    broker = Broker(root / "broker", keeps=False)
    each = options.stations // options.processes
    parts = [range(n * each, (n + 1) * each) for n in range(options.processes)]
    shares = [Share(root, broker.port, part, options.every_s) for part in parts]
    broker.start()
    waits = Waits()
    events = ("-q", "1", "-t", f"{LINE}/+/event/#")
    with closing(Crowd(shares)) as stations, closing(Listener(broker.port, waits.note, *events)):
        never = [(0, 0)] * (each * options.processes)
        _row("all connected the first time", f"{stations.until(lambda stands: _are_back(stands, never)):.0f} s")
        waits.ms.clear()
        time.sleep(options.calm_s)
        _tell_waits(dict(waits.ms), len(never))
        before = stations.stand()
        broker.kill()
        time.sleep(options.away_s)
        broker.start()
        back_s = stations.until(lambda stands: _are_back(stands, before))
        settled_s = back_s + stations.until(_are_done)
    broker.kill()
    _row(f"all back after {options.away_s:g} s without a broker", f"{back_s:.0f} s")
    _row("and no backlog left", f"{settled_s:.0f} s")


def _are_back(stands: list[Stand], before: list[Stand]) -> bool:
    return all(now[0] > then[0] for now, then in zip(stands, before, strict=True))


def _are_done(stands: list[Stand]) -> bool:
    return all(waiting <= 1 for _, waiting in stands)  # new ones come all the time


def _tell_waits(waits: dict[str, list[int]], stations: int) -> None:
    every = [wait for of_station in waits.values() for wait in of_station]
    p50, p99 = np.percentile(every, (50, 99))
    _row("stations, heard of, events", f"{stations}, {len(waits)}, {len(every)}")
    _row("fewest and most of a station", f"{min(map(len, waits.values()))}, {max(map(len, waits.values()))}")
    _row("decision to subscriber", f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {max(every)} ms")


def _row(what: str, measured: str) -> None:
    print(f"| {what} | {measured} |", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stations", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--every-s", type=float, default=10)
    parser.add_argument("--calm-s", type=float, default=60)
    parser.add_argument("--away-s", type=float, default=90)
    print("| many stations | measured |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        crowd(Path(folder), parser.parse_args())


if __name__ == "__main__":
    main()
