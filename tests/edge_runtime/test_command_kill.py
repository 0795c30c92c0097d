"""Killed at every step of a command: no answer without its record, no record lost; sent again, it is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kenpin.audit import Entry, append, audit_file
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.audit_mirror import AuditMirror
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.outbox import Outbox
from kenpin.hold import read_hold
from kenpin.ledger import lines_of
from kenpin.record import station_records
from tests.edge_runtime.command_desk import Desk

pytestmark = pytest.mark.usefixtures("synchronised")

# Calls that change what is on the disk, of SQLite and of files. A process is killed just before one of them.
TOUCHES = {"execute", "write", "flush", "fsync", "truncate", "replace", "unlink"}
MOST_STEPS = 200
MOVED = 95.0


def killed_at(step: int, act: Callable[[], None]) -> bool:
    """Act in a process that is killed at its step-th touch of the disk; whether it came so far."""
    child = os.fork()
    if child == 0:
        _act_until(step, act)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _act_until(step: int, act: Callable[[], None]) -> None:
    left = [step]

    def count(_frame: object, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in TOUCHES:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.setprofile(count)
        act()
        sys.setprofile(None)
        os._exit(0)
    finally:
        os._exit(1)


def topics(desk: Desk) -> list[tuple[str, int]]:
    """What the outbox has of audit and answers, in order: the topic, and the row's number of an audit event."""
    with closing(sqlite3.connect(desk.folder.database)) as connection:
        rows = connection.execute("SELECT topic, body FROM outbox ORDER BY seq").fetchall()
    kept = [(t, json.loads(body)) for t, body in rows if t == "event/audit" or t.startswith("reply/")]
    return [(topic, body.get("entry", 0)) for topic, body in kept]


def is_acked(desk: Desk) -> bool:
    with closing(sqlite3.connect(desk.folder.database)) as connection:
        ((row,),) = connection.execute("SELECT json FROM alarm WHERE key = 'engine_integrity'").fetchall()
    return bool(json.loads(row)["state"] == "ACKED")


def is_paused(desk: Desk) -> bool:
    return read_hold(desk.folder.paused) is not None


def is_moved(desk: Desk) -> bool:
    return station_records(desk.folder)[-1].t1 == MOVED


def is_sent_again(desk: Desk) -> bool:
    with closing(connect(desk.folder.database)) as connection:
        return [entry.seq for entry in Outbox(connection).waiting(after=0, up_to=1, limit=1)] == [1]


@dataclass(frozen=True)
class Deed:
    """A command, and whether it was carried out."""

    action: str
    arguments: dict[str, str]
    is_done: Callable[[Desk], bool]
    in_files: bool = False  # done before the transaction ends; what is in the database is done with it

    def sign(self, desk: Desk) -> bytes:
        return desk.sign(self.action, **self.arguments)


IN_THE_DATABASE = Deed("ack", {"alarm": "engine_integrity"}, is_acked)
A_REPLAY = Deed("replay", {"since_seq": "1", "count": "1"}, is_sent_again)
IN_A_FILE = Deed("pause", {"paused": "true"}, is_paused, in_files=True)
A_RECORD = Deed("set_threshold", {"t1": str(MOVED), "t2": "200", "why": "new"}, is_moved, in_files=True)


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # the child only acts
@pytest.mark.parametrize("deed", [IN_THE_DATABASE, A_REPLAY, IN_A_FILE, A_RECORD], ids=lambda deed: deed.action)
def test_killed_at_every_step(workshop: Any, key: Path, deed: Deed) -> None:
    workshop.ready()
    first = Desk(workshop, key, remote_write=True)
    with closing(connect(first.folder.database)) as connection:
        AlarmBoard(connection, Identity("st1")).come_round({"engine_integrity": [1.0]})
        Outbox(connection).mark_acked([1])  # the raise
    append(first.folder, Entry("bundle", "Abe", "1.0", "2.0"))  # not told yet
    kept, answer = workshop.root / "kept", (f"reply/{deed.action}", 0)
    shutil.copytree(workshop.folder.root, kept, symlinks=True)
    seen = set()
    for step in range(1, MOST_STEPS):
        shutil.rmtree(workshop.folder.root)
        shutil.copytree(kept, workshop.folder.root, symlinks=True)
        desk = Desk(workshop, key, remote_write=True)
        message = deed.sign(desk)
        was_killed = killed_at(step, partial(desk.take, deed.action, message))

        rows, told = list(lines_of(audit_file(desk.folder))), topics(desk)
        has_record = len(rows) >= 2
        done = deed.is_done(desk)
        seen.add((has_record, done, answer in told))
        assert told in ([], [*(("event/audit", row.number) for row in rows), answer])
        assert has_record or not (done or told)
        if not was_killed:
            break

        desk.take(deed.action, message)  # the first time of this desk: the other one was its child's
        assert desk.replies()[-1]["reason"] == ("replayed" if answer in told else "")
        assert deed.is_done(desk)
        _check_told_once(desk)
    assert not was_killed
    expected = {(False, False, False), (True, False, False), (True, True, True)}
    assert seen == expected | ({(True, True, False)} if deed.in_files else set())


def _check_told_once(desk: Desk) -> None:
    """Each row of the audit becomes one event, whoever tells it, and in the order of the rows."""
    with closing(connect(desk.folder.database)) as connection:
        AuditMirror(desk.folder, connection, Identity("st1")).come_round()
    told = [entry for topic, entry in topics(desk) if topic == "event/audit"]
    assert told == [line.number for line in lines_of(audit_file(desk.folder))]


def test_two_who_tell_the_same_rows_tell_each_once(workshop: Any, key: Path) -> None:
    desk = Desk(workshop, key)
    append(desk.folder, Entry("bundle", "Abe", "1.0", "2.0"))
    with closing(connect(desk.folder.database)) as one, closing(connect(desk.folder.database)) as two:
        mirror, other = (AuditMirror(desk.folder, own, Identity("st1")) for own in (one, two))
        untold = mirror.untold()
        append(desk.folder, Entry("bundle", "Abe", "2.0", "3.0"))
        other.come_round()
        with transaction(one):
            mirror.tell(untold)
        assert mirror.untold() == []
        append(desk.folder, Entry("bundle", "Abe", "3.0", "4.0"))
        with transaction(one):
            mirror.tell(mirror.untold())
        other.come_round()
    assert topics(desk) == [("event/audit", 1), ("event/audit", 2), ("event/audit", 3)]
