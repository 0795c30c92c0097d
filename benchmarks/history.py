"""The history of a run, checked: what the line asked and was told, what the store holds, what arrived.

The one checker of the kill test, the bad day and the soak. It knows nothing of how the station works.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OWES_EVENT = ("NG", "REVIEW")
# Of a million parts only what is looked at is kept in memory.
_PART = (
    "seq, {number} AS trigger_id, part_id, verdict, released, frame_id, bundle_sha256, threshold_rev, score, t1"
)
_OUTBOX = "seq, part_seq, body"


@dataclass(frozen=True)
class History:
    """What was seen from outside, and what the store says.

    Attributes:
        triggers: Numbers that the line sent, in order.
        parts: Rows of the table of parts, in order.
        outbox: Rows of the outbox, in order.
        outputs: Lines of the output log, in order.
        received: Events as a subscriber received them, in order, duplicates included.
    """

    triggers: Sequence[int]
    parts: Sequence[Mapping[str, Any]]
    outbox: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    received: Sequence[Mapping[str, Any]]

    @classmethod
    def read(
        cls,
        database: Path,
        output_log: Path,
        *,
        triggers: Sequence[int],
        received: Sequence[Mapping[str, Any]],
        number: str = "trigger_id",
    ) -> History:
        """Read what a station left behind.

        Args:
            database: Of the station.
            output_log: Of the station; may be missing.
            triggers: Numbers that the line sent, in order.
            received: What a subscriber received.
            number: Which column counts the parts; `frame_id` where nobody triggers.
        """
        with closing(sqlite3.connect(database)) as connection:
            connection.row_factory = sqlite3.Row
            tables = [
                [dict(row) for row in connection.execute(f"SELECT {columns} FROM {table} ORDER BY seq")]  # noqa: S608
                for table, columns in {"part": _PART.format(number=number), "outbox": _OUTBOX}.items()
            ]
        lines = output_log.read_text().splitlines() if output_log.exists() else []
        return cls(triggers, *tables, [json.loads(line) for line in lines if line.endswith("}")], received)

    def violations(self) -> list[str]:
        """What must not be, in words; empty when all is well."""
        return [
            *self._one_record_each(),
            *self._no_wrong_ok(),
            *self._outputs_are_records(),
            *self._events_are_records(),
            *self._events_arrived(),
        ]

    def _one_record_each(self) -> Iterable[str]:
        records = Counter(part["trigger_id"] for part in self.parts)
        for trigger in self.triggers:
            if records[trigger] != 1:
                yield f"trigger {trigger} has {records[trigger]} records"
        for invented in records.keys() - set(self.triggers):
            yield f"a record for trigger {invented}, which the line never sent"

    def _no_wrong_ok(self) -> Iterable[str]:
        needed = ("frame_id", "bundle_sha256", "threshold_rev", "score", "t1")
        for part in self.parts:
            if part["verdict"] == "OK" and (
                any(part[name] is None for name in needed) or not part["score"] < part["t1"]
            ):
                yield f"part {part['part_id']} is OK without what an OK needs"
            if part["released"] and part["verdict"] != "OK":
                yield f"part {part['part_id']} was released as {part['verdict']}"

    def _outputs_are_records(self) -> Iterable[str]:
        verdicts = {part["trigger_id"]: part["verdict"] for part in self.parts}
        told = Counter(line["trigger_id"] for line in self.outputs if line["pass"])
        for line in self.outputs:
            # What holds a part back may be told before its record; if the station dies between, the record says
            # MISSED, and the part is held back either way.
            if line["pass"] and verdicts.get(line["trigger_id"]) != "OK":
                record = verdicts.get(line["trigger_id"])
                yield f"the line was told to pass {line['part_id']}, whose record is {record}"
        for trigger, count in told.items():
            if count > 1:
                yield f"the line was told {count} times to pass trigger {trigger}"

    def _events_are_records(self) -> Iterable[str]:
        owed = [part["seq"] for part in self.parts if part["verdict"] in _OWES_EVENT]
        paid = [event["part_seq"] for event in self.outbox if event["part_seq"] is not None]
        if owed != paid:
            yield f"{len(owed)} parts owe an event, {len(paid)} events are written, and they do not agree"

    def _events_arrived(self) -> Iterable[str]:
        written = {event["seq"]: json.loads(event["body"]) for event in self.outbox}
        first = {event["seq"]: event.get("late", False) for event in reversed(self.received)}
        order = list(dict.fromkeys(event["seq"] for event in self.received))
        for lost in written.keys() - set(order):
            yield f"event {lost} never arrived"
        # What waited for the broker follows beside what is live; each of the two is in order.
        for kind in (False, True):
            seqs = [seq for seq in order if first[seq] is kind]
            if seqs != sorted(seqs):
                yield "events arrived out of order"
        for event in self.received:
            if written.get(event["seq"], {}).get("id") != event["id"]:
                yield f"event {event['seq']} arrived, and was never written like this"

    def summary(self) -> str:
        """Counts in one line."""
        verdicts = Counter(part["verdict"] for part in self.parts)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        passed = sum(part["released"] for part in self.parts)
        duplicates = len(self.received) - len({event["seq"] for event in self.received})
        return (
            f"{len(self.triggers)} triggers, {len(self.parts)} records ({counted}), {passed} released; "
            f"{len(self.outbox)} events, {len(self.received)} received, {duplicates} of them twice"
        )
