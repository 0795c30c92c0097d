"""What learning that goes on gains and costs: arms that are compared on two lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from lightning_fabric import Fabric

from kenpin.train.allot import Gauge
from kenpin.train.bench_set import BenchSet
from kenpin.train.fit import fit_head
from kenpin.train.inspector import Inspector
from kenpin.train.metrics import Floats, auroc
from kenpin.train.model import Pretrained, settle_batch_norms
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import Trainer
from kenpin.train.recipe import HIERARCHICAL, Recipe
from kenpin.train.training import Training
from kenpin.train.transfer import STAGE, TRANSFER, Origin, remember, start_from

BATCH = 32
AS_IS, SCRATCH = "origin as it is", "trained from scratch"
BOTH, STAGED = "memory of both (--update)", "short stage, memory of the new (--from)"
NEW_MEMORY, SETTLED = "memory of the new", "batch norms settled, memory of the new"
JOINT = "memory fitted to all pictures of both again"


@dataclass(frozen=True)
class Figures:
    """What a model says about the test pictures of a line.

    Attributes:
        scores: (T,)
        auroc: Of the images.
        pixel_auroc: NaN without masks, like the next.
        aupro_30: Up to 30 % false positives.
    """

    scores: Floats
    auroc: float
    pixel_auroc: float
    aupro_30: float


@dataclass(frozen=True)
class Outcome:
    """One arm with one seed.

    Attributes:
        arm: Its name.
        pictures: Good pictures of the new line that it was given.
        seconds: CPU seconds of learning from them.
        old: On the test pictures of the old line.
        new: On those of the new line.
    """

    arm: str
    pictures: int
    seconds: float
    old: Figures
    new: Figures


@dataclass(frozen=True)
class Lines:
    """An old and a new line, with how to train on them.

    Attributes:
        old: Pictures of the line that the origin was trained on.
        new: Pictures of the other line, or of the same one later.
        steps: Compute of a training, in steps of the coarse level.
        seed: Seed of trainings and draws.
    """

    old: BenchSet
    new: BenchSet
    steps: int
    seed: int

    def transfer(self, counts: tuple[int, ...]) -> Iterator[Outcome]:
        """Every arm with each number of good pictures of the new line, or all where it has fewer."""
        origin, there = self._origin(), len(self.new.fit) + len(self.new.held_back)
        yield self._measure(AS_IS, 0, lambda: origin.inspector)
        for count in sorted({min(count, there) for count in counts}):
            few = replace(self, new=self.new.with_few(count, draw=self.seed))
            yield from few._with_few(origin, count)

    def _with_few(self, origin: Origin, count: int) -> Iterator[Outcome]:
        yield self._measure(SCRATCH, count, lambda: self._trained(self.new))
        yield self._measure(NEW_MEMORY, count, lambda: self._remembered(origin))
        yield self._measure(SETTLED, count, lambda: self._settled(origin))
        yield self._measure(STAGED, count, lambda: self._staged(origin))
        yield self._measure(BOTH, count, lambda: self._updated(origin))

    def continual(self) -> Iterator[Outcome]:
        """Every arm with all good pictures of the new line."""
        origin, count = self._origin(), len(self.new.fit) + len(self.new.held_back)
        yield self._measure(AS_IS, 0, lambda: origin.inspector)
        yield self._measure(SCRATCH, count, lambda: self._trained(self.new))
        yield self._measure(NEW_MEMORY, count, lambda: self._remembered(origin))
        yield self._measure(BOTH, count, lambda: self._updated(origin))
        yield self._measure(JOINT, count, lambda: self._refitted(origin))

    def _origin(self) -> Origin:
        return Origin("", self._trained(self.old), frozenset(), same_parts=True)

    def _measure(self, arm: str, pictures: int, learn: Callable[[], Inspector]) -> Outcome:
        started = time.process_time()
        inspector = learn()
        seconds = time.process_time() - started
        return Outcome(arm, pictures, seconds, figures(inspector, self.old), figures(inspector, self.new))

    def _trained(self, data: BenchSet) -> Inspector:
        training = Training.start(width=32, seed=self.seed, device=torch.device("cpu"))
        self._train(training, data, self.steps, HIERARCHICAL)
        return _fitted(training.model, data, self.seed)

    def _updated(self, origin: Origin) -> Inspector:
        return remember(origin, self.new.fit_by_part, self.new.held_back, seed=self.seed)

    def _remembered(self, origin: Origin) -> Inspector:
        return _fitted(_model_of(origin), self.new, self.seed)

    def _settled(self, origin: Origin) -> Inspector:
        model = _model_of(origin)
        settle_batch_norms(model.encoder, self.new.fit)
        return _fitted(model, self.new, self.seed)

    def _staged(self, origin: Origin) -> Inspector:
        training = Training.start(width=origin.width, seed=self.seed, device=torch.device("cpu"))
        start_from(origin, training.model)
        self._train(training, self.new, max(1, round(STAGE * self.steps)), TRANSFER)
        return _fitted(training.model, self.new, self.seed)

    def _refitted(self, origin: Origin) -> Inspector:
        fit = torch.cat([self.old.fit_by_part, self.new.fit_by_part])
        held_back = torch.cat([self.old.held_back, self.new.held_back])
        model = _model_of(origin)
        return Inspector(model.encoder, fit_head(model, fit, held_back, seed=self.seed)).eval()

    def _train(self, training: Training, data: BenchSet, steps: int, recipe: Recipe) -> None:
        schedule = data.schedule(steps, seed=self.seed, recipe=recipe)
        gauge = Gauge(data.fit, data.held_back, seed=self.seed + 1)
        fabric = Fabric(accelerator="cpu", devices=1)
        Trainer(training, PictureCache.of(data.fit), schedule, fabric, lambda _: None, gauge).run()


@torch.no_grad()
def figures(inspector: Inspector, data: BenchSet) -> Figures:
    """Measure a model on the test pictures of a line."""
    batches = torch.split(data.test.permute(0, 2, 3, 1).contiguous(), BATCH)
    outputs = [inspector(batch) for batch in batches]
    scores = torch.cat([o[0] for o in outputs]).numpy()
    maps = torch.cat([o[2] for o in outputs]).numpy()
    pixel_auroc, aupro_30, _ = data.pixel_figures(maps)
    return Figures(scores, auroc(scores, data.bad), pixel_auroc, aupro_30)


def false_calls(outcome: Outcome, old: BenchSet, new: BenchSet) -> float:
    """Share of the new good pictures above the limit that stops 5 % of the old good ones."""
    limit = np.quantile(outcome.old.scores[~old.bad], 0.95)
    return float((outcome.new.scores[~new.bad] > limit).mean())


def _model_of(origin: Origin) -> Pretrained:
    model = Pretrained(origin.width)
    start_from(origin, model)
    return model


def _fitted(model: Pretrained, data: BenchSet, seed: int) -> Inspector:
    return Inspector(model.encoder, fit_head(model, data.fit_by_part, data.held_back, seed=seed)).eval()
