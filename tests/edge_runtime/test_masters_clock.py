"""The clock of the masters says what their ledger says, and reads it only when it must."""

from __future__ import annotations

import os
from typing import Any

import pytest

from kenpin import ledger
from kenpin.edge_runtime import masters_clock
from kenpin.edge_runtime.masters_clock import MastersClock
from kenpin.events import now_ms
from kenpin.masters import Check, Interval, Master, Removal, Row, Showing, masters_file
from kenpin.masters_due import masters_due, read_demand
from kenpin.record import append_record
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key
from tests.edge_runtime.conftest import Clock

HOUR_MS = 3_600_000


@pytest.fixture
def folder(workshop: Any) -> StationFolder:
    workshop.calibrated()
    return workshop.folder  # type: ignore[no-any-return]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[StationFolder]:
    """Every time that the ledger was read."""
    found: list[StationFolder] = []

    def read(folder: StationFolder) -> Any:
        found.append(folder)
        return read_demand(folder)

    monkeypatch.setattr(masters_clock, "read_demand", read)
    return found


def say(folder: StationFolder, row: Row) -> None:
    said = row.model_dump(mode="json", exclude={"ts_ms"})
    ledger.append_row(masters_file(folder), said, station_key(folder))


def passed(folder: StationFolder, name: str) -> Check:
    shown = Showing(master=name, expected="NG", verdict="NG", seq=1, score=250.0)
    active = folder.active.resolve().name
    return Check(passed=True, bundle_sha256=active, t1=100.0, t2=200.0, showings=(shown,))


def master(name: str) -> Master:
    return Master(id=name, type="scratch", picture="m.png", picture_sha256="a" * 64)


def words(clock: MastersClock) -> str:
    due = clock.why()
    return due.words if due else ""


def test_it_is_read_once_and_again_after_each_row(folder: StationFolder, reads: list[StationFolder]) -> None:
    clock = MastersClock(folder)
    assert [words(clock) for _ in range(3)] == ["", "", ""]
    assert len(reads) == 1
    for count, (row, due) in enumerate(
        [
            (master("M-1"), "masters were never shown: M-1"),
            (Removal(id="M-1"), ""),
            (master("M-2"), "masters were never shown: M-2"),
            (Interval(hours=0), ""),
        ],
        start=2,
    ):
        say(folder, row)
        assert [words(clock), words(clock)] == [due, due] == [masters_due(folder, now_ms())] * 2
        assert len(reads) == count


def test_two_rows_within_one_tick_are_two_changes(folder: StationFolder) -> None:
    clock = MastersClock(folder)
    say(folder, master("M-1"))
    written = masters_file(folder).stat()
    assert words(clock)
    say(folder, Interval(hours=0))
    os.utime(masters_file(folder), ns=(written.st_atime_ns, written.st_mtime_ns))
    assert words(clock) == ""


def test_they_come_due_by_themselves(
    folder: StationFolder, reads: list[StationFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(folder, master("M-1"))
    say(folder, passed(folder, "M-1"))
    clock = MastersClock(folder)
    assert words(clock) == ""
    later_ms = now_ms() + 13 * HOUR_MS
    monkeypatch.setattr(masters_clock, "now_ms", lambda: later_ms)
    assert "they are due every 12 h" in words(clock)
    assert len(reads) == 1


def test_a_clock_that_is_set_back_makes_no_check_younger(
    folder: StationFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(folder, master("M-1"))
    say(folder, passed(folder, "M-1"))
    monkeypatch.setattr(masters_clock, "time", clock)
    masters = MastersClock(folder)
    shown_ms = now_ms()
    for after_h, clock_h, due in (
        (0, 0, ""),
        (8, 0.1, ""),
        (11.9, 1, ""),
        (12.1, 1, "12.1 h ago"),
        (13, 20, "20.0 h"),
    ):
        clock.now_s = 1000.0 + after_h * 3600
        told_ms = shown_ms + round(clock_h * HOUR_MS)
        monkeypatch.setattr(masters_clock, "now_ms", lambda told_ms=told_ms: told_ms)
        found = words(masters)
        assert due in found if due else not found
    monkeypatch.setattr(masters_clock, "now_ms", lambda: shown_ms - HOUR_MS)
    assert "the clock stands before" in words(masters)
    monkeypatch.setattr(masters_clock, "now_ms", lambda: shown_ms + HOUR_MS)
    say(folder, passed(folder, "M-1"))
    assert words(masters) == ""


def test_other_thresholds_and_another_bundle_make_them_due(folder: StationFolder, workshop: Any) -> None:
    say(folder, master("M-1"))
    say(folder, passed(folder, "M-1"))
    clock = MastersClock(folder)
    assert words(clock) == ""
    record = workshop.record(workshop.bundle(), rev=2, t1=90.0)
    append_record(folder.records, record, workshop.station_key)
    assert "the thresholds were changed" in words(clock)
    (folder.bundles / ("c" * 64)).mkdir()
    folder.activate(folder.bundles / ("c" * 64))
    assert "another bundle is active" in words(clock)


def test_what_could_not_be_read_is_tried_again(folder: StationFolder) -> None:
    say(folder, master("M-1"))
    public = folder.public_key
    kept, when = public.read_bytes(), public.stat()
    public.write_bytes(b"x" * len(kept))
    os.utime(public, ns=(when.st_atime_ns, when.st_mtime_ns))
    clock = MastersClock(folder)
    assert "cannot be read" in words(clock)
    public.write_bytes(kept)
    os.utime(public, ns=(when.st_atime_ns, when.st_mtime_ns))
    assert words(clock) == "masters were never shown: M-1"
