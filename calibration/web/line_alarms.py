"""Alarms that an operator has to act on, as the station keeps them in its database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kenpin.edge_runtime.alarm_catalogue import CATALOGUE, AlarmSpec
from kenpin.edge_runtime.alarm_standing import TO_ACK, AlarmState, Standing
from kenpin.edge_runtime.database import reading
from kenpin.errors import StoreError

SHELVE_MIN = 30
ACTIVE = (*TO_ACK, AlarmState.ACKED, AlarmState.LATCH_ACKED)
_LISTED = (*ACTIVE, AlarmState.SHELVED)

Deed = Literal["ack", "reset", "shelve", "unshelve"]


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

    @property
    def deeds(self) -> Sequence[Deed]:
        """What can be done to it now."""
        state = self.standing.state
        if state is AlarmState.SHELVED:
            return ("unshelve",)
        first: Sequence[Deed] = ("ack",) if self.is_to_ack else ()
        if state is AlarmState.LATCH_ACKED:
            first = ("reset",)
        may_shelve = self.standing.active and self.spec.max_shelve_min >= SHELVE_MIN
        return (*first, "shelve") if may_shelve else first


def shown_alarms(database: Path) -> Sequence[ShownAlarm]:
    """Alarms that are raised, acknowledged, latched or set aside; the most urgent first, then the newest.

    Args:
        database: The station's database.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    with reading(database) as connection:
        try:
            rows = dict(connection.execute("SELECT key, json FROM alarm").fetchall())
        except sqlite3.OperationalError:
            rows = {}  # a database from before there were alarms
    found = [ShownAlarm(spec, _standing(rows[spec.key])) for spec in CATALOGUE if spec.key in rows]
    shown = [alarm for alarm in found if alarm.standing.state in _LISTED]
    return sorted(shown, key=lambda a: (-a.spec.priority, not a.is_to_ack, -a.standing.raised_ms))


def _standing(text: str) -> Standing:
    try:
        return Standing.from_json(json.loads(text))
    except (ValueError, StoreError):
        return Standing()  # the station lets a damaged one start anew
