from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kenpin.edge_runtime import inspection
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.report import Report
from kenpin.edge_runtime.site import in_this_process
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Settings, Trigger
from kenpin.edge_runtime.station import Station
from kenpin.errors import ConfigError, SourceError, StoreError
from kenpin.frame import Frame
from kenpin.station_folder import StationFolder
from tests.edge_runtime.conftest import TIMEOUT_MS, brightness_model


def rows(folder: StationFolder, table: str = "part") -> list[dict[str, Any]]:
    connection = sqlite3.connect(folder.database)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY seq")]
    finally:
        connection.close()


class ListSource:
    """Delivers what it was given."""

    camera = "list"
    drawn = False
    waits = True
    live = False
    down_reason = ""
    settings: Settings = NO_SETTINGS

    def __init__(self, items: list[Frame | Fault]) -> None:
        self._items = items

    def open(self) -> None:
        pass

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        return self._items.pop(0) if self._items else Lull.END

    def trigger(self, trigger: Trigger) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


class Releases:
    """An output that calls for each part that may pass."""

    def __init__(self, release: Callable[[str], object]) -> None:
        self._release = release

    def beat(self, *, ready: bool) -> None:
        pass

    def busy(self, *, busy: bool) -> None:
        pass

    def result(self, result: Result) -> None:
        if result.verdict is Verdict.OK:
            self._release(result.part_id)

    def close(self) -> None:
        pass


def run(workshop: Any, *items: Frame | Fault, **options: Any) -> tuple[Report, list[str]]:
    """Run a station on these items; the report and the parts that were released."""
    released: list[str] = []
    release = options.pop("release", released.append)
    site = replace(in_this_process(), cameras=lambda *_: [ListSource(list(items))])
    config = workshop.config(f"folder:{workshop.pictures(0)}")
    with Station(config, site=site, output=Releases(release), **options) as station:
        return station.run(), released


def frame(brightness: int, part_id: str = "p", **changes: Any) -> Frame:
    image = np.full((32, 48, 3), brightness, np.uint8)
    return Frame(**{"image": image, "part_id": part_id, "camera": "list", "frame_id": 1, **changes})


def test_each_brightness_gets_its_verdict_and_only_ok_is_released(workshop: Any) -> None:
    folder = workshop.ready().pictures(10, 99, 100, 199, 200, 255)
    started_s = time.time()
    released: list[str] = []
    with Station(workshop.config(f"folder:{folder}"), output=Releases(released.append)) as station:
        assert station.fault == ""
        report = station.run()
    parts = rows(workshop.folder)
    assert [p["verdict"] for p in parts] == ["OK", "OK", "REVIEW", "REVIEW", "NG", "NG"]
    assert [p["released"] for p in parts] == [1, 1, 0, 0, 0, 0]
    assert released == ["000.png", "001.png"]
    assert report.counters.parts[Verdict.REVIEW] == 2
    assert report.precision == "int8"
    assert report.counters.events == 4
    assert report.depth.waiting == 4
    first = parts[0]
    assert (first["score"], first["score_coarse"], first["t1"], first["t2"]) == (10, 5, 100, 200)
    assert first["threshold_rev"] == 1
    assert first["decided_mono_ns"] >= first["captured_mono_ns"]
    assert started_s <= first["decided_ns"] / 1e9 <= time.time()


def test_every_ng_and_review_has_its_event_in_the_same_order(workshop: Any) -> None:
    workshop.ready()
    run(workshop, frame(250, "a"), frame(10, "b"), frame(150, "c"))
    parts, events = rows(workshop.folder), rows(workshop.folder, "outbox")
    assert [e["part_seq"] for e in events] == [parts[0]["seq"], parts[2]["seq"]]


def test_faults_of_the_source_are_recorded_as_they_are(workshop: Any) -> None:
    workshop.ready()
    faults = [
        Fault("m", "list", Verdict.MISSED, "no frame came"),
        Fault("n", "list", Verdict.NO_DECISION, "the picture file is cut short"),
    ]
    report, released = run(workshop, *faults)
    parts = rows(workshop.folder)
    assert [(p["verdict"], p["reason"], p["image_ref"]) for p in parts] == [
        ("MISSED", "no frame came", ""),
        ("NO_DECISION", "the picture file is cut short", ""),
    ]
    assert report.counters.reasons == {"no frame came": 1, "the picture file is cut short": 1}
    assert released == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((0, 32, 3), np.uint8),
    ],
)
def test_a_frame_of_the_wrong_shape_or_type_gets_no_decision(workshop: Any, image: Any) -> None:
    _, released = run(workshop.ready(), frame(0, image=image), frame(10, "next"))
    first, second = rows(workshop.folder)
    assert first["verdict"] == "NO_DECISION"
    assert "uint8 (H, W, 3)" in first["reason"]
    assert second["verdict"] == "OK"
    assert released == ["next"]


