"""A station of events only, for the benchmarks of MQTT: store, outbox and publisher, without camera and engine.

    python -m benchmarks.mqtt_station DATABASE PORT [--per-s 2] [--count 100] [--batch 1] [--backlog-per-s 200]

It commits parts with their events until it is killed, and answers requests for stored events.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.rig import RECORD
from kenpin.edge_runtime import announce
from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.command import Accepted, Context, check
from kenpin.edge_runtime.command_action import Replay
from kenpin.edge_runtime.command_key import CommandKey
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.region import Region
from kenpin.edge_runtime.store import Store
from kenpin.events import Anomaly, Reply, now_ms

LINE = "bench/line"
STATION = "st1"
TOPIC = f"{LINE}/{STATION}"
KEY = CommandKey("bench", b"0123456789abcdef0123456789abcdef")
_SCORED = Scored(
    3.8502984046936035, (2.0388712882995605, 3.92034912109375, 3.3118605613708496), np.zeros((28, 28))
)


def bad_part(identity: Identity) -> tuple[Part, Anomaly]:
    """A part that is NG, and its event."""
    part = Part(
        part_id="lamp-1-000010",
        camera="cam",
        session_id=identity.session_id,
        ts_ms=now_ms(),
        captured_ns=time.monotonic_ns(),
        decision=Decision(Verdict.NG, scored=_SCORED),
        infer_ms=5.3,
        model=Model("lamp-1", "ab" * 32, "int8"),
        record=RECORD,
        region=Region(104, 136, 80, 88, 5184),
        image_ref="2026/11/27/01a20aa8-00ef-7d36-ad7c-57848fcd2585.png",
    )
    return part, announce.anomaly(identity, part, ng_rate=0.27)


@dataclass
class Replayer:
    """Carries out signed requests for stored events, and nothing else."""

    path: Path
    identity: Identity
    publisher: Publisher | None = None

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        """Send again what is asked for, and answer."""
        verdict = check(body, retained=retained, context=_context(self.identity.station))
        if not isinstance(verdict, Accepted) or not isinstance(verdict.command, Replay):
            logging.error("%s was refused: %s", topic, verdict)
            return
        assert self.publisher is not None
        common = self.identity.common(now_ms())
        reply = Reply(**common, action="replay", cmd_id=verdict.command.cmd_id, ok=True)
        with closing(connect(self.path)) as connection, transaction(connection):
            outbox = Outbox(connection)
            outbox.send_again(since=verdict.command.since_seq, count=verdict.command.count)
            outbox.put(reply)
        self.publisher.look_back()


def _context(station: str) -> Context:
    return Context(
        keys={KEY.kid: KEY},
        station=station,
        now_ms=now_ms(),
        clock_ok=True,
        seen=lambda _cmd_id: False,
        allowance=Allowance(5),
    )


@contextmanager
def publishing(path: Path, port: int, identity: Identity, *, backlog_per_s: float = 200) -> Iterator[Publisher]:
    """A publisher on a database."""
    replayer = Replayer(path, identity)
    address = BrokerAddress("127.0.0.1", port, identity.station)
    desk = Desk(
        address, f"{LINE}/{identity.station}", identity, path, Counters().snapshot, replayer, backlog_per_s
    )
    publisher = replayer.publisher = Publisher(desk)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop(reason="shutdown", drain_s=0)


def main() -> None:
    """Commit parts, then only publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--per-s", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=1 << 60)
    parser.add_argument("--batch", type=int, default=1, help="parts in one commit")
    parser.add_argument("--backlog-per-s", type=float, default=200)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # an absent broker is part of it
    identity = Identity(STATION)
    backlog_per_s = options.backlog_per_s
    with (
        closing(Store(options.database)) as store,
        publishing(store.path, options.port, identity, backlog_per_s=backlog_per_s) as publisher,
    ):
        for _ in range(0, options.count, options.batch):
            store.commit([bad_part(identity) for _ in range(options.batch)])
            publisher.wake()
            time.sleep(options.batch / options.per_s)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
