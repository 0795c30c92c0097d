"""One trial of a recipe on a set: train, and measure on the way and at the end.

Two figures are taken. `learned` is from what pretraining gave alone, memory banks and discriminators with fixed
weights, because that is what recipes differ in. `complete` is from the whole head, as a station would run it,
less the level that the recipe leaves out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from kenpin.train.allot import Gauge, score_learned, score_quickly
from kenpin.train.bench_set import BenchSet
from kenpin.train.device import open_fabric
from kenpin.train.fit import fit_head, maps_of
from kenpin.train.head import LEVEL_NAMES, by_level, fuse, robust_maximum
from kenpin.train.metrics import Floats, auroc
from kenpin.train.model import settle_batch_norms
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import Trainer
from kenpin.train.recipe import Recipe
from kenpin.train.training import Allotment, Schedule, StepLog, Training

# Shares of the compute at which the curve is measured; the end is always measured.
MEASURED_AT = (0.2, 0.4, 0.6, 0.8)
CURVE_PICTURES = 64
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Setting:
    """What a trial is run with.

    Attributes:
        schedule: Compute, batch, seed and recipe; 0 steps measure the weights it starts from.
        curve: Whether to measure on the way.
        device: cpu or cuda.
        init: File of initial weights; random ones without.
    """

    schedule: Schedule
    curve: bool = False
    device: str = "cpu"
    init: Path | None = None


@dataclass(frozen=True)
class Trial:
    """What came out.

    Attributes:
        set_name: The product.
        recipe: The recipe.
        seed: The seed.
        seconds: Seconds of training (`_Watch`), the probe's measurements included, those for the curve not.
        curve: Seconds and image AUROC on the way and at the end, all by the same small banks and so below
            what `learned` gives; empty where not asked for.
        learned: Scores of what pretraining gave alone, (T,).
        complete: Scores of the whole head, (T,).
        pixel_auroc: Of the maps of the whole head; NaN without masks, like the next two.
        aupro_30: Up to 30 % false positives.
        aupro_05: Up to 5 %.
        allotment: What the probe found.
    """

    set_name: str
    recipe: str
    seed: int
    seconds: float
    curve: tuple[tuple[float, float], ...]
    learned: Floats
    complete: Floats
    pixel_auroc: float
    aupro_30: float
    aupro_05: float
    allotment: Allotment | None


def run_trial(data: BenchSet, setting: Setting) -> Trial:
    """Train a recipe on a set and measure it.

    Args:
        data: The product.
        setting: Recipe, seed, compute and device.
    """
    schedule = setting.schedule
    fabric = open_fabric(setting.device, precision="fp32")
    data = data.on(fabric.device)
    training = Training.start(width=32, seed=schedule.seed, device=fabric.device, init=setting.init)
    watch = _Watch(data, training, setting.curve)
    if schedule.steps:
        gauge = Gauge(data.fit, data.held_back, seed=schedule.seed + 1)
        Trainer(training, PictureCache.of(data.fit), schedule, fabric, watch.step, gauge).run()
    else:
        settle_batch_norms(training.model.encoder, data.fit)
    watch.finish()
    head = fit_head(training.model, data.fit_by_part, data.held_back, seed=schedule.seed)
    maps = maps_of(head, training.model, data.test)
    levels = by_level(maps * head.weight.view(1, -1, 1, 1))
    fused = fuse(levels * levels.new_tensor(_kept(schedule.recipe)).view(1, -1, 1, 1)).cpu()
    return Trial(
        data.name,
        schedule.recipe.name if schedule.steps else UNTRAINED,
        schedule.seed,
        watch.seconds,
        tuple(watch.curve),
        score_learned(maps),
        robust_maximum(fused).numpy(),
        *data.pixel_figures(fused.numpy()),
        training.allotment,
    )


def _kept(recipe: Recipe) -> list[float]:
    """Of each level, whether its maps count: 1, else 0."""
    return [float(name != recipe.left_out) for name in LEVEL_NAMES]


class _Watch:
    """Counts seconds of training, and stops counting while the curve is measured.

    On a CPU they are CPU seconds, to which a busy machine does not matter; on a GPU those of a clock.
    """

    def __init__(self, data: BenchSet, training: Training, curve: bool) -> None:
        self._data, self._training, self._wanted = data, training, curve
        self._due = list(MEASURED_AT)
        self.curve: list[tuple[float, float]] = []
        self.seconds = 0.0
        self._on_gpu = data.fit.is_cuda
        self._started = self._now()

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def step(self, log: StepLog) -> None:
        self.seconds += self._now() - self._started
        if self._due and log.progress >= self._due[0]:
            self._due.pop(0)
            self._measure()
        self._started = self._now()

    def finish(self) -> None:
        self.seconds += self._now() - self._started
        self._measure()

    def _measure(self) -> None:
        if self._wanted:
            data = self._data
            known, good = data.fit[:CURVE_PICTURES], data.held_back[:CURVE_PICTURES]
            learned = score_quickly(self._training.model, known, good, data.test)
            self.curve.append((self.seconds, auroc(learned, data.bad)))
