"""Two processes that train together learn what one learns from all their pictures.

Run as a script this file is one of the two processes, started with the variables that torchrun sets.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from kenpin.broker import held_port
from kenpin.errors import TrainError
from kenpin.synthetic import draw_part
from kenpin.train.device import open_fabric
from kenpin.train.learn import _load_in_turn
from kenpin.train.levels import COARSE, FINE, Level
from kenpin.train.model import Pretrained
from kenpin.train.objective import MAX_DEFECT_PLACES, Objective, Task
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import Trainer
from kenpin.train.ranks import gather, rank, synchronise_norms, total, world
from kenpin.train.scene import Scene, cut_scene
from kenpin.train.training import Schedule, StepLog, Training
from kenpin.train.views import Photometry

TIMEOUT_S = 150.0
# Pictures of a joined batch, and how the two processes share them.
SHARES = (5, 3)
SPREAD = replace(FINE, name="fine, spread out", spread=1.0)
SIMCLR = replace(COARSE, name="SimCLR", negatives="pictures")
DISCRIMINATION = replace(FINE, name="discrimination", losses=(0.0, 0.0, 1.0))


def test_the_library_below_does_not_talk_between_our_progress(caplog: pytest.LogCaptureFixture) -> None:
    open_fabric("cpu", precision="bf16")
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.slow
def test_the_objective_on_two_processes_is_that_of_the_joined_batch(tmp_path: Path) -> None:
    with held_port() as port:
        processes = [start_rank(number, port, tmp_path) for number in range(2)]
        try:
            told = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(told)


def start_rank(number: int, port: int, folder: Path) -> subprocess.Popen[str]:
    variables = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    variables |= {"GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1, "TORCHELASTIC_RUN_ID": "test"}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    env = os.environ | {k: str(v) for k, v in variables.items()}
    command = [sys.executable, __file__, str(folder)]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_torchrun_trains_one_run_and_writes_it_once(tmp_path: Path) -> None:
    for number in range(16):
        picture = draw_part("cap", seed=1, index=number, defect_share=0).image
        (tmp_path / "good").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / f"good/{number}.png"), picture)
    shutil.copy(tmp_path / "good/0.png", tmp_path / "good/copy.png")
    folder = tmp_path / "run"
    # "--" keeps torchrun from reading --run as one of its own options.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    train = ["kenpin", "train", "--good", tmp_path / "good", "--run", folder, "--size", 64, "--steps", 6]
    done = subprocess.run(
        [str(a) for a in (*launch, *train, "--device", "cpu", "--json")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["good"] == 4
    assert done.stderr.count("with the content of another one") == 1
    assert done.stderr.count("report.html") == 1
    assert done.stderr.count("fit the anomaly head") == 1
    names = ("config.json", "data.json", "metrics.jsonl", "report.html", "train.lock")
    tensors = ("checkpoint", "doubts", "encoder", "head")
    assert {p.name for p in folder.iterdir()} == {*names, *(f"{name}.safetensors" for name in tensors)}
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in logged if "step" in entry]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 6
    assert sum("evaluation" in entry for entry in logged) == 1


@dataclass(frozen=True)
class Step:
    """One step of one process on a joined batch, and what came out."""

    level: Level
    scene: Scene
    importance: Tensor
    before: Pretrained
    after: Pretrained
    loss: Tensor
    hard: Tensor


def joined_step(level: Level) -> Step:
    torch.manual_seed(0)
    pictures = [draw_part("cap", seed=1, index=n, defect_share=0).image for n in range(sum(SHARES))]
    batch = torch.stack([torch.from_numpy(cv2.resize(p, (96, 96))) for p in pictures]).permute(0, 3, 1, 2) / 255
    scene = cut_scene(level, batch, Photometry(gain=0.05, contrast=0.05))
    # One picture of each process is bad somewhere, nobody knows where.
    scene.mask[[0, -1]] = torch.nan
    assert (scene.mask > 0).sum() / 64 < MAX_DEFECT_PLACES, "both would draw, but not the same"
    importance = 1 + 0.5 * torch.linspace(-1, 1, len(batch))
    before = Pretrained(8)
    after = copy.deepcopy(before)
    loss, hard = Objective(after).train()(Task(level, scene, importance))
    loss.backward()
    torch.optim.SGD(after.parameters(), lr=0.1).step()
    return Step(level, scene, importance, before, after, loss.detach(), hard.detach())


def own_part(joined: Step) -> Task:
    """The part of the scene that this process has."""
    views = [torch.split(v, SHARES)[rank()] for v in joined.scene.views.chunk(3)]
    others = [joined.scene.mask, joined.scene.places, joined.scene.places_second, joined.scene.seen]
    scene = Scene(torch.cat(views), *(torch.split(x, SHARES)[rank()] for x in others))
    return Task(joined.level, scene, torch.split(joined.importance, SHARES)[rank()])


def same_as(joined: Step, fabric: Fabric) -> None:
    model = copy.deepcopy(joined.before)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    objective, optimizer = fabric.setup(Objective(synchronise_norms(model)).train(), plain)
    loss, hard = objective(own_part(joined))
    fabric.backward(loss)
    optimizer.step()
    torch.testing.assert_close(total(loss) / world(), joined.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gather(hard), joined.hard, rtol=1e-5, atol=1e-5)
    expected, start = joined.after.state_dict(), joined.before.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    moved = max(float((expected[name] - start[name]).abs().max()) for name, _ in model.named_parameters())
    assert moved > 1e-2, "the step is too small to tell anything"


class OtherOnEachRank:
    """A gauge that rounds otherwise on every machine."""

    def multiply_adds(self, _model: Pretrained) -> float:
        return 0.0

    def __call__(self, model: Pretrained) -> float:
        return float(model.encoder.conv1.weight.sum()) * (1 + rank())


def trains_alike(fabric: Fabric) -> None:
    """All processes end with the same weights, hardness and shares, and tell the same loss."""
    pictures = torch.randint(
        0, 255, (14, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    logs: list[StepLog] = []
    training = Training.start(width=8, seed=0, device=fabric.device)
    work = Trainer(training, PictureCache.of(pictures), Schedule(8, 5, 0), fabric, logs.append)
    work.gauge = OtherOnEachRank()  # type: ignore[assignment]
    work._probe()
    work.run()
    assert training.allotment is not None
    weights = torch.cat([p.detach().flatten() for p in training.model.state_dict().values()])
    losses = torch.tensor([log.loss for log in logs])
    shares = torch.tensor([*training.allotment.share.values()])
    assert training.hardness is not None
    assert int(training.hardness.isnan().sum()) < 3
    for what in (weights, losses, shares, training.hardness.nan_to_num()):
        first, second = gather(what).chunk(2)
        assert torch.equal(first, second)


def loads_in_turn(fabric: Fabric, folder: Path) -> None:
    class Slow:
        def load_training(self, _training: object) -> None:
            for what in ("in", "out"):
                with (folder / "turns").open("a") as out:
                    out.write(f"{rank()} {what}\n")
                time.sleep(0.3)

    _load_in_turn(Slow(), None, fabric)  # type: ignore[arg-type]
    assert (folder / "turns").read_text() == "0 in\n0 out\n1 in\n1 out\n"


def too_few_pictures(fabric: Fabric) -> None:
    training = Training.start(width=8, seed=0, device=fabric.device)
    pictures = PictureCache.of(torch.zeros(8, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(TrainError, match="too few for 2 processes"):
        Trainer(training, pictures, Schedule(1, 3, 0), fabric, print)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    # Before the processes meet: each one computes what a single one would.
    joined = [joined_step(level) for level in (COARSE, SPREAD, DISCRIMINATION, SIMCLR)]
    fabric = open_fabric("cpu", precision="fp32")
    assert world() == 2
    for step in joined:
        same_as(step, fabric)
    trains_alike(fabric)
    loads_in_turn(fabric, folder)
    too_few_pictures(fabric)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
