"""One training from a run folder's settings to its finished model."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from kenpin.pictures import Picture
from kenpin.train.allot import PICTURES, Gauge, because
from kenpin.train.data import Roles, evenly, load_pictures, some_of
from kenpin.train.doubts import save_doubts
from kenpin.train.fit import BATCH, doubt, fit_head
from kenpin.train.inspector import Inspector
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import Trainer
from kenpin.train.real_defects import RealDefects
from kenpin.train.recipe import HIERARCHICAL
from kenpin.train.run import RunFolder
from kenpin.train.tracking import Tracker
from kenpin.train.training import Schedule, StepLog, Training
from kenpin.train.transfer import TRANSFER, Origin, remember, start_from

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT_EVERY_S = 20.0
# More pictures than this bring the head nothing and cost memory.
HEAD_PICTURES = 1000
HELD_BACK_PICTURES = 400
OTHER = 5.0  # times what one held-back good part in ten exceeds: so much have defects


@dataclass(frozen=True)
class Means:
    """With what to train. These change how fast it goes, not what is learned.

    Attributes:
        fabric: Device, precision and processes.
        cache_bytes: Most memory for decoded pictures.
        compiled: Whether torch.compile is used.
        tracker: Where the figures go besides the run folder.
        console: Where a person looks.
    """

    fabric: Fabric
    cache_bytes: int
    compiled: bool
    tracker: Tracker
    console: Console


def learn(
    folder: RunFolder, roles: Roles, means: Means, *, init: Path | None = None, origin: Origin | None = None
) -> None:
    """Train as the run folder says, from its checkpoint where it has one, and save the model there.

    Args:
        folder: The run.
        roles: Pictures to learn from, good and bad ones, and pictures held back.
        means: With what.
        init: File of initial weights, for a run that starts; random ones without.
        origin: Trained model of similar parts, for a run that starts.
    """
    config, device = folder.config, means.fabric.device
    training = Training.start(width=config.width, seed=config.seed, device=device, init=init)
    if origin is not None:
        start_from(origin, training.model)
    _load_in_turn(folder, training, means.fabric)
    if means.compiled:
        training.model.encoder.compile()
    pictures = PictureCache(pictures=roles.fit, side=config.size, limit_bytes=means.cache_bytes, device=device)
    numbers, held = _for_head(roles.fit), some_of(roles.held_back, HELD_BACK_PICTURES)
    for_head = pictures.batch(torch.tensor(numbers))
    held_back = load_pictures(held, side=config.size).to(device)
    real = RealDefects.load(roles.teach, side=config.size) if roles.teach else None
    recipe = TRANSFER if origin else HIERARCHICAL
    recipe = replace(recipe, importance=recipe.importance if config.importance else 0)
    schedule = Schedule(config.steps, config.batch, config.seed, recipe)
    with progress_bar(means.console) as progress:
        record = _Record(folder, training, means, progress)
        known = pictures.batch(torch.tensor(evenly(len(pictures), PICTURES)))
        gauge = Gauge(known, held_back, seed=config.seed + 1)
        tell = means.console.print
        trainer = Trainer(training, pictures, schedule, means.fabric, record.step, gauge, tell=tell, real=real)
        trainer.run()
        record.finish()
        progress.add_task("fit the anomaly head", total=None)
        head = fit_head(training.model, for_head, held_back, seed=config.seed)
    if means.fabric.is_global_zero:
        looked_at = [*(roles.fit[number] for number in numbers), *held]
        save_doubts(folder, looked_at, *doubt(head, for_head, held_back))
        # Last, as a run with a model is finished: whatever could not be saved is saved by a resume.
        folder.save_model(Inspector(training.model.encoder, head))


def update(folder: RunFolder, roles: Roles, means: Means, origin: Origin) -> None:
    """Remember new pictures of the parts that an origin knows, and save the model in the run folder.

    Args:
        folder: The run.
        roles: Good pictures to remember and good pictures held back.
        means: With what.
        origin: What is known already.
    """
    if not means.fabric.is_global_zero:
        return
    side, device = folder.config.size, means.fabric.device
    with progress_bar(means.console) as progress:
        progress.add_task("update the anomaly head", total=None)
        new, held = [roles.fit[n] for n in _for_head(roles.fit)], some_of(roles.held_back, HELD_BACK_PICTURES)
        pictures, held_back = (load_pictures(some, side=side).to(device) for some in (new, held))
        inspector = remember(origin, pictures, held_back, seed=folder.config.seed)
    _tell_other(origin, held_back.cpu(), means.console)
    before = copy.deepcopy(origin.inspector.head).to(device)
    save_doubts(folder, [*new, *held], *doubt(before, pictures, held_back, beside=True))
    folder.save_model(inspector.cpu())


@torch.no_grad()
def _tell_other(origin: Origin, pictures: Tensor, console: Console) -> None:
    """Say where new pictures look to an origin as defects do: they may show other parts."""
    batches = torch.split(pictures.permute(0, 2, 3, 1), BATCH)
    middle = float(torch.cat([origin.inspector(frames)[0] for frames in batches]).median())
    if middle > OTHER:
        told = f"half of the new good pictures score above {middle:.3g} by the model as it was, where nine of "
        told += "ten that it knew are below 1: the same parts do so under another lamp, and so do other parts, "
        told += "with which defects pass; for these give --from: docs/transfer.md"
        console.print(told, soft_wrap=True)


def _for_head(pictures: Sequence[Picture]) -> list[int]:
    """Which pictures the head learns from, those of a part side by side.

    By name they lie apart where each camera has a folder, and the head judges some by what the others teach.
    """
    return sorted(evenly(len(pictures), HEAD_PICTURES), key=lambda number: pictures[number].group)


def _load_in_turn(folder: RunFolder, training: Training, fabric: Fabric) -> None:
    """Load the checkpoint, one process after the other: each one drops later lines of metrics.jsonl."""
    for turn in range(fabric.world_size):
        if turn == fabric.global_rank:
            folder.load_training(training)
        fabric.barrier()


class _Record:
    """Writes down every step, and a checkpoint now and then. Only the first process writes."""

    def __init__(self, folder: RunFolder, training: Training, means: Means, progress: Progress) -> None:
        self._folder, self._training, self._means, self._progress = folder, training, means, progress
        self._bar = progress.add_task("pretrain", total=1.0)
        before = folder.metrics()
        self._spent = sum(line.get("seconds", 0.0) for line in before)
        self._saved = time.monotonic()
        self._told = any("allotment" in line for line in before)

    def step(self, log: StepLog) -> None:
        self._spent += log.seconds
        if self._means.fabric.is_global_zero:
            self._tell_allotment()
            device = self._means.fabric.device.type
            self._folder.log({**asdict(log), "device": device, "device_seconds": round(self._spent, 3)})
            self._means.tracker.log(log.step, {f"loss/{log.level}": log.loss, "rate": log.learning_rate})
            due = time.monotonic() - self._saved > CHECKPOINT_EVERY_S
            if due and not self._training.probing:
                self._save()
        told = f"pretrain {log.level:6} loss {log.loss:6.3f}"
        self._progress.update(self._bar, completed=min(1.0, log.progress), description=told)

    def finish(self) -> None:
        if self._means.fabric.is_global_zero:
            self._tell_allotment()
            self._save()

    def _tell_allotment(self) -> None:
        found = self._training.allotment
        if found and not self._told:
            self._told = True
            self._folder.log({"allotment": {**asdict(found), "because": because(found.gain, found.share)}})

    def _save(self) -> None:
        self._folder.save_training(self._training)
        self._saved = time.monotonic()


def progress_bar(console: Console) -> Progress:
    """The bar that all long work of a training shows."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)
