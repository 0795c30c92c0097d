from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kenpin.edge_runtime import settlement as settlement_module
from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.inspection import Inspection
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.settlement import Settlement
from kenpin.edge_runtime.store import Store
from kenpin.errors import StoreError

SCORED = Scored(1.0, (1.0, 1.0, 1.0), np.zeros((2, 2), np.float32))


class Disk:
    """A store whose disk can fail."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.is_full = False

    def commit(self, entries: Any) -> list[int]:
        if self.is_full:
            raise StoreError("the disk is full")
        return self.store.commit(entries)

    def flush(self) -> None:
        if self.is_full:
            raise StoreError("the disk is full")
        self.store.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Line:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.failure = ""
        self.error: type[Exception] = OSError

    def result(self, result: Result) -> None:
        if self.failure and result.verdict is Verdict.OK:
            raise self.error(self.failure)
        self.told.append((result.part_id, result.verdict.value))


class Bench:
    """A settlement with all around it."""

    def __init__(self, path: Path) -> None:
        self.disk, self.line = Disk(path), Line()
        self.late = ""
        self.pictures: list[tuple[str, str]] = []
        self.offered: list[tuple[str, object]] = []
        evidence = SimpleNamespace(offer=lambda *offer: self.offered.append(offer), written=self._written)
        self.settlement = Settlement(
            self.disk,  # type: ignore[arg-type]
            self.line,  # type: ignore[arg-type]
            evidence,  # type: ignore[arg-type]
            too_late=lambda _part: self.late,
        )

    def _written(self) -> list[tuple[str, str]]:
        pictures, self.pictures = self.pictures, []
        return pictures

    def settle(
        self,
        part_id: str,
        verdict: Verdict,
        *,
        trigger_id: int | None = None,
        image_ref: str = "",
        image: Any = None,
    ) -> Verdict:
        record = SimpleNamespace(t1=2.0, t2=3.0, rev=1)
        part = Part(
            part_id,
            "cam",
            "s",
            0,
            time.monotonic_ns(),
            Decision(verdict, scored=SCORED),
            model=Model("m", "x", "int8"),
            record=record,  # type: ignore[arg-type]
            frame_id=1,
            trigger_id=trigger_id,
            image_ref=image_ref,
        )
        event: Any = SimpleNamespace(topic="event/anomaly", to_json=lambda: b'{"x": 1}')
        found = self.settlement.settle(Inspection(part, event if verdict is Verdict.NG else None, image))
        return found.part.decision.verdict

    def rows(self, table: str = "part") -> list[tuple[Any, ...]]:
        columns = "part_id, verdict, cause, released" if table == "part" else "part_seq"
        return self.disk.store._connection.execute(f"SELECT {columns} FROM {table} ORDER BY seq").fetchall()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "station.db")
    yield made
    made.disk.store.close()


def test_a_bad_part_is_told_before_its_record_and_a_good_one_after(bench: Bench) -> None:
    order: list[str] = []
    bench.line.told = SimpleNamespace(append=lambda told: order.append(told[1]))  # type: ignore[assignment]
    commit = bench.disk.commit
    bench.disk.commit = lambda entries: (order.append("commit"), commit(entries))[1]  # type: ignore[method-assign]
    bench.settle("a", Verdict.NG)
    bench.settle("b", Verdict.OK)
    assert order == ["NG", "commit", "commit", "OK"]


def test_the_picture_of_a_part_is_kept_if_it_has_a_name_even_where_its_record_waits(bench: Bench) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    bench.settle("a", Verdict.NG, image_ref="a.png", image=image)
    bench.settle("b", Verdict.OK, image=image)
    bench.settle("c", Verdict.MISSED, image_ref="c.png")
    assert [(name, kept is image) for name, kept in bench.offered] == [("a.png", True)]
    bench.disk.is_full = True
    bench.settle("d", Verdict.REVIEW, image_ref="d.png", image=image)
    assert [name for name, _ in bench.offered] == ["a.png", "d.png"]


def test_the_hash_of_a_picture_comes_to_its_part_though_the_line_is_never_idle(bench: Bench) -> None:
    bench.settle("a", Verdict.NG, image_ref="a.png")
    bench.pictures = [("a.png", "f" * 64)]
    bench.settle("b", Verdict.OK)
    sql = "SELECT image_sha256 FROM part WHERE part_id = 'a'"
    assert bench.disk.store._connection.execute(sql).fetchone() == ("f" * 64,)


@pytest.mark.parametrize("then", ["the next part", "idle"])
def test_the_hash_of_a_picture_comes_to_a_part_that_waited_for_the_store(bench: Bench, then: str) -> None:
    bench.disk.is_full = True
    bench.settle("a", Verdict.NG, image_ref="a.png")
    bench.pictures = [("a.png", "f" * 64)]
    bench.settlement.catch_up()
    bench.disk.is_full = False
    if then == "the next part":
        bench.settle("b", Verdict.OK)
    bench.settlement.catch_up()
    sql = "SELECT image_sha256 FROM part WHERE part_id = 'a'"
    assert bench.disk.store._connection.execute(sql).fetchone() == ("f" * 64,)


def test_parts_of_a_full_disk_are_written_later_with_their_alerts_and_none_is_ok(bench: Bench) -> None:
    bench.settle("a", Verdict.OK)
    bench.disk.is_full = True
    assert bench.settle("b", Verdict.OK) is Verdict.NO_DECISION
    assert "disk is full" in bench.settlement.trouble  # the line must not read READY
    assert bench.settle("c", Verdict.NG) is Verdict.NG
    bench.settlement.catch_up()
    assert "disk is full" in bench.settlement.trouble
    assert [row[0] for row in bench.rows()] == ["a"]
    bench.disk.is_full = False
    bench.settlement.catch_up()
    assert bench.settlement.trouble == ""
    bench.settle("d", Verdict.OK)
    bench.disk.store.flush()
    assert bench.rows() == [
        ("a", "OK", "", 1),
        ("b", "NO_DECISION", "store", 0),
        ("c", "NG", "", 0),
        ("d", "OK", "", 1),
    ]
    assert bench.rows("outbox") == [(3,)]
    assert bench.line.told == [("a", "OK"), ("b", "NO_DECISION"), ("c", "NG"), ("d", "OK")]


def test_so_many_wait_and_what_is_forgotten_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement_module, "_OWED", 3)
    bench.disk.is_full = True
    for number in range(5):
        bench.settle(str(number), Verdict.NG)
    bench.disk.is_full = False
    bench.settlement.catch_up()
    assert [row[0] for row in bench.rows()] == ["2", "3", "4"]
    assert bench.settlement.forgotten == 2


def test_a_part_without_an_alert_is_forgotten_before_one_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement_module, "_OWED", 3)
    bench.disk.is_full = True
    for part_id, verdict in zip("abcde", ("NG", "OK", "NG", "OK", "NG"), strict=True):
        bench.settle(part_id, Verdict(verdict))
    bench.disk.is_full = False
    bench.settlement.catch_up()
    assert [row[0] for row in bench.rows()] == ["a", "c", "e"]
    assert len(bench.rows("outbox")) == 3


def test_missed_parts_that_are_counted_are_written_together(bench: Bench) -> None:
    def names() -> str:
        return "".join(row[0] for row in bench.rows())

    bench.settle("a", Verdict.MISSED)  # nothing else would tell of it
    assert names() == "a"
    bench.settle("b", Verdict.MISSED, trigger_id=1)
    bench.settle("c", Verdict.MISSED, trigger_id=2)
    assert names() == "a"
    bench.settle("d", Verdict.OK, trigger_id=3)
    assert names() == "abcd"
    bench.settle("e", Verdict.MISSED, trigger_id=4)
    bench.settlement.catch_up()
    assert names() == "abcde"
    for number in range(16):
        bench.settle("f", Verdict.MISSED, trigger_id=5 + number)
    assert names() == "abcde" + "f" * 16  # a camera that misses every part must not fill the memory
    for number, verdict in enumerate((Verdict.NG, Verdict.REVIEW, Verdict.NO_DECISION), start=21):
        bench.settle("g", verdict, trigger_id=number)
    assert names() == "abcde" + "f" * 16 + "ggg"
    assert [told[0] for told in bench.line.told] == list("abcde" + "f" * 16 + "ggg")


def test_a_note_that_could_not_be_written_is_no_trouble_once_it_is(bench: Bench) -> None:
    bench.settle("a", Verdict.OK)
    bench.disk.is_full = True
    bench.settlement.catch_up()
    assert "disk is full" in bench.settlement.trouble
    bench.disk.is_full = False
    bench.settlement.catch_up()  # no part comes: the line waits for READY
    assert bench.settlement.trouble == ""


@pytest.mark.parametrize(("late", "failure", "cause"), [("late", "", "deadline"), ("", "cable cut", "output")])
def test_an_ok_that_comes_late_or_cannot_be_told_is_withdrawn(
    bench: Bench, late: str, failure: str, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.late, bench.line.failure = late, failure
    assert bench.settle("a", Verdict.OK) is Verdict.NO_DECISION
    bench.disk.store.flush()
    assert bench.rows() == [("a", "NO_DECISION", cause, 0)]
    assert bench.line.told == [("a", "NO_DECISION")]


@pytest.mark.parametrize(("error", "told"), [(ConnectionError, 0), (ZeroDivisionError, 1)])
def test_where_it_broke_is_told_once_and_not_of_a_plc_that_is_away(
    bench: Bench, caplog: pytest.LogCaptureFixture, error: type[Exception], told: int
) -> None:
    bench.line.failure, bench.line.error = "no PLC is connected", error
    for part_id in "abc":
        assert bench.settle(part_id, Verdict.OK) is Verdict.NO_DECISION
    assert len([row for row in caplog.records if row.exc_info]) == told
