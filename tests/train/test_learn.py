"""One training with its run folder: when it is saved, when levels are probed, and what a resume keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import pytest
import torch
from rich.console import Console

from kenpin.errors import TrainError
from kenpin.pictures import read_data
from kenpin.synthetic import draw_part
from kenpin.train.data import Roles, assign_roles, load_pictures
from kenpin.train.device import open_fabric
from kenpin.train.doubts import read_doubts
from kenpin.train.encoder import Encoder
from kenpin.train.init import load_initial_weights
from kenpin.train.learn import Means, learn, update
from kenpin.train.model import Pretrained
from kenpin.train.report import last_allotment
from kenpin.train.run import RunConfig, RunFolder
from kenpin.train.training import Training
from kenpin.train.transfer import Origin

SIDE = 64
MEMORY = 2**24
How = Callable[[RunFolder, Roles, Means], None]
# What fits the head is stopped before it asks for the origin.
HOW = pytest.mark.parametrize(
    ("fitted_by", "how"), [("fit_head", learn), ("remember", partial(update, origin=cast("Origin", None)))]
)


class FineGains:
    """A gauge of the probe that costs nothing; the third level measured has gained."""

    def __init__(self, *_: object, **__: object) -> None:
        self.values = [0.6, 0.6, 0.6, 0.7]

    def multiply_adds(self, _model: Pretrained) -> float:
        return 0.0

    def __call__(self, _model: Pretrained) -> float:
        return self.values.pop(0)


class Watcher:
    """A tracker that does something at each step."""

    def __init__(self, at_step: Callable[[int], None]) -> None:
        self.at_step = at_step

    def log(self, step: int, _values: dict[str, float]) -> None:
        self.at_step(step)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Roles:
    root = tmp_path_factory.mktemp("caps")
    for index in range(14):
        image = draw_part("cap", seed=1, index=index, defect_share=0).image[::4, ::4]
        assert cv2.imwrite(str(root / f"{index:02}.png"), image)
    return assign_roles(read_data(root), where=root, seed=0)


@pytest.fixture
def folder(tmp_path: Path, roles: Roles) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    config = RunConfig(product="cap", data="caps", size=SIDE, width=8, steps=40, batch=4, seed=0)
    folder.create(config, roles.manifest(), resume=False)
    return folder


def go(
    folder: RunFolder,
    roles: Roles,
    at_step: Callable[[int], None] = lambda _: None,
    *,
    how: How = learn,
) -> None:
    fabric = open_fabric("cpu", precision="fp32")
    how(folder, roles, Means(fabric, MEMORY, False, Watcher(at_step), Console(quiet=True)))


def test_a_training_probes_its_levels_and_says_so(
    folder: RunFolder, roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.train.learn.Gauge", FineGains)
    go(folder, roles)
    allotment = last_allotment(folder.metrics())
    assert allotment is not None
    assert [level for level, _, _ in allotment.rows] == ["coarse", "mid", "fine"]
    assert "+0.100" in allotment.rows[2]


@HOW
def test_the_head_gets_the_pictures_of_a_part_side_by_side(
    folder: RunFolder, roles: Roles, fitted_by: str, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It judges a fifth of them by the others, and a part must not be judged by what its own pictures teach."""
    parts = [f"part {number % 3}" for number in range(len(roles.fit))]
    fit = tuple(replace(picture, group=part) for picture, part in zip(roles.fit, parts, strict=True))
    given: list[torch.Tensor] = []

    def stop(*args: torch.Tensor, **_: object) -> None:
        given.append(args[1])
        raise KeyboardInterrupt

    monkeypatch.setattr("kenpin.train.learn.Gauge", FineGains)
    monkeypatch.setattr(f"kenpin.train.learn.{fitted_by}", stop)
    with pytest.raises(KeyboardInterrupt):
        go(folder, replace(roles, fit=fit), how=how)
    together = sorted(fit, key=lambda picture: picture.group)
    assert list(fit) != together
    assert torch.equal(given[0], load_pictures(together, side=SIDE))


