"""The alarm board: the alarms of a station in its database; a change and its event are one transaction."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pydantic import ValidationError

from kenpin.edge_runtime.alarm import Action, Inputs, Outcome, step
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE, AlarmSpec
from kenpin.edge_runtime.alarm_flood import Flood, flood_step
from kenpin.edge_runtime.alarm_standing import ASIDE, TO_ACK, AlarmState, Now, Standing, alarm_fields
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import explained, transaction
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.part_watch import Values
from kenpin.errors import StoreError
from kenpin.events import Alarm, AlarmEvent, AlarmSummary, now_ms

_KEEP_S = 60.0  # so much of a delay or of the time on a shelf may be forgotten by a power cut

_log = logging.getLogger(__name__)


class AlarmBoard:
    """Steps all alarms of a station and does what operators ask.

    Several processes may have one each: the station steps, publisher and page act for operators. The table is
    the truth; a row that another one has written is taken over.

    Args:
        connection: From `kenpin.edge_runtime.database`; its thread must be the only one to use it.
        identity: Who speaks.
        catalogue: The alarms.
    """

    def __init__(
        self, connection: sqlite3.Connection, identity: Identity, catalogue: Sequence[AlarmSpec] = CATALOGUE
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._catalogue = {alarm.key: alarm for alarm in catalogue}
        self._outbox = Outbox(connection)
        self._standings = {key: Standing() for key in self._catalogue}
        self._rows: dict[str, str] = {}
        self._flood = Flood()
        self._keep_s = 0.0
        self._has_told = False

    def come_round(self, values: Values) -> None:
        """One step of every alarm; once a second is often enough.

        Args:
            values: The values of each alarm since the last round; none, or `None`, where it cannot be told.

        Raises:
            StoreError: It cannot be written; the step is done again with the next round.
        """
        self._take_over(self._read())
        now = _now()  # after it: what an operator did a moment later would look like one of before a boot
        outcomes = self._steps(values, now)
        flood = self._flooded(outcomes, now)
        if not (self._is_news(outcomes, flood) or now.s >= self._keep_s):
            self._standings = {key: outcome.standing for key, outcome in outcomes.items()}
            return
        with transaction(self._connection):
            rows = self._read()
            if rows != self._rows:  # an operator came between
                self._take_over(rows)
                now = _now()
                outcomes = self._steps(values, now)
                flood = self._flooded(outcomes, now)
            self._write_all(outcomes, flood, now)
        for key, outcome in outcomes.items():  # now that they stand; a full disk would say them each second
            self._say(self._catalogue[key], outcome)
        self._keep_s = now.s + _KEEP_S
        self._has_told = True
        if flood.is_on and not self._flood.is_on:
            _log.warning("A flood of alarms: more than ten in ten minutes. Look for the one behind them.")
        self._flood = flood

    def act(self, key: str, action: Action) -> str:
        """Do what an operator asks, in the caller's transaction.

        Args:
            key: The alarm's.
            action: What, and who asks.

        Returns:
            Why it was rejected, in words; empty when it was done.
        """
        alarm = self._catalogue.get(key)
        if alarm is None:
            return f"there is no alarm {key!r}"
        self._take_over(self._read())
        now = _now()
        outcome = step(alarm, self._standings[key], Inputs(action=action), now)
        if not outcome.rejected:
            self._write(alarm, outcome, now)
            self._say(alarm, outcome)
            self._standings[key] = outcome.standing
            self._rows[key] = _text(outcome.standing)
            self._outbox.set_state(self._summary(self._standings, now, is_flood=self._told_flood()))
        return outcome.rejected

    def _steps(self, values: Values, now: Now) -> dict[str, Outcome]:
        return {
            key: _follow(alarm, self._standings[key], values.get(key) or [None], now)
            for key, alarm in self._catalogue.items()
        }

    def _flooded(self, outcomes: Mapping[str, Outcome], now: Now) -> Flood:
        raises = sum(t.name == "raise" for outcome in outcomes.values() for t in outcome.transitions)
        return flood_step(self._flood, raises=raises, now_s=now.s)

    def _is_news(self, outcomes: Mapping[str, Outcome], flood: Flood) -> bool:
        if not self._has_told or flood.is_on != self._flood.is_on:
            return True
        return any(self._has_changed(key, outcome) for key, outcome in outcomes.items())

    def _has_changed(self, key: str, outcome: Outcome) -> bool:
        was, now = self._standings[key], outcome.standing
        told_before, told_now = (was.active, was.chattering), (now.active, now.chattering)
        return bool(outcome.transitions) or told_before != told_now  # what is shelved makes no transition

    def _write_all(self, outcomes: Mapping[str, Outcome], flood: Flood, now: Now) -> None:
        for key, outcome in outcomes.items():
            if self._has_changed(key, outcome) or not self._has_told:
                self._write(self._catalogue[key], outcome, now)
            else:
                self._write_row(key, outcome.standing)
        if self._is_news(outcomes, flood):
            standings = {key: outcome.standing for key, outcome in outcomes.items()}
            self._outbox.set_state(self._summary(standings, now, is_flood=flood.is_on))

    def _write(self, alarm: AlarmSpec, outcome: Outcome, now: Now) -> None:
        """The row, the retained topic, and an event for each transition."""
        fields = alarm_fields(alarm, outcome.standing, now.ms)
        self._write_row(alarm.key, outcome.standing)
        self._outbox.set_state(Alarm.model_validate({**self._identity.common(now.ms), **fields}))
        for transition in outcome.transitions:
            told = {**self._identity.common(transition.ts_ms), **fields, "transition": transition.name}
            told |= {"state": transition.after.value, "occurrence": transition.occurrence}
            self._outbox.put(AlarmEvent.model_validate(told))

    def _write_row(self, key: str, standing: Standing) -> None:
        sql = "INSERT INTO alarm VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET json = excluded.json"
        self._connection.execute(sql, (key, _text(standing)))

    def _summary(self, standings: Mapping[str, Standing], now: Now, *, is_flood: bool) -> AlarmSummary:
        standing_out = [
            self._catalogue[key].priority
            for key, standing in standings.items()
            if standing.state is not AlarmState.NORM and standing.state not in ASIDE
        ]
        return AlarmSummary(
            **self._identity.common(now.ms),
            active_count=sum(s.active and s.state not in ASIDE for s in standings.values()),
            unacked_count=sum(s.state in TO_ACK for s in standings.values()),
            shelved_count=sum(s.state is AlarmState.SHELVED for s in standings.values()),
            highest_priority=max(standing_out, default=0),
            flood=is_flood,
        )

    def _told_flood(self) -> bool:
        """Whether the summary tells of a flood: only the board that steps counts the raises."""
        sql = "SELECT body FROM state WHERE topic = ?"
        row = self._connection.execute(sql, (AlarmSummary.topic,)).fetchone()
        with suppress(ValidationError):  # it was damaged on the disk; the next one replaces it
            return row is not None and AlarmSummary.model_validate_json(row[0]).flood
        return False

    def _read(self) -> dict[str, str]:
        with explained("the station's database"):
            return dict(self._connection.execute("SELECT key, json FROM alarm").fetchall())

    def _take_over(self, rows: Mapping[str, str]) -> None:
        for key, row in rows.items():
            if key in self._standings and row != self._rows.get(key):
                self._standings[key] = _standing(key, row)
        self._rows = dict(rows)

    def _say(self, alarm: AlarmSpec, outcome: Outcome) -> None:
        for transition in outcome.transitions:
            if transition.name == "raise":
                _log.warning("Alarm %s: %s. %s.", alarm.key, alarm.message, alarm.operator_action)


def _now() -> Now:
    return Now(s=time.monotonic(), ms=now_ms())


def _follow(alarm: AlarmSpec, standing: Standing, values: Sequence[float | None], now: Now) -> Outcome:
    """A step for each value."""
    outcome = step(alarm, standing, Inputs(values[0]), now)
    for value in values[1:]:
        after = step(alarm, outcome.standing, Inputs(value), now)
        outcome = Outcome(after.standing, outcome.transitions + after.transitions)
    return outcome


def _text(standing: Standing) -> str:
    return json.dumps(standing.to_json(), sort_keys=True)


def _standing(key: str, row: str) -> Standing:
    try:
        return Standing.from_json(json.loads(row))
    except (StoreError, ValueError) as error:
        _log.warning("The alarm %s starts anew: %s", key, error)
        return Standing()
