"""What the demo's line delivered: verdicts against the truth, events against what a reader received."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from kenpin.folder_names import GOOD

_MEANING: Mapping[str, str] = MappingProxyType(
    {
        "OK": "released",
        "REVIEW": "stopped, for a person to judge",
        "NG": "stopped",
        "MISSED": "stopped: no usable frame in time",
        "NO_DECISION": "stopped: it could not be judged",
    }
)


@dataclass(frozen=True)
class StoredPart:
    """One row of the station's store.

    Attributes:
        part_id: Identity of the part.
        verdict: What the station decided.
        latency_ms: From capture to verdict.
        decided_ns: UTC of the verdict, nanoseconds since 1970.
        event_id: Id of its event, empty without one.
        acked: Whether the broker has acknowledged the event.
    """

    part_id: str
    verdict: str
    latency_ms: float
    decided_ns: int
    event_id: str
    acked: bool


@dataclass(frozen=True)
class Times:
    """Median and 99th percentile in milliseconds; zero where nothing was timed."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Times:
        """Summarise times."""
        if not values_ms:
            return cls(0.0, 0.0)
        p50, p99 = np.percentile(values_ms, (50, 99))
        return cls(round(float(p50), 2), round(float(p99), 2))

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


@dataclass(frozen=True)
class LineResult:
    """The line in figures.

    Attributes:
        verdicts: Number of parts by (verdict, truly good).
        kinds: Per kind of defect, how many were stopped and how many there were.
        written: Events in the station's store.
        sent: Events that the broker acknowledged.
        received: Events of the store that the independent reader received.
        unknown: Events it received that are not in the store.
        to_verdict: From capture to verdict.
        to_subscriber: From verdict to the reader.
    """

    verdicts: Mapping[tuple[str, bool], int]
    kinds: Mapping[str, tuple[int, int]]
    written: int
    sent: int
    received: int
    unknown: int
    to_verdict: Times
    to_subscriber: Times

    def count(self, *verdicts: str, good: bool) -> int:
        """Number of truly good or truly bad parts with one of these verdicts; without any, all."""
        return sum(self.verdicts.get((verdict, good), 0) for verdict in verdicts or _MEANING)

    @property
    def escapes(self) -> int:
        """Bad parts that were released."""
        return self.count("OK", good=False)

    @property
    def false_calls(self) -> int:
        """Good parts that were judged and stopped."""
        return self.count("REVIEW", "NG", good=True)

    @property
    def events_agree(self) -> bool:
        """Whether every event that was written arrived, and no other."""
        return self.written == self.sent == self.received and self.unknown == 0

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "parts": self.count(good=True) + self.count(good=False),
            "verdicts": {
                v: {"good": self.count(v, good=True), "bad": self.count(v, good=False)} for v in _MEANING
            },
            "kinds": {kind: {"stopped": s, "of": n} for kind, (s, n) in self.kinds.items()},
            "escapes": self.escapes,
            "false_calls": self.false_calls,
            "events": {
                "written": self.written,
                "sent": self.sent,
                "received": self.received,
                "unknown": self.unknown,
                "agree": self.events_agree,
            },
            "capture_to_verdict": vars(self.to_verdict),
            "verdict_to_subscriber": vars(self.to_subscriber),
        }


def read_store(database: Path) -> list[StoredPart]:
    """Read every part and its event from a station's store."""
    query = """SELECT part_id, verdict, latency_ms, decided_ns,
                      coalesce(json_extract(body, '$.id'), ''), acked_ms IS NOT NULL
               FROM part LEFT JOIN outbox ON outbox.part_seq = part.seq ORDER BY part.seq"""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as store:
        return [StoredPart(*row) for row in store.execute(query)]


def compare(
    parts: Sequence[StoredPart], truth: Mapping[str, str], received_ns: Mapping[str, int]
) -> LineResult:
    """Compare what the station decided and sent with the truth and with what was received.

    Args:
        parts: The station's store.
        truth: Label of each part, by id.
        received_ns: When the reader received each event, UTC in nanoseconds, by event id.
    """
    bad = [p for p in parts if truth[p.part_id] != GOOD]
    of = Counter(truth[p.part_id] for p in bad)
    stopped = Counter(truth[p.part_id] for p in bad if p.verdict != "OK")
    events = {p.event_id: p for p in parts if p.event_id}
    arrived = events.keys() & received_ns.keys()
    return LineResult(
        verdicts=Counter((p.verdict, truth[p.part_id] == GOOD) for p in parts),
        kinds={kind: (stopped[kind], of[kind]) for kind in sorted(of)},
        written=len(events),
        sent=sum(p.acked for p in events.values()),
        received=len(arrived),
        unknown=len(received_ns.keys() - events.keys()),
        to_verdict=Times.of([p.latency_ms for p in parts]),
        to_subscriber=Times.of([(received_ns[e] - events[e].decided_ns) / 1e6 for e in arrived]),
    )


def verdict_table(result: LineResult) -> Table:
    """Verdicts against the truth."""
    table = Table(title="Verdicts against the truth")
    for column in ("verdict", "good parts", "bad parts", "meaning"):
        table.add_column(column, justify="right" if column.endswith("parts") else "left")
    for verdict, meaning in _MEANING.items():
        counts = (str(result.count(verdict, good=good)) for good in (True, False))
        table.add_row(verdict, *counts, meaning)
    table.add_section()
    for kind, (stopped, of) in result.kinds.items():
        table.add_row(kind, "", f"{stopped} of {of}", "stopped")
    return table
