from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kenpin.config import EvidenceSection
from kenpin.edge_runtime import evidence as evidence_module
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.evidence import Evidence
from kenpin.synced_file import replace_synced

IMAGE = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)  # 360 kB, noise


def section(**changes: Any) -> EvidenceSection:
    return EvidenceSection(**{"min_free_mb": 0, **changes})


def keep(evidence: Evidence, count: int, wait_for: Any, image: Any = IMAGE) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for _ in range(count):
        evidence.offer(evidence.name_for(Verdict.NG), image)
        expected = len(found) + 1

        def written(expected: int = expected) -> bool:
            found.extend(evidence.written())
            return len(found) >= expected

        wait_for(written, "the picture")
    return found


@pytest.mark.parametrize(
    ("kept", "verdict", "expected"),
    [
        ("none", Verdict.NG, False),
        ("stopped", Verdict.OK, False),
        ("stopped", Verdict.NG, True),
        ("stopped", Verdict.NO_DECISION, True),
        ("all", Verdict.OK, True),
    ],
)
def test_what_is_kept(tmp_path: Path, kept: Any, verdict: Verdict, expected: bool) -> None:
    evidence = Evidence(tmp_path / "images", section(keep=kept))
    assert bool(evidence.name_for(verdict)) is expected
    evidence.close()


def test_a_request_that_cannot_be_taken_keeps_no_part_from_being_judged(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    with closing(Evidence(tmp_path / "images", section(keep="none"), asked=tmp_path / "snapshot")) as evidence:
        assert not evidence.name_for(Verdict.OK)


def test_a_picture_for_which_there_is_no_memory_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Any
) -> None:
    def encode(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cv2, "imencode", encode)
    with closing(Evidence(tmp_path / "images", section())) as evidence:
        evidence.offer(evidence.name_for(Verdict.NG), IMAGE)
        wait_for(lambda: evidence.dropped == 1, "the picture to be dropped")


def test_a_picture_is_kept_without_loss_and_told_by_its_checksum(tmp_path: Path, wait_for: Any) -> None:
    evidence = Evidence(tmp_path / "images", section())
    ((image_ref, sha256),) = keep(evidence, 1, wait_for)
    path = tmp_path / "images" / image_ref
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert np.array_equal(cv2.imread(str(path)), IMAGE)
    evidence.close()


def test_the_oldest_go_when_the_quota_is_full(tmp_path: Path, wait_for: Any) -> None:
    evidence = Evidence(tmp_path / "images", section(max_mb=1))
    kept = keep(evidence, 5, wait_for)
    left = sorted(
        path.relative_to(tmp_path / "images").as_posix() for path in (tmp_path / "images").glob("*/*")
    )
    assert left == [image_ref for image_ref, _ in kept[-2:]]
    assert evidence.bytes == sum((tmp_path / "images" / name).stat().st_size for name in left)
    evidence.close()


def test_a_picture_that_is_larger_than_the_quota_does_not_push_the_others_out(
    tmp_path: Path, wait_for: Any
) -> None:
    evidence = Evidence(tmp_path / "images", section(max_mb=1))
    ((image_ref, _),) = keep(evidence, 1, wait_for)
    evidence.offer(
        evidence.name_for(Verdict.NG), np.random.default_rng(2).integers(0, 256, (700, 700, 3), np.uint8)
    )
    wait_for(lambda: evidence.dropped == 1, "the large one to be dropped")
    assert (tmp_path / "images" / image_ref).is_file()
    evidence.close()


def test_what_a_kill_left_is_cleared_and_counted(tmp_path: Path, wait_for: Any) -> None:
    first, second = (tmp_path / "images" / day for day in ("2026-01-01", "2026-01-02"))
    for day, size in ((first, 500_000), (second, 300_000)):
        day.mkdir(parents=True)
        (day / ".a.png.part").write_bytes(b"half")
        (day / "old.png").write_bytes(b"x" * size)
    evidence = Evidence(tmp_path / "images", section(max_mb=1))
    keep(evidence, 1, wait_for)
    assert not first.exists()
    assert [path.name for path in second.iterdir()] == ["old.png"]
    evidence.close()


def test_pictures_that_somebody_removed_hinder_none(tmp_path: Path, wait_for: Any) -> None:
    evidence = Evidence(tmp_path / "images", section(max_mb=1))
    ((image_ref, _),) = keep(evidence, 1, wait_for)
    (tmp_path / "images" / image_ref).unlink()
    keep(evidence, 3, wait_for)
    assert evidence.dropped == 0
    evidence.close()


