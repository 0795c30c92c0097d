from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kenpin.config import EvidenceSection
from kenpin.edge_runtime import evidence as evidence_module
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.evidence import Evidence

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
    day = tmp_path / "images" / "2026-01-01"
    day.mkdir(parents=True)
    (day / ".a.png.part").write_bytes(b"half")
    (day / "old.png").write_bytes(b"x" * 700_000)
    evidence = Evidence(tmp_path / "images", section(max_mb=1))
    keep(evidence, 1, wait_for)
    assert not day.exists()
    evidence.close()


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
