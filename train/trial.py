"""One trial of a recipe on a set: train, and measure on the way and at the end.

Two figures are taken. `learned` is from what pretraining gave alone, memory banks and discriminators with fixed
weights, because that is what recipes differ in. `complete` is from the whole head, as a station would run it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from kenpin.train.allot import LEARNED, Gauge
from kenpin.train.bench_set import BenchSet
from kenpin.train.encoder import normalise
from kenpin.train.fit import fit_head
from kenpin.train.head import AnomalyHead, HeadShape, robust_maximum
from kenpin.train.metrics import Floats, aupro, auroc
from kenpin.train.model import Pretrained, settle_batch_norms
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import Trainer
from kenpin.train.training import Allotment, Schedule, StepLog, Training

BATCH = 32
# Shares of the compute at which the curve is measured; the end is always measured.
MEASURED_AT = (0.2, 0.4, 0.6, 0.8)
CURVE_PICTURES, CURVE_BANK = 64, 250
RANDOM = "random weights"


@dataclass(frozen=True)
class Setting:
    """What a trial is run with.

    Attributes:
        schedule: Compute, batch, seed and recipe; 0 steps measure random weights.
        curve: Whether to measure on the way.
    """

    schedule: Schedule
    curve: bool = False


@dataclass(frozen=True)
class Trial:
    """What came out.

    Attributes:
        set_name: The product.
        recipe: The recipe.
        seed: The seed.
        seconds: CPU seconds of training, the probe's measurements included, those for the curve not.
        curve: CPU seconds and image AUROC on the way and at the end, all by the same small banks and so below
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
    """Train a recipe on a set and measure it, on the CPU. A busy machine does not count: seconds are CPU time.

    Args:
        data: The product.
        setting: Recipe, seed and compute.
    """
    schedule = setting.schedule
    training = Training.start(width=32, seed=schedule.seed, device=torch.device("cpu"))
    watch = _Watch(data, training, setting.curve)
    if schedule.steps:
        fabric = Fabric(accelerator="cpu", devices=1)
        gauge = Gauge(data.fit, data.held_back, seed=schedule.seed + 1)
        Trainer(training, PictureCache.of(data.fit), schedule, fabric, watch.step, gauge).run()
    else:
        settle_batch_norms(training.model.encoder, data.fit)
    watch.finish()
    head = fit_head(training.model, data.fit, data.held_back, seed=schedule.seed)
    maps = _maps(training.model, head, data.test)
    fused = (maps * head.weight.view(1, -1, 1, 1)).sum(1)
    learned = _learned(maps)
    return Trial(
        data.name,
        schedule.recipe.name if schedule.steps else RANDOM,
        schedule.seed,
        watch.seconds,
        tuple(watch.curve),
        learned,
        robust_maximum(fused).numpy(),
        *_pixel_figures(fused.numpy(), data),
        training.allotment,
    )


def _pixel_figures(maps: Floats, data: BenchSet) -> tuple[float, float, float]:
    if data.masks is None:
        return (float("nan"),) * 3
    # A defect without a mask would count every one of its pixels as good.
    known = ~data.bad | data.masks.any((1, 2))
    maps, masks = maps[known], data.masks[known]
    return auroc(maps, masks), aupro(maps, masks, limit=0.3), aupro(maps, masks, limit=0.05)


class _Watch:
    """Counts CPU seconds of training, and stops counting while the curve is measured."""

    def __init__(self, data: BenchSet, training: Training, curve: bool) -> None:
        self._data, self._training, self._wanted = data, training, curve
        self._due = list(MEASURED_AT)
        self.curve: list[tuple[float, float]] = []
        self.seconds = 0.0
        self._started = time.process_time()

    def step(self, log: StepLog) -> None:
        self.seconds += time.process_time() - self._started
        if self._due and log.progress >= self._due[0]:
            self._due.pop(0)
            self._measure()
        self._started = time.process_time()

    def finish(self) -> None:
        self.seconds += time.process_time() - self._started
        self._measure()

    def _measure(self) -> None:
        if self._wanted:
            state = torch.get_rng_state()
            learned = measure_learned(self._training.model, self._data)
            torch.set_rng_state(state)
            self.curve.append((self.seconds, auroc(learned, self._data.bad)))


@torch.no_grad()
def measure_learned(model: Pretrained, data: BenchSet) -> Floats:
    """Scores (T,) of the test pictures by small banks and discriminators alone; the model stays as it is."""
    kept = Pretrained(model.encoder.channels[0])
    kept.load_state_dict(model.state_dict())
    known, held_back = data.fit[:CURVE_PICTURES], data.held_back[:CURVE_PICTURES]
    settle_batch_norms(kept.encoder, known)
    kept.eval()
    head = AnomalyHead(HeadShape(known.shape[-1], kept.encoder.channels, CURVE_BANK), kept.discriminators)
    images = known.float() / 255
    taps = kept.encoder(normalise(images))
    head.fill(head.light_grids(images), taps[1], taps[2])
    images = held_back.float() / 255
    head.standardise(head.raw_maps(images, kept.encoder(normalise(images))))
    return _learned(_maps(kept, head, data.test))


def _learned(maps: Tensor) -> Floats:
    """Scores (N,) of standardised maps (N, 6, h, w) by banks and discriminators."""
    return robust_maximum((maps * maps.new_tensor(LEARNED).view(1, -1, 1, 1)).sum(1)).numpy()


@torch.no_grad()
def _maps(model: Pretrained, head: AnomalyHead, pictures: Tensor) -> Tensor:
    """Standardised maps (N, 6, S/4, S/4)."""
    images = (batch.float() / 255 for batch in torch.split(pictures, BATCH))
    return torch.cat([head.maps(image, model.encoder(normalise(image))) for image in images])
