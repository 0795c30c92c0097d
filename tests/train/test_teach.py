"""Bad parts that teach: who they are, that none of them measures, and what the training sees of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from kenpin.cli import cli
from kenpin.errors import DataError
from kenpin.folder_names import GOOD
from kenpin.pictures import Picture, PictureSet, read_data
from kenpin.strips import Strips
from kenpin.synthetic import draw_part
from kenpin.train import objective
from kenpin.train.card import facts
from kenpin.train.data import Roles, assign_roles
from kenpin.train.levels import COARSE, FINE, LEVELS, Level
from kenpin.train.model import Pretrained
from kenpin.train.objective import Objective, Task, suspect
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import Trainer
from kenpin.train.real_defects import RealDefects
from kenpin.train.run import RunFolder
from kenpin.train.scene import cut_scene
from kenpin.train.training import Schedule, Training
from kenpin.train.views import Photometry

PHOTOMETRY = Photometry(gain=0.01, contrast=0.01)


def write(path: Path, image: np.ndarray) -> Path:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def pictures_of(folder: Path, rows: list[tuple[str, str]]) -> PictureSet:
    """Ten good parts to learn from, and test pictures of the given labels and groups, no two files alike."""
    values = iter(range(250))
    train = [write(folder / f"train{n}.png", np.full((8, 8, 3), next(values), np.uint8)) for n in range(10)]
    test = [
        write(folder / f"test{n}.png", np.full((8, 8, 3), next(values), np.uint8)) for n in range(len(rows))
    ]
    return PictureSet(
        tuple(Picture(p, GOOD, p.name) for p in train),
        tuple(Picture(p, label, group) for p, (label, group) in zip(test, rows, strict=True)),
    )


def taught(roles: Roles) -> set[str]:
    """The groups that teach, once it is clear that no hash and no group of them is anywhere else."""
    rows = roles.manifest()["pictures"]
    for key in ("sha256", "group", "file"):
        teaching = {row[key] for row in rows if row["role"] == "teach"}
        assert not teaching & {row[key] for row in rows if row["role"] != "teach"}, key
    assert all(row["label"] != GOOD for row in rows if row["role"] == "teach")
    return {row["group"] for row in rows if row["role"] == "teach"}


# Scratches of 20 parts and holes of 10, two pictures of each; five parts have a good picture, too.
ROWS = [("scratch", f"s{n // 2}") for n in range(40)] + [("hole", f"h{n // 2}") for n in range(20)]
TIED = [(GOOD, f"s{n}") for n in range(5)]


@pytest.mark.parametrize("seed", range(5))
def test_teaching_parts_are_chosen_by_group_and_by_label_and_never_measure(tmp_path: Path, seed: int) -> None:
    found = pictures_of(tmp_path, ROWS + TIED)
    roles = assign_roles(found, where=tmp_path, seed=seed, teach=0.4)
    groups = taught(roles)
    assert not groups & {group for _, group in TIED}
    assert Counter(group[0] for group in groups) == {"s": 6, "h": 4}
    assert len(roles.teach) == 20
    assert sorted(p.path for p in (*roles.teach, *roles.test)) == sorted(p.path for p in found.test)
    assert roles == assign_roles(found, where=tmp_path, seed=seed, teach=0.4)
    assert roles != assign_roles(found, where=tmp_path, seed=seed + 1, teach=0.4)
    without = assign_roles(found, where=tmp_path, seed=seed)
    assert (without.fit, without.held_back) == (roles.fit, roles.held_back)
    assert without.test == found.test


@pytest.mark.parametrize("rows", [[], [("hole", "a")], [(GOOD, "a"), ("hole", "a"), ("hole", "b")]])
def test_too_few_bad_parts_to_teach_are_refused(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    with pytest.raises(DataError, match="too few to teach") as refused:
        assign_roles(pictures_of(tmp_path, rows), where=tmp_path, seed=0, teach=0.5)
    assert "--bad" in refused.value.cure


def test_of_two_bad_parts_one_teaches(tmp_path: Path) -> None:
    found = pictures_of(tmp_path, [("hole", "a"), ("hole", "b")])
    roles = [assign_roles(found, where=tmp_path, seed=seed, teach=0.3) for seed in range(8)]
    assert {frozenset(taught(each)) for each in roles} == {frozenset("a"), frozenset("b")}


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_a_bad_picture_teach_or_measure_together(tmp_path: Path, seed: int) -> None:
    for n in range(10):
        write(tmp_path / f"good/{n}.png", np.full((8, 8, 3), n, np.uint8))
    for n in range(8):
        write(tmp_path / f"hole/{n}.png", np.full((8, 8, 3), 100 + n // 2, np.uint8))
    roles = assign_roles(read_data(tmp_path), where=tmp_path, seed=seed, teach=0.5)
    assert len(taught(roles)) == 2
    assert len(roles.teach) == 4


def bad_parts(*, known: bool) -> RealDefects:
    """Three grey pictures with a bright square, each elsewhere."""
    pictures = torch.full((3, 3, 64, 64), 90, dtype=torch.uint8)
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    for number, (row, column) in enumerate([(12, 40), (30, 12), (44, 44)]):
        masks[number, row : row + 8, column : column + 8] = True
        pictures[number, :, row : row + 8, column : column + 8] = 250
    return RealDefects(pictures, masks if known else torch.zeros_like(masks))


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_view_of_a_masked_part_shows_its_defect_where_the_mask_says(level: Level) -> None:
    torch.manual_seed(0)
    bad = bad_parts(known=True).cut(level, 40, side=32, device=torch.device("cpu"))
    assert bad.views.shape == (40, 3, 32, 32)
    bright = (bad.views[:, :1] - 90 / 255) / (160 / 255)
    assert torch.allclose(bright, bad.mask, atol=1e-4)
    assert (bad.mask.amax((1, 2, 3)) > 0.9).all()
    assert len({tuple(whole.flatten().tolist()) for whole in bad.wholes}) == 3


@pytest.mark.parametrize("strips", [Strips(across=2), Strips(down=2)])
def test_masks_of_long_parts_lie_where_the_strips_of_their_pictures_do(strips: Strips, tmp_path: Path) -> None:
    mask = np.zeros((32, 112, 3), np.uint8)
    mask[12:20, 50:58] = 255  # in both strips
    mask = mask if strips.across > 1 else np.ascontiguousarray(mask.transpose(1, 0, 2))
    path, mask_path = write(tmp_path / "a.png", mask // 2), write(tmp_path / "a_mask.png", mask)
    bad = RealDefects.load([Picture(path, "hole", "a", mask_path, strips=strips)], side=64)
    assert bad.pictures.shape == (1, 3, 64, 64)
    assert torch.equal(bad.masks, bad.pictures[:, 0] > 0)
    assert int(bad.masks.sum()) == 2 * 8 * 8


def test_a_part_without_a_mask_is_shown_as_a_whole_and_nothing_is_claimed() -> None:
    torch.manual_seed(0)
    bad = bad_parts(known=False).cut(FINE, 40, side=32, device=torch.device("cpu"))
    assert bad.mask.isnan().all()
    assert (bad.views.amax((1, 2, 3)) > 0.9).all()


def test_a_quarter_of_the_pictures_shows_a_real_defect_and_the_good_views_stay() -> None:
    batch = torch.rand(8, 3, 64, 64)
    torch.manual_seed(1)
    plain = cut_scene(COARSE, batch, PHOTOMETRY)
    torch.manual_seed(1)
    real = cut_scene(COARSE, batch, PHOTOMETRY, real=bad_parts(known=False))
    third = real.views.chunk(3)[2]
    assert torch.equal(real.mask[2:], plain.mask[2:])
    assert real.mask[:2].isnan().all()
    # Normalised by the light of its own picture: the ground of the bad parts is a little below their mean.
    ground = third[:2].flatten(1).median(1).values
    assert ((ground > -0.25) & (ground < 0)).all()


def test_of_a_part_without_a_mask_the_places_rated_highest_count_and_the_others_are_ignored() -> None:
    share = torch.zeros(2, 10, 10)
    share[0, 0, 0] = 0.03
    share[1] = torch.nan
    logits = torch.zeros(2, 10, 10)
    logits[1, 4, 7], logits[1, 2, 3], logits[0, 5, 5] = 2.0, 1.0, 9.0
    told = suspect(share, logits)
    assert torch.equal(told[0], share[0])
    assert (told[1] == 1).nonzero().tolist() == [[2, 3], [4, 7]]
    assert int(told[1].isnan().sum()) == 98
    assert int((suspect(share[:, :4, :4], logits[:, :4, :4]) == 1).sum()) == 1


def test_unknown_places_are_neither_good_nor_defect_for_the_loss() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(4, 3, 64, 64)
    scene = cut_scene(COARSE, pictures, PHOTOMETRY)
    model = Objective(Pretrained(8))
    model.eval()
    unknown = replace(scene, mask=torch.full_like(scene.mask, torch.nan))
    logits = []
    for tap in (0, 1):
        model.model.discriminators[tap].register_forward_hook(
            lambda *a: logits.append(a[2].retain_grad() or a[2])
        )
    loss, hard = model(Task(COARSE, unknown, torch.ones(4)))
    loss.backward()
    assert loss.isfinite()
    assert hard.isfinite().all()
    for number in logits:
        of_bad = number.grad[4:, 0]
        assert int((of_bad != 0).sum()) == 4, "one place of each view, and no other"
        assert (of_bad[of_bad != 0] < 0).all(), "pushed towards defect"


def interrupted(folder: RunFolder, *, stop_after: int) -> list[float]:
    parts = [draw_part("cap", seed=1, index=n, defect_share=0).image[::4, ::4].copy() for n in range(12)]
    pictures = torch.stack([torch.from_numpy(p) for p in parts]).permute(0, 3, 1, 2).contiguous()
    training = Training.start(width=8, seed=3, device=torch.device("cpu"))
    folder.load_training(training)
    losses = []

    def on_step(log: object) -> None:
        losses.append(log.loss)  # type: ignore[attr-defined]
        folder.save_training(training)
        if training.step == stop_after:
            raise KeyboardInterrupt

    fabric, schedule = Fabric(accelerator="cpu", devices=1), Schedule(6, 4, 3)
    work = Trainer(training, PictureCache.of(pictures), schedule, fabric, on_step, real=bad_parts(known=True))
    work.run()
    return losses


def test_resume_sees_the_same_bad_parts(tmp_path: Path) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    expected = interrupted(RunFolder(tmp_path / "whole"), stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(RunFolder(tmp_path / "broken"), stop_after=3)
    assert interrupted(RunFolder(tmp_path / "broken"), stop_after=0) == expected[3:]


def draw(root: Path) -> None:
    """Caps: 12 good ones in good/, 8 bad ones of two pictures each in bad/ with a manifest."""
    for n in range(12):
        write(root / f"good/{n}.png", draw_part("cap", seed=1, index=n, defect_share=0).image)
    rows = ["file,group"]
    for n in range(8):
        part = draw_part("cap", seed=3, index=n, defect_share=1)
        for side in (0, 1):
            write(root / f"bad/{part.label}/{n}_{side}.png", np.roll(part.image, side, 0))
            rows.append(f"{part.label}/{n}_{side}.png,{n}")
    (root / "bad/manifest.csv").write_text("\n".join(rows) + "\n")


def kenpin(*arguments: object) -> None:
    cli.main([str(a) for a in arguments], standalone_mode=False)


def test_train_with_teach_from_the_folders_to_the_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, run = tmp_path / "parts", tmp_path / "run"
    draw(parts)
    seen: list[bool] = []
    judge = objective.suspect
    monkeypatch.setattr(objective, "suspect", lambda s, x: seen.append(bool(s.isnan().any())) or judge(s, x))
    arguments = ("--good", parts / "good", "--bad", parts / "bad", "--size", 64, "--steps", 1)
    kenpin("train", *arguments, "--run", run, "--teach", 0.5, "--json")
    assert seen
    assert all(seen)
    rows = json.loads((run / "data.json").read_text())["pictures"]
    teaching = [row for row in rows if row["role"] == "teach"]
    assert len(teaching) == 8
    assert len({row["group"] for row in teaching}) == 4
    tested = [row for row in rows if row["role"] == "test"]
    assert not {row["group"] for row in teaching} & {row["group"] for row in tested}
    assert not {row["sha256"] for row in teaching} & {row["sha256"] for row in tested}
    figures = json.loads(capsys.readouterr().out)
    assert figures["bad"] == 8
    assert "8 of bad parts to learn from, too" in dict(facts(RunFolder(run)))["pictures"]
    assert "good parts only" not in (run / "report.html").read_text()
    # A folder that holds them all is measured without those that the run learned from.
    kenpin("evaluate", run, "--data", parts, "--json")
    told = capsys.readouterr()
    assert json.loads(told.out)["bad"] == 8
    assert "left out: the model learned from these parts" in told.err


def test_evaluate_leaves_out_the_parts_that_taught_also_in_other_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, run = tmp_path / "parts", tmp_path / "run"
    draw(parts)
    rows = [line.split(",") for line in (parts / "bad/manifest.csv").read_text().splitlines()[1:]]
    (parts / "manifest.csv").write_text("file,group\n" + "".join(f"bad/{f},{g}\n" for f, g in rows))
    kenpin("train", "--data", parts, "--size", 64, "--steps", 1, "--run", run, "--teach", 0.5)
    data = json.loads((run / "data.json").read_text())["pictures"]
    part = next(row for row in data if row["role"] == "teach")
    copy = np.roll(cv2.imread(part["file"]), 5, 1)
    new = write(Path(part["file"]).with_name("new.png"), copy)
    with (parts / "manifest.csv").open("a") as out:
        out.write(f"{new.relative_to(parts).as_posix()},{part['group']}\n")
    carried = shutil.copytree(parts, tmp_path / "carried")
    capsys.readouterr()
    for folder in (parts, carried):
        kenpin("evaluate", run, "--data", folder, "--json")
        assert json.loads(capsys.readouterr().out)["bad"] == 8
