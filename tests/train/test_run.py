"""The run folder when the disk is full."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from kenpin.errors import TrainError
from kenpin.train.report import write_page
from kenpin.train.run import RunFolder
from kenpin.train.training import Training


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file grows beyond `limit` bytes: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_to_do(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    training = Training.start(width=8, seed=0, device=torch.device("cpu"))
    training.step = 5
    folder.save_training(training)
    old = (tmp_path / "checkpoint.safetensors").read_bytes()
    training.step = 9
    with full_disk(20_000), pytest.raises(TrainError, match="cannot write") as refused:
        folder.save_training(training)
    assert "--resume" in refused.value.cure
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    folder.load_training(training)
    assert training.step == 5


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", "old")
    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        write_page(tmp_path / "report.html", "x" * 2000)
    assert (tmp_path / "report.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
