"""The report: what a run of the station did."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.outbox import Depth


@dataclass(frozen=True)
class Report:
    """What a run of the station did.

    Attributes:
        counters: Parts and times.
        events_acked: Events of parts that the broker acknowledged in this run.
        depth: How full the outbox is left.
        precision: Which model ran; empty without an engine.
        session_id: The session in the store and in the events.
        rss_mb: Resident memory of the station's process, in MB.
    """

    counters: Snapshot
    events_acked: int
    depth: Depth
    precision: str
    session_id: str
    rss_mb: float


def rss_mb(pid: int | str = "self") -> float:
    """Resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
