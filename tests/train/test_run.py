"""The run folder when the disk is full or the power was cut."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from kenpin.errors import ConfigError, TrainError
from kenpin.train.head import AnomalyHead, HeadShape
from kenpin.train.inspector import Inspector
from kenpin.train.report import write_page
from kenpin.train.run import RunConfig, RunFolder
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


def test_after_a_full_disk_at_the_start_the_same_command_starts_again(tmp_path: Path) -> None:
    folder, pictures = RunFolder(tmp_path / "run"), {"pictures": [{"file": "x" * 2000}]}
    config = RunConfig(product="cap", data="", size=64, width=8, steps=3, batch=6, seed=0)
    with full_disk(1000), pytest.raises(TrainError, match="cannot write"):
        folder.create(config, pictures, resume=False)
    assert not folder.exists
    folder.create(config, pictures, resume=False)
    folder.create(config, pictures, resume=True)


def test_others_may_read_a_run_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    training = Training.start(width=8, seed=0, device=torch.device("cpu"))
    shape = HeadShape(64, training.model.encoder.channels, 4)
    before = os.umask(0o022)
    try:
        folder.save_training(training)
        folder.save_model(Inspector(training.model.encoder, AnomalyHead(shape, training.model.discriminators)))
    finally:
        os.umask(before)
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir()} == {
        f"{name}.safetensors": "0o644" for name in ("checkpoint", "encoder", "head")
    }


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", "old")
    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        write_page(tmp_path / "report.html", "x" * 2000)
    assert (tmp_path / "report.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_while_a_step_is_logged_says_what_to_do_and_is_got_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(4):
        folder.log({"step": step})
    with full_disk(50), pytest.raises(TrainError, match="cannot write") as refused:
        folder.log({"step": 4})
    assert "--resume" in refused.value.cure
    folder.log({"step": 9})
    assert [line["step"] for line in folder.metrics()] == [0, 1, 2, 3, 9]


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"\0\0\0\0", b"{\xff", b'{"step": 3}'])
def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path, torn: bytes) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    whole = [1, 2, 3] if torn.endswith(b"}") else [1, 2]
    assert [line["step"] for line in folder.metrics()] == whole
    folder.log({"step": 9})
    assert [line["step"] for line in folder.metrics()] == [*whole, 9]


def test_another_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(TrainError, match="is damaged") as refused:
        RunFolder(tmp_path).metrics()
    assert refused.value.where.endswith("line 2")


def test_a_full_disk_at_the_start_of_a_resume_leaves_the_old_lines(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    training = Training.start(width=8, seed=0, device=torch.device("cpu"))
    training.step = 20
    folder.save_training(training)
    for step in range(1, 31):
        folder.log({"step": step})
    with full_disk(100), pytest.raises(TrainError, match="cannot write"):
        folder.load_training(training)
    assert len(folder.metrics()) == 30
    folder.load_training(training)
    assert [line["step"] for line in folder.metrics()] == list(range(1, 21))


@pytest.mark.parametrize(("step", "allotted"), [(2, False), (4, True), (5, True)])
def test_the_allotment_stays_with_the_steps_before_it(tmp_path: Path, step: int, *, allotted: bool) -> None:
    folder = RunFolder(tmp_path)
    training = Training.start(width=8, seed=0, device=torch.device("cpu"))
    training.step = step
    folder.save_training(training)
    lines: list[dict[str, object]] = [{"step": n} for n in range(1, 7)]
    for line in [*lines[:4], {"allotment": {}}, *lines[4:]]:
        folder.log(line)
    folder.load_training(training)
    kept = folder.metrics()
    assert [line["step"] for line in kept if "step" in line] == list(range(1, step + 1))
    assert ({"allotment": {}} in kept) == allotted


def test_a_resume_with_another_version_goes_on(tmp_path: Path) -> None:
    """Commit and version say how it began; a fix of kenpin must not end a long training."""
    folder = RunFolder(tmp_path / "run")
    config = RunConfig(product="cap", data="caps", size=64, width=8, steps=4, batch=4, seed=0, commit="a")
    folder.create(config, {"pictures": []}, resume=False)
    later = config.model_copy(update={"commit": "b", "software": "9.9"})
    folder.create(later, {"pictures": []}, resume=True)
    assert folder.config == config
    with pytest.raises(ConfigError, match=r"config\.json differs .*: size was 64, is 80, seed was 0, is 1\n"):
        folder.create(later.model_copy(update={"seed": 1, "size": 80}), {"pictures": []}, resume=True)


def test_a_resume_with_other_pictures_names_one_of_them(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = RunConfig(product="cap", data="caps", size=64, width=8, steps=4, batch=4, seed=0)
    rows = [{"file": f"{number}.png", "sha256": str(number)} for number in range(4)]
    folder.create(config, {"pictures": rows[:3]}, resume=False)
    with pytest.raises(ConfigError, match=r"data\.json differs .*: 3 pictures, like 0\.png\n"):
        folder.create(config, {"pictures": [{"file": "0.png", "sha256": "9"}, rows[1], rows[3]]}, resume=True)
    with pytest.raises(ConfigError, match="the order of the pictures"):
        folder.create(config, {"pictures": rows[2::-1]}, resume=True)
    (folder.root / "data.json").write_text("{}")
    with pytest.raises(ConfigError, match="2 pictures, like 0"):
        folder.create(config, {"pictures": rows[:2]}, resume=True)


def test_only_one_process_trains_into_a_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "run")
    refused = pytest.raises(ConfigError, match="another process trains into the run folder")
    with folder.sole_use(), refused, folder.sole_use():
        pass
    with folder.sole_use():
        pass