def test_a_late_ok_gets_no_decision_and_a_late_ng_keeps_its_alert(workshop: Any) -> None:
    long_ago_ns = time.monotonic_ns() - (TIMEOUT_MS + 1000) * 1_000_000
    late = [frame(brightness, captured_ns=long_ago_ns) for brightness in (10, 250)]
    report, released = run(workshop.ready(), *late)
    parts = rows(workshop.folder)
    assert [p["verdict"] for p in parts] == ["NO_DECISION", "NG"]
    assert f"within {TIMEOUT_MS} ms" in parts[0]["reason"]
    assert [p["score"] for p in parts] == [10, 250]
    assert len(rows(workshop.folder, "outbox")) == 1
    assert released == []
    assert report.counters.latency_ms_p50 > TIMEOUT_MS


def test_an_ok_whose_record_took_too_long_is_not_released(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[str] = []
    config = workshop.ready().config(f"folder:{workshop.pictures(10)}")
    with Station(config, output=Releases(released.append)) as station:
        commit = station._store.commit

        def slow_commit(*args: Any) -> int:
            late_ns = time.monotonic_ns() + TIMEOUT_MS * 1_000_000  # a disk that takes its time
            monkeypatch.setattr(inspection, "time", SimpleNamespace(monotonic_ns=lambda: late_ns))
            return commit(*args)

        monkeypatch.setattr(station._store, "commit", slow_commit)
        report = station.run()
    assert released == []
    assert report.counters.parts[Verdict.NO_DECISION] == 1
    (part,) = rows(workshop.folder)
    assert (part["verdict"], part["released"]) == ("NO_DECISION", 0)


def test_ok_is_released_only_after_its_record_can_be_read_by_others(workshop: Any) -> None:
    seen: list[list[str]] = []

    def release(part_id: str) -> None:
        seen.append([p["part_id"] for p in rows(workshop.folder)])

    run(workshop.ready(), frame(1, "a"), frame(2, "b"), release=release)
    assert seen == [["a"], ["a", "b"]]


def test_a_failing_output_is_no_decision(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    def release(part_id: str) -> None:
        raise OSError("output card is gone")

    report, _ = run(workshop.ready(), frame(1), release=release)
    assert report.counters.parts[Verdict.NO_DECISION] == 1
    (part,) = rows(workshop.folder)
    assert (part["verdict"], part["released"]) == ("NO_DECISION", 0)
    assert "output card is gone" in part["reason"]


def test_a_store_that_fails_releases_nothing_and_the_line_goes_on(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    released: list[str] = []
    folder = workshop.ready().pictures(*[10] * 120)
    with Station(workshop.config(f"folder:{folder}"), output=Releases(released.append)) as station:
        disk = station._store._connection
        (pages,) = disk.execute("PRAGMA page_count").fetchone()
        disk.execute(f"PRAGMA max_page_count = {pages + 1}")  # the disk is nearly full
        full = station.run(max_parts=100)
        assert full.counters.parts[Verdict.NO_DECISION] > 0
        assert sum(full.counters.parts.values()) == 100
        assert any("full" in reason for reason in full.counters.reasons)
        disk.execute("PRAGMA max_page_count = 1000000")  # somebody made room
        after = station.run(max_parts=20)
    assert after.counters.parts[Verdict.OK] == full.counters.parts[Verdict.OK] + 20
    parts = rows(workshop.folder)
    # Those that waited for the disk are written after all: one record for each part, and none of them OK.
    assert [p["part_id"] for p in parts] == [f"{k:03d}.png" for k in range(120)]
    assert len(released) == after.counters.parts[Verdict.OK]
    assert {p["part_id"] for p in parts if p["released"]} == set(released)
    assert all(p["verdict"] == ("OK" if p["released"] else "NO_DECISION") for p in parts)
    assert sum("cannot be stored" in r.message for r in caplog.records) == 1


def fault_of(workshop: Any) -> tuple[str, list[dict[str, Any]]]:
    """Run two parts on a station that cannot judge; its fault and its records."""
    released: list[str] = []
    config = workshop.config(f"folder:{workshop.pictures(10, 250)}")
    with Station(config, output=Releases(released.append)) as station:
        station.run()
        fault = station.fault
    parts = rows(workshop.folder)
    assert released == []
    assert [p["verdict"] for p in parts] == ["NO_DECISION", "NO_DECISION"]
    assert [(p["reason"], p["cause"]) for p in parts] == [(fault, "not_ready")] * 2
    assert {event["topic"] for event in rows(workshop.folder, "outbox")} == {"event/alarm"}
    return fault, parts


def test_without_a_bundle_nothing_is_decided(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    fault, _ = fault_of(workshop)
    assert "no bundle is installed" in fault
    assert sum(fault in r.getMessage() for r in caplog.records) == 1


def test_without_calibration_nothing_is_decided_but_the_score_is_kept(workshop: Any) -> None:
    workshop.install()
    fault, parts = fault_of(workshop)
    assert "not calibrated" in fault
    assert "kenpin calibrate fit" in fault
    assert [p["score"] for p in parts] == [10, 250]


def test_a_bundle_changed_on_disk_is_not_run(workshop: Any) -> None:
    workshop.ready()
    model = workshop.folder.active / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    fault, parts = fault_of(workshop)
    assert "changed after signing" in fault
    assert parts[0]["score"] is None


def test_a_bundle_of_a_stranger_is_not_run(workshop: Any) -> None:
    workshop.ready()
    workshop.public_key.write_text(workshop.station_key.public.dumps())
    assert "not trusted here" in fault_of(workshop)[0]


def test_an_altered_calibration_record_is_not_used(workshop: Any) -> None:
    workshop.ready()
    text = workshop.folder.records.read_text()
    workshop.folder.records.write_text(text.replace('"t1":100.0', '"t1":199.0'))
    fault, parts = fault_of(workshop)
    assert "calibration record" in fault
    assert parts[0]["score"] == 10


def test_a_record_without_the_station_key_is_not_used(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.public_key.write_text("no key")
    assert "not a minisign key" in fault_of(workshop)[0]


def test_a_record_for_another_bundle_does_not_count(workshop: Any) -> None:
    workshop.calibrated(bundle_sha256="0" * 64)
    assert "calibrated for bundle 0000000000000000" in fault_of(workshop)[0]


def test_the_precision_of_the_record_decides_which_model_runs(workshop: Any) -> None:
    workshop.calibrated(precision="fp32")
    report, released = run(workshop, frame(10))
    assert report.precision == "fp32"
    assert released == ["p"]


def test_a_model_that_scores_a_golden_frame_otherwise_is_not_run(workshop: Any) -> None:
    workshop.calibrate(workshop.install(workshop.bundle(model=brightness_model(scale=1.01))))
    assert "known frame" in fault_of(workshop)[0]


def test_a_second_station_on_the_same_folder_is_refused(workshop: Any) -> None:
    config = workshop.ready().config(f"folder:{workshop.pictures(1)}")
    with Station(config), pytest.raises(ConfigError, match="another station runs on this folder"):
        Station(config)
    with Station(config) as again:
        assert again.run().counters.total == 1


def test_a_source_that_does_not_open_leaves_the_folder_free(workshop: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        Station(workshop.config(f"folder:{tmp_path}/none"))
    with Station(workshop.config(f"folder:{workshop.pictures(1)}")):
        pass


def test_a_damaged_database_is_moved_aside_and_numbers_jump(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.ready()
    run(workshop, frame(250))
    database = workshop.folder.database
    database.write_bytes(b"not a database" * 1000)
    with caplog.at_level(logging.WARNING):
        run(workshop, frame(250))
    assert any("moved aside" in r.message for r in caplog.records)
    assert list(database.parent.glob("station.db.corrupt-*"))
    assert rows(workshop.folder)[0]["seq"] > 999_999
    assert rows(workshop.folder, "outbox")[0]["seq"] > 999_999


def test_a_database_of_another_program_is_left_alone(workshop: Any) -> None:
    workshop.ready()
    foreign = sqlite3.connect(workshop.folder.database)
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    before = workshop.folder.database.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        run(workshop, frame(1))
    assert workshop.folder.database.read_bytes() == before


def test_stop_lets_the_part_in_hand_be_the_last(workshop: Any) -> None:
    stations: list[Station] = []
    config = workshop.ready().config(f"folder:{workshop.pictures(1, 2, 3)}")
    with Station(config, on_part=lambda _: stations[0].stop()) as station:
        stations.append(station)
        assert station.run().counters.total == 1
