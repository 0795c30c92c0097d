"""The store over power cuts: nothing that was acknowledged is lost, and nothing is corrupt."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime import database, store
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.store import Store
from tests.edge_runtime.power_cut import Connection, Disk, survive

# A nightly run takes 5,000.
CUTS = int(os.environ.get("KENPIN_CUTS", "300"))


class Event:
    topic = "event/anomaly"

    def to_json(self) -> bytes:
        return b'{"x": "' + b"y" * 600 + b'"}'


def live_until_cut(
    root: Path, fuse: int, synchronous: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Disk, int]:
    """Commit parts until the power is cut; the disk, and how many commits were acknowledged."""
    disk = Disk(10**9)
    connection = Connection(disk, synchronous=synchronous)
    for script in database.MIGRATIONS:
        connection.execute(f"BEGIN IMMEDIATE; {script} COMMIT;")
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('part', 0), ('outbox', 0)")
    monkeypatch.setattr(store, "open_database", lambda *_: connection)
    shop = Store(root / "station.db")
    for file in disk.files.values():
        file.sync()  # the station has been there for a while
    disk._fuse = fuse
    acknowledged = 0

    def commit() -> None:
        part = Part(f"p{acknowledged}", "cam", "s", 0, 0, Decision(Verdict.NG, "", None))
        event: Any = Event()
        shop.commit([(part, event)])

    while survive(commit):
        acknowledged += 1
    connection.forget()
    return disk, acknowledged


def after_cut(root: Path, disk: Disk, chance: random.Random) -> tuple[str, int, int]:
    """Integrity, parts and events that a real SQLite finds when the power is back."""
    disk.restore(root, chance)
    with closing(sqlite3.connect(root / "station.db")) as real:
        (integrity,) = real.execute("PRAGMA integrity_check").fetchone()
        (parts,) = real.execute("SELECT count(*) FROM part").fetchone()
        (events,) = real.execute("SELECT count(*) FROM outbox").fetchone()
    return integrity, parts, events


@pytest.mark.slow
def test_no_acknowledged_part_or_event_is_lost_and_no_file_is_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    for cut in range(CUTS):
        root = tmp_path / str(cut)
        root.mkdir()
        disk, acknowledged = live_until_cut(root, chance.randrange(2, 120), "FULL", monkeypatch)
        integrity, parts, events = after_cut(root, disk, chance)
        assert integrity == "ok", cut
        # The commit in hand may have come through.
        assert acknowledged <= parts <= acknowledged + 1, cut
        assert parts == events, cut


def test_with_less_than_full_sync_the_cut_disk_does_lose_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(6)
    lost = 0
    for cut in range(20):
        root = tmp_path / str(cut)
        root.mkdir()
        disk, acknowledged = live_until_cut(root, chance.randrange(40, 120), "NORMAL", monkeypatch)
        integrity, parts, _ = after_cut(root, disk, chance)
        assert integrity == "ok"
        lost += parts < acknowledged
    assert lost > 10