def test_a_checkpoint_is_written_when_it_is_due_and_never_within_the_probe(
    folder: RunFolder, roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe starts again from its beginning; a checkpoint within it would be of one level alone."""
    saved: list[tuple[int, bool]] = []

    def note(_folder: RunFolder, training: Training) -> None:
        saved.append((training.step, training.probing))

    monkeypatch.setattr("kenpin.train.learn.Gauge", FineGains)
    monkeypatch.setattr("kenpin.train.learn.CHECKPOINT_EVERY_S", -1.0)
    monkeypatch.setattr(RunFolder, "save_training", note)
    go(folder, roles)
    often = list(saved)
    monkeypatch.setattr("kenpin.train.learn.CHECKPOINT_EVERY_S", 1e9)
    go(folder, roles)
    assert len(saved) == len(often) + 1, "at the end"
    steps = [line["step"] for line in folder.metrics() if "step" in line]
    assert not any(probing for _, probing in often)
    assert len(steps) / 2 < len({step for step, _ in often}) < len(steps)


def test_a_resume_keeps_the_allotment_once(
    folder: RunFolder, roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_step: int) -> None:
        if last_allotment(folder.metrics()) and folder.metrics()[-1]["progress"] > 0.7:
            raise KeyboardInterrupt

    monkeypatch.setattr("kenpin.train.learn.Gauge", FineGains)
    monkeypatch.setattr("kenpin.train.learn.CHECKPOINT_EVERY_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        go(folder, roles, stop)
    go(folder, roles)
    lines = folder.metrics()
    assert sum("allotment" in line for line in lines) == 1
    steps = [line["step"] for line in lines if "step" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert lines[-1]["device_seconds"] == pytest.approx(sum(line.get("seconds", 0) for line in lines), abs=0.01)


def test_a_run_is_finished_only_when_all_of_it_is_saved(
    folder: RunFolder, roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.train.learn.Gauge", FineGains)
    (folder.root / "doubts.safetensors").mkdir()
    with pytest.raises(TrainError, match="cannot write"):
        go(folder, roles)
    assert not folder.finished
    (folder.root / "doubts.safetensors").rmdir()
    go(folder, roles)
    assert folder.finished
    assert read_doubts(folder) is not None


@HOW
def test_of_too_many_pictures_those_of_all_lots_fit_the_head(
    folder: RunFolder, roles: Roles, fitted_by: str, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = replace(roles, held_back=tuple(sorted((*roles.held_back, *roles.test), key=lambda p: p.path)))
    given: list[tuple[torch.Tensor, ...]] = []

    def stop(*args: torch.Tensor, **_: object) -> None:
        given.append(args[1:])
        raise KeyboardInterrupt

    monkeypatch.setattr("kenpin.train.learn.Gauge", FineGains)
    monkeypatch.setattr("kenpin.train.learn.HEAD_PICTURES", 2)
    monkeypatch.setattr("kenpin.train.learn.HELD_BACK_PICTURES", 2)
    monkeypatch.setattr(f"kenpin.train.learn.{fitted_by}", stop)
    with pytest.raises(KeyboardInterrupt):
        go(folder, many, how=how)
    for taken, pictures in zip(given[0], (many.fit, many.held_back), strict=True):
        assert torch.equal(taken, load_pictures([pictures[0], pictures[-1]], side=SIDE))
    saved = (folder.root / "checkpoint.safetensors").exists()
    assert saved == (how is learn), "a training is kept though its head fails"


def test_a_training_begins_with_the_given_weights_and_holds_pictures_in_the_given_memory(
    folder: RunFolder, roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Encoder(8).state_dict(), tmp_path / "weights.pth")
    wanted = Encoder(8)
    load_initial_weights(wanted, tmp_path / "weights.pth")
    begun: list[Training] = []

    def stop(*, limit_bytes: int, **_: object) -> None:
        assert limit_bytes == MEMORY
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "load_training", lambda _, training: begun.append(training))
    monkeypatch.setattr("kenpin.train.learn.PictureCache", stop)
    with pytest.raises(KeyboardInterrupt):
        go(folder, roles, how=partial(learn, init=tmp_path / "weights.pth"))
    torch.testing.assert_close(begun[0].model.encoder.state_dict(), wanted.state_dict())
