"""Hierarchical contrastive pretraining. Read from top to bottom.

Three levels look at a part, coarse -> mid -> fine, each with its own views, negatives and temperatures
(`levels.py`).

One step, of one level (`Trainer._step`, `Trainer._accumulate`):

1. A batch of good pictures is drawn, hard ones preferred early (`importance.py`).
2. Each gives three views: two that overlap with known geometry, and a third one with a synthetic defect of the
   level's size (`scene.py`).
3. They pass through the encoder once. At strides 8 and 16 three losses are summed (`objective.py`; the formulas
   stand in `losses.py`): a good place is pulled to itself in the other view, and to its like in other pictures,
   and pushed from synthetic defects only; and a 1x1 discriminator tells defect cells from good ones.

All steps (`Trainer.run`): the levels one after the other (start), then a short probe of each from the same
weights; what it gained decides its share of the rest (`allot.py`), where levels take turns by lot. Views grow
early, first layers freeze late. Compute is counted in multiply-accumulates, so that machines and recipes
compare.

Why it is so, and what each part was measured to be worth: docs/training.md.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kenpin.errors import TrainError
from kenpin.train.allot import Gauge, allot
from kenpin.train.data import evenly
from kenpin.train.importance import Importance
from kenpin.train.levels import COARSE, Level
from kenpin.train.model import settle_batch_norms
from kenpin.train.objective import Objective, Task
from kenpin.train.picture_cache import PictureCache
from kenpin.train.ranks import gather, rank, synchronise_norms, total, world
from kenpin.train.real_defects import RealDefects
from kenpin.train.scene import cut_scene
from kenpin.train.training import Allotment, Schedule, StepLog, Training, learning_rate
from kenpin.train.views import Photometry

if TYPE_CHECKING:
    # Importing it takes seconds, and whoever only reads a run does not need it.
    from lightning_fabric import Fabric

# Of each picture in a step.
VIEWS = 3
# Early views are smaller until this share of the compute is spent.
GROWN_AT = 0.2
# Share of the compute that the probe of one level takes; without a probe where measuring would cost more.
PROBE = 0.04
# Of a step, as a place is pulled to its like in other pictures.
LEAST_PICTURES = 2
# That show the spread of light at the start, and settle the batch norms at the end.
SETTLE_PICTURES = 200


@dataclass
class Trainer:
    """One training under way.

    Attributes:
        training: Where to go on; changed in place.
        pictures: Good pictures.
        schedule: How long and how.
        fabric: Device, precision and processes.
        on_step: Called after each step.
        gauge: Measures the probe; without one the usual mix of the recipe is kept.
        tell: Called with what a person should know.
        real: Pictures of bad parts to push away from, besides the drawn defects.
        parts: Into how many a batch is cut, as the device's memory wants it.
        compute: Multiply-accumulates to spend: `Schedule.steps` of the coarse level.
        importance: How hard each picture is.
        photometry: How far light and contrast of the views may differ.
    """

    training: Training
    pictures: PictureCache
    schedule: Schedule
    fabric: Fabric
    on_step: Callable[[StepLog], None]
    gauge: Gauge | None = None
    tell: Callable[[str], object] = lambda _: None
    real: RealDefects | None = None
    parts: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if self.schedule.batch < LEAST_PICTURES * world():
            raise TrainError(
                f"{self.schedule.batch} pictures per step are too few for {world()} processes",
                cure=f"train with --batch {LEAST_PICTURES * world()} or more, or with fewer processes",
            )
        recipe, encoder = self.schedule.recipe, self.training.model.encoder
        reference = encoder.multiply_adds(COARSE.view_side(self.pictures.side))
        self.compute = self.schedule.steps * self.schedule.batch * VIEWS * reference
        self.importance = Importance(len(self.pictures), strength=recipe.importance)
        if self.training.hardness is not None:
            self.importance.loss = self.training.hardness
        self.training.hardness = self.importance.loss
        self.photometry = Photometry.measure(self._some())
        objective = Objective(synchronise_norms(self.training.model))
        self.objective, self.optimizer = self.fabric.setup(objective, self.training.optimizer)
        if self.training.scaling:
            self.fabric.strategy.precision.load_state_dict(self.training.scaling)

    def run(self) -> None:
        """Train until the compute is spent, then set the batch norms to clean good pictures.

        Raises:
            TrainError: The loss is not finite, or not even two pictures fit into the device's memory.
        """
        while self.training.spent < self.compute:
            if self._probe_is_due():
                self._probe()
            else:
                self._step(self._next_level())
        settle_batch_norms(self.training.model.encoder, self._some())

    @property
    def progress(self) -> float:
        """Share of the compute that is spent."""
        return self.training.spent / self.compute

    def _next_level(self) -> Level:
        """In the start one level after the other, then by lot: as the probe found, or the usual mix."""
        recipe = self.schedule.recipe
        if self.progress < recipe.start:
            return recipe.levels[int(self.progress / recipe.start * len(recipe.levels))]
        allotment = self.training.allotment
        mix = [allotment.share[level.name] for level in recipe.levels] if allotment else recipe.mix
        return random.Random(f"{self.schedule.seed} {self.training.step}").choices(recipe.levels, mix)[0]

    def _probe_is_due(self) -> bool:
        """After the start, once, and only where it costs less to measure than to train."""
        recipe = self.schedule.recipe
        if self.gauge is None or not recipe.allot or self.training.allotment or len(recipe.levels) == 1:
            return False
        measuring = (len(recipe.levels) + 1) * self.gauge.multiply_adds(self.training.model)
        return self.progress >= recipe.start and measuring < PROBE * len(recipe.levels) * self.compute

    def _probe(self) -> None:
        """Train each level alone from the same weights, measure, and go on from the mean of the weights.

        Nothing of the probe is lost: the mean of nearby weights is as good as any of them (Wortsman et al.,
        "Model soups", ICML 2022).
        """
        assert self.gauge is not None
        recipe, model = self.schedule.recipe, self.training.model
        self.training.probing = True
        before = self.gauge(model)
        self.training.spent += (len(recipe.levels) + 1) * self.gauge.multiply_adds(model)
        origin = self.training.snapshot()
        ends: list[dict[str, Tensor]] = []
        gain = {}
        for level in recipe.levels:
            self.training.restore(origin)
            until = self.training.spent + PROBE * self.compute
            while self.training.spent < until:
                self._step(level)
            # Not left to each process: one rounding apart, they would train different levels and wait forever.
            gain[level.name] = self.fabric.broadcast(self.gauge(model) - before)
            ends.append(self.training.snapshot())
        mean = {k: torch.stack([end[k].float() for end in ends]).mean(0).to(v) for k, v in origin.items()}
        self.training.restore(mean)
        shares = allot(list(gain.values()), recipe.mix)
        self.training.allotment = Allotment(gain, dict(zip(gain, shares, strict=True)))
        self.training.probing = False

    def _step(self, level: Level) -> None:
        """One step; where the device's memory does not suffice, in parts whose gradients are summed."""
        started = time.monotonic()
        training = self.training
        rate = learning_rate(self.progress, training.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        frozen = self._set_modes()
        torch.manual_seed(self._step_seed)
        drawn, weight = self.importance.draw(self.schedule.batch, self.progress)
        loss = self._backward(level, drawn[rank() :: world()], weight[rank() :: world()])
        if not math.isfinite(loss):
            raise TrainError(
                f"the loss of level {level.name} is {loss} at step {training.step}",
                cure="train again with another --seed; the last checkpoint is intact",
            )
        self.fabric.clip_gradients(self.objective, self.optimizer, max_norm=5.0, error_if_nonfinite=False)
        self.optimizer.step()
        training.scaling = self.fabric.strategy.precision.state_dict()
        training.step += 1
        side = level.view_side(self.pictures.side, growth=self._growth())
        cost = training.model.encoder.multiply_adds(side, frozen=frozen)
        training.spent += self.schedule.batch * VIEWS * cost
        log = StepLog(training.step, level.name, loss, rate, time.monotonic() - started, self.progress)
        self.on_step(log)

    @property
    def _step_seed(self) -> int:
        """Of every draw of the next step: a resumed run draws what the interrupted one would have drawn."""
        return self.schedule.seed * 1_000_003 + self.training.step

    def _backward(self, level: Level, drawn: Tensor, weight: Tensor) -> float:
        """Gradients of a batch; the mean loss, over all processes."""
        while True:
            # Anew for each attempt: a resumed run may need another number of them than the interrupted one.
            torch.manual_seed(self._step_seed * world() + rank())
            self.optimizer.zero_grad()
            try:
                return self._accumulate(level, drawn.tensor_split(self.parts), weight.tensor_split(self.parts))
            except torch.OutOfMemoryError:
                if world() > 1 or len(drawn) // (2 * self.parts) < LEAST_PICTURES:
                    raise TrainError(
                        f"{len(drawn) // self.parts} pictures do not fit into the device's memory",
                        cure="train with a smaller --size or --batch",
                    ) from None
                self.parts *= 2
                torch.cuda.empty_cache()
                self.tell(
                    f"the device is out of memory: each batch goes in {self.parts} parts from now on; "
                    "contrast sees the defects of its part only"
                )

    def _accumulate(self, level: Level, drawn: tuple[Tensor, ...], weight: tuple[Tensor, ...]) -> float:
        """Views, losses and gradients, one part of the batch after the other; the mean loss."""
        mean, count = 0.0, sum(map(len, drawn))
        for number, (some, weights) in enumerate(zip(drawn, weight, strict=True), start=1):
            pictures, share = self.pictures.batch(some).float() / 255, len(some) / count
            scene = cut_scene(level, pictures, self.photometry, growth=self._growth(), real=self.real)
            with self.fabric.no_backward_sync(self.objective, enabled=number < len(drawn)):
                loss, hard = self.objective(Task(level, scene, weights.to(pictures.device)))
                self.fabric.backward(loss * share)
            everyone = gather(torch.stack([some.to(hard.device, torch.float32), hard.float()], 1)).cpu()
            self.importance.update(everyone[:, 0].long(), everyone[:, 1])
            mean += (total(loss) / world()).item() * share
        return mean

    def _growth(self) -> float:
        """Resolution of the views, relative to the level's full one."""
        return self.schedule.recipe.growth if self.progress < GROWN_AT else 1.0

    def _set_modes(self) -> bool:
        """Training mode; late in the training the weights of the first layers stay. True where they do.

        Their batch norms go on with the statistics of each batch: the levels differ in scale, and the running
        statistics of all of them fit none.
        """
        frozen = self.progress >= self.schedule.recipe.freeze_from
        self.training.model.train()
        for module in self.training.model.early:
            module.requires_grad_(not frozen)
        return frozen

    def _some(self) -> Tensor:
        """Some pictures, evenly taken from all."""
        return self.pictures.batch(torch.tensor(evenly(len(self.pictures), SETTLE_PICTURES)))
