"""Alarms that an operator has to act on, as the station keeps them in its database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kenpin.edge_runtime.alarm_catalogue import CATALOGUE, AlarmSpec
from kenpin.edge_runtime.alarm_standing import TO_ACK, AlarmState, Standing
from kenpin.edge_runtime.database import connect_to_read, explained
from kenpin.errors import StoreError

_SHOWN = (*TO_ACK, AlarmState.ACKED, AlarmState.LATCH_ACKED)


@dataclass(frozen=True)
class ShownAlarm:
    """An alarm that is shown.

    Attributes:
        spec: What it asks of the operator.
        standing: How it stands.
    """

    spec: AlarmSpec
    standing: Standing

    @property
    def is_to_ack(self) -> bool:
        """Whether nobody has acknowledged it yet."""
        return self.standing.state in TO_ACK


def active_alarms(database: Path) -> Sequence[ShownAlarm]:
    """Alarms that are raised, acknowledged or latched; the most urgent first, then the newest.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    with closing(connect_to_read(database)) as connection, explained(database):
        try:
            rows = dict(connection.execute("SELECT key, json FROM alarm").fetchall())
        except sqlite3.OperationalError:
            rows = {}  # a database from before there were alarms
    found = [ShownAlarm(spec, _standing(rows[spec.key])) for spec in CATALOGUE if spec.key in rows]
    shown = [alarm for alarm in found if alarm.standing.state in _SHOWN]
    return sorted(shown, key=lambda a: (-a.spec.priority, not a.is_to_ack, -a.standing.raised_ms))


def _standing(text: str) -> Standing:
    try:
        return Standing.from_json(json.loads(text))
    except (ValueError, StoreError):
        return Standing()  # the station lets a damaged one start anew
