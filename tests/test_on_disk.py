"""What is told as done is on the disk: the content first, then the name, each of them synced."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kenpin.config import EvidenceSection
from kenpin.edge_runtime.database import lease_numbers
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.evidence import Evidence
from kenpin.ledger import append_row
from kenpin.record import append_record, head
from kenpin.signing import SecretKey
from kenpin.synced_file import replace_synced
from tests.test_record import record

KEY = SecretKey.generate()


class Steps:
    """Syncs and new names, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._taken: list[tuple[str, int, int]] = []  # what, the file, its size
        self._fsync, self._replace = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", self._sync)

        def replace(path: Path, target: Path) -> Path:
            return self._name(path, target)

        monkeypatch.setattr(Path, "replace", replace)

    def _sync(self, handle: int) -> None:
        found = os.fstat(handle)
        self._taken.append(("sync", found.st_ino, found.st_size))
        self._fsync(handle)

    def _name(self, path: Path, target: Path) -> Path:
        found = path.stat()
        self._taken.append(("name", found.st_ino, found.st_size))
        return self._replace(path, target)

    def forget(self) -> None:
        self._taken.clear()

    def of(self, path: Path) -> list[str]:
        """What was done with a file as it is now, and with its folder."""
        file, folder = path.stat(), path.parent.stat().st_ino
        names = {("sync", file.st_ino): "content", ("name", file.st_ino): "name", ("sync", folder): "folder"}
        kept = [(what, inode) for what, inode, size in self._taken if inode == folder or size == file.st_size]
        return [names[step] for step in kept if step in names]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def add_record(path: Path) -> None:
    rev = len(path.read_bytes().splitlines()) + 1 if path.exists() else 1
    append_record(path, record(rev, head(path)), KEY)


def add_row(path: Path) -> None:
    append_row(path, {"what": "test"}, KEY)


@pytest.mark.parametrize("append", [add_record, add_row])
def test_an_appended_line_and_the_name_of_its_file(
    append: Callable[[Path], None], steps: Steps, tmp_path: Path
) -> None:
    path = tmp_path / "book.jsonl"
    append(path)
    assert steps.of(path) == ["content", "folder"]
    steps.forget()
    append(path)
    assert steps.of(path) == ["content"]


def test_a_replaced_file(steps: Steps, tmp_path: Path) -> None:
    for data in (b"old", b"newer"):
        steps.forget()
        replace_synced(tmp_path / "file", data)
        assert steps.of(tmp_path / "file") == ["content", "name", "folder"]
        assert (tmp_path / "file").read_bytes() == data


def test_the_lease_of_numbers(steps: Steps, tmp_path: Path) -> None:
    lease_numbers(tmp_path / "station.db", 7)
    assert steps.of(tmp_path / "station.seq") == ["content", "name", "folder"]


def test_a_kept_picture_and_its_day(steps: Steps, tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "images", EvidenceSection(min_free_mb=0))
    evidence.offer(evidence.name_for(Verdict.NG), np.zeros((20, 30, 3), np.uint8))
    evidence.close()
    ((image_ref, _),) = evidence.written()
    path = tmp_path / "images" / image_ref
    assert steps.of(path) == ["content", "name", "folder"]
    assert steps.of(path.parent)[:1] == ["folder"]  # of all days


def test_two_threads_that_replace_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """As two people do who answer for one part at the page."""
    path, whole = tmp_path / "picture", (b"a" * 1_000_000, b"b" * 1_000_000)
    path.write_bytes(whole[0])

    def write(data: bytes) -> None:
        for _ in range(20):
            replace_synced(path, data)
            assert path.read_bytes() in whole

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(write, data) for data in whole]:
            done.result()
    assert [found.name for found in tmp_path.iterdir()] == ["picture"]


def test_what_somebody_else_has_put_there_is_not_written_to(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "dump.zip"
    victim.write_bytes(b"precious")
    partial = tmp_path / f".dump.zip.{os.getpid()}-{threading.get_ident()}.part"
    partial.symlink_to(victim)
    replace_synced(target, b"new", mode=0o600)
    assert (victim.read_bytes(), target.read_bytes(), target.is_symlink()) == (b"precious", b"new", False)
    partial.write_bytes(b"")
    partial.chmod(0o666)
    replace_synced(target, b"secret", mode=0o600)
    assert target.stat().st_mode & 0o777 == 0o600


def test_no_file_takes_the_place_of_a_device(tmp_path: Path) -> None:
    """As of /dev/null, where root gives it to --out."""
    pipe = tmp_path / "null"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a device or a pipe") as refused:
        replace_synced(pipe, b"report")
    assert refused.value.filename == str(pipe)
    assert pipe.is_fifo()