def test_a_folder_that_is_away_for_a_while_is_made_and_counted_anew(
    tmp_path: Path, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_module, "_PAUSE_S", 0.0)
    images = tmp_path / "images"
    images.write_text("in its place")
    evidence = Evidence(images, section(max_mb=1))
    evidence.offer(evidence.name_for(Verdict.NG), IMAGE)
    wait_for(lambda: evidence.dropped == 1, "the refusal")
    images.unlink()
    (images / "2026-01-01").mkdir(parents=True)
    (images / "2026-01-01" / "old.png").write_bytes(b"x" * 700_000)
    keep(evidence, 1, wait_for)
    assert not (images / "2026-01-01").exists()
    shutil.rmtree(images)
    evidence.offer(evidence.name_for(Verdict.NG), IMAGE)
    wait_for(lambda: evidence.dropped == 2, "the refusal")
    keep(evidence, 4, wait_for)
    assert evidence.bytes == sum(path.stat().st_size for path in images.glob("*/*"))
    evidence.close()


def test_no_picture_is_kept_where_records_need_the_room_and_what_is_none_is_dropped(
    tmp_path: Path, wait_for: Any
) -> None:
    evidence = Evidence(tmp_path / "images", section(min_free_mb=10**9))
    evidence.offer("day/a.png", IMAGE[:0])
    evidence.close()
    assert evidence.dropped == 1
    evidence = Evidence(tmp_path / "images", section(min_free_mb=10**9))
    evidence.offer("day/a.png", IMAGE)
    evidence.close()
    assert evidence.dropped == 1
    assert list((tmp_path / "images").glob("*/*")) == []


def test_more_than_the_disk_takes_is_dropped_and_counted_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Evidence(tmp_path / "images", section())
    disk, done = threading.Event(), list[bool]()

    def keep(*_: object) -> bool:
        done.append(bool(done) or disk.wait(30))
        return True

    monkeypatch.setattr(evidence, "_keep", keep)
    for _ in range(30):
        evidence.offer("day/a.png", IMAGE)
    assert not done  # all were offered while the disk still had the first one
    assert evidence.dropped >= 30 - 10
    disk.set()
    evidence.close()


def test_a_picture_is_that_of_its_part_whatever_comes_into_the_memory_of_the_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def wait_and_write(path: Path, data: bytes) -> None:
        assert go_on.wait(60)
        replace_synced(path, data)

    monkeypatch.setattr(evidence_module, "replace_synced", wait_and_write)
    evidence = Evidence(tmp_path / "images", section())
    frame = IMAGE.copy()
    evidence.offer("day/first.png", IMAGE)
    evidence.offer("day/a.png", frame)
    frame[:] = 0
    go_on.set()
    evidence.close()
    assert np.array_equal(cv2.imread(str(tmp_path / "images/day/a.png")), IMAGE)


def test_a_disk_that_refuses_is_left_alone_for_a_while_and_said_once_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evidence_module, "_PAUSE_S", 0.0)
    evidence = Evidence(tmp_path / "images", section())
    for times in (1, 2):
        keep(evidence, 1, wait_for)
        monkeypatch.setattr(evidence_module, "replace_synced", refuse)
        for _ in range(3):
            before = evidence.dropped
            evidence.offer(evidence.name_for(Verdict.NG), IMAGE)
            wait_for(lambda before=before: evidence.dropped == before + 1, "the refusal")
        monkeypatch.setattr(evidence_module, "replace_synced", replace_synced)
        assert caplog.text.count("Pictures cannot be kept: the disk is gone") == times
    monkeypatch.setattr(evidence_module, "_PAUSE_S", 3600.0)
    monkeypatch.setattr(evidence_module, "replace_synced", refuse)
    evidence.offer(evidence.name_for(Verdict.NG), IMAGE)
    wait_for(lambda: evidence.dropped == 7, "the refusal")
    monkeypatch.setattr(evidence_module, "replace_synced", replace_synced)
    evidence.offer(evidence.name_for(Verdict.NG), IMAGE)
    evidence.close()
    assert evidence.dropped == 8
    assert len(evidence.written()) == 0


def refuse(*_: object) -> None:
    raise OSError("the disk is gone")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_keeps_no_picture_and_recovers_by_itself(
    small_disk: Path, wait_for: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evidence_module, "_PAUSE_S", 0.2)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 1_900_000)
    evidence = Evidence(small_disk / "images", section())
    evidence.offer(evidence.name_for(Verdict.NG), IMAGE)
    wait_for(lambda: evidence.dropped == 1, "the refusal")
    filler.unlink()
    time.sleep(0.3)
    assert len(keep(evidence, 1, wait_for)) == 1
    evidence.close()


def test_room_for_records_is_left(small_disk: Path, wait_for: Any) -> None:
    evidence = Evidence(small_disk / "images", section(min_free_mb=1))
    keep(evidence, 4, wait_for)
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize >= 1_000_000 - 400_000
    assert len(list((small_disk / "images").glob("*/*.png"))) <= 3
    evidence.close()
