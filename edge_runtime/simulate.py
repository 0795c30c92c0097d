"""A station without camera, engine and line: it says everything that a station can say, flagged as a test.

All of it goes through the real store, outbox and publisher, and the alarms through the real state machine: a
SCADA that shows it right is ready for the real station.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np

from kenpin import __version__
from kenpin.edge_runtime import announce
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.alarm_standing import TO_ACK, AlarmState, alarm_fields
from kenpin.edge_runtime.announce import Identity, State
from kenpin.edge_runtime.command_action import DEFAULT_ACTIONS, WRITE_ACTIONS
from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.region import Region
from kenpin.edge_runtime.room import Room
from kenpin.edge_runtime.simulated_alarm import ACTOR, SimulatedAlarm
from kenpin.edge_runtime.store import Store
from kenpin.events import Alarm, AlarmEvent, AlarmSummary, Anomaly, Audit, Meta, Payload, Reply, now_ms
from kenpin.record import CalibrationRecord

CAMERA = "simulated"
_MODEL = Model("simulated-1", "0" * 64, "int8")
_SCORES = {Verdict.OK: 0.5, Verdict.REVIEW: 1.5, Verdict.NG: 3.0}
_STATES: tuple[State, ...] = ("STARTING", "CALIBRATING", "DEGRADED", "FAULT", "RUNNING")
_REASON = "simulated"
_CHANGES: dict[str, tuple[str, str, str]] = {  # kind of audit -> subject, old, new
    "command": ("ack", "", "ng_rate"),
    "model": ("active", "simulated-0", "simulated-1"),
    "threshold": ("t2", "1.9", "2.0"),
    "config": ("mqtt.results", "off", "all"),
    "user": (ACTOR, "", "logged in"),
    "security": ("command", "", "bad_signature"),
    "gap": ("event/result", "", ""),
}


class SimulatedStation:
    """Walks through everything once.

    Args:
        store: Where events go; its news tell of every part.
        identity: Who speaks; a test.
        set_state: Lets the status say how the station is, and why.
    """

    def __init__(self, store: Store, identity: Identity, set_state: Callable[[State, str], None]) -> None:
        self._store = store
        self._identity = identity
        self._set_state = set_state
        self._alarms = {alarm.key: SimulatedAlarm(alarm) for alarm in CATALOGUE}

        self._record = _record()

    def walk(self) -> Iterator[str]:
        """Say one thing after the other; what it was, in words, after each."""
        self._set([self._meta(), *(self._alarm(key) for key in self._alarms), self._summary()])
        yield "meta and every alarm"
        for state in _STATES:
            self._set_state(state, "" if state == "RUNNING" else _REASON)
            yield f"status {state}"
        for verdict in Verdict:
            self._decide(verdict)
            yield f"part {verdict.value}"
        for kind in get_args(Audit.model_fields["kind"].annotation):
            self._put(self._audit(kind))
            yield f"audit {kind}"
        for action in (*DEFAULT_ACTIONS, *WRITE_ACTIONS):
            self._put(self._reply(action))
            yield f"reply {action}"
        for key in self._alarms:
            yield from self._walk_alarm(key)

    def _walk_alarm(self, key: str) -> Iterator[str]:
        for transition in self._alarms[key].walk():
            event = AlarmEvent(**self._common(), **self._stands(key), transition=transition.name)
            self._set([self._alarm(key), self._summary()], event)
            yield f"alarm {key}: {transition.name}, {transition.after.value}"

    def _put(self, event: Payload) -> None:
        self._set([], event)

    def _set(self, retained: list[Payload], event: Payload | None = None) -> None:
        def write(_: object, outbox: Outbox) -> None:
            for payload in retained:
                outbox.set_state(payload)
            if event is not None:
                outbox.put(event)

        self._store.change(write)

    def _decide(self, verdict: Verdict) -> None:
        part = self._part(verdict)
        is_bad = verdict in (Verdict.NG, Verdict.REVIEW)
        event: Anomaly | None = announce.anomaly(self._identity, part, ng_rate=0.2) if is_bad else None
        self._store.commit([(part, event)])
        self._store.flush()  # nobody holds an OK back here: it is the last part at once

    def _part(self, verdict: Verdict) -> Part:
        score = _SCORES.get(verdict)
        levels = None if score is None else (score / 2, score, score / 4)
        scored = None if levels is None else Scored(levels[1], levels, np.zeros((2, 2), np.float32))
        reason = "" if scored is not None else _REASON
        now = now_ms()
        return Part(
            f"simulated-{now}",
            CAMERA,
            self._identity.session_id,
            now,
            time.monotonic_ns(),
            Decision(verdict, reason, scored, reason),
            infer_ms=5.0,
            model=_MODEL,
            record=self._record,
            frame_id=1,
            region=None if scored is None else Region(8, 8, 16, 16, 200),
        )

    def _audit(self, kind: str) -> Audit:
        subject, old, new = _CHANGES[kind]
        gap = {"gap_first_seq": 1, "gap_last_seq": 1, "gap_count": 1} if kind == "gap" else {}
        what: dict[str, Any] = {"kind": kind, "subject": subject, "old": old, "new": new, **gap}
        return Audit(**self._common(), actor=ACTOR, reason=_REASON, **what)

    def _reply(self, action: str) -> Reply:
        is_done = action in DEFAULT_ACTIONS
        return Reply(
            **self._common(),
            action=action,
            cmd_id=ACTOR,
            ok=is_done,
            reason="" if is_done else "not_allowed",
            message="" if is_done else "the station does not allow it",
        )

    def _meta(self) -> Meta:
        room = Room()
        return Meta(
            **self._common(),
            sw_version=__version__,
            model_id=_MODEL.name,
            threshold_rev=self._record.rev,
            camera_ids=CAMERA,
            alarm_keys=",".join(self._alarms),
            outbox_max_bytes=room.max_bytes,
            outbox_min_free_bytes=room.min_free_bytes,
            results="all",
        )

    def _alarm(self, key: str) -> Alarm:
        return Alarm(**self._common(), **self._stands(key))

    def _summary(self) -> AlarmSummary:
        alarms = self._alarms.values()
        active = [one.alarm.priority for one in alarms if one.standing.active]
        return AlarmSummary(
            **self._common(),
            active_count=len(active),
            unacked_count=sum(one.standing.state in TO_ACK for one in alarms),
            shelved_count=sum(one.standing.state is AlarmState.SHELVED for one in alarms),
            highest_priority=max(active, default=0),
        )

    def _stands(self, key: str) -> dict[str, Any]:
        one = self._alarms[key]
        return dict(alarm_fields(one.alarm, one.standing, now_ms()))

    def _common(self) -> dict[str, Any]:
        return self._identity.common(now_ms())


def _record() -> CalibrationRecord:
    return CalibrationRecord(
        rev=1,
        created_ms=0,
        bundle_sha256=_MODEL.bundle_sha256,
        precision=_MODEL.precision,
        t1=1.0,
        t2=2.0,
        method=_REASON,
        good={"good": 0.5},
        masters={},
        false_calls=None,
        caught=None,
        by=ACTOR,
        why=_REASON,
        software=__version__,
        previous_sha256="",
    )
