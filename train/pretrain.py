"""Hierarchical contrastive pretraining. Read from top to bottom.

Three levels, coarse -> mid -> fine, each with its own views, negatives and temperature.

One step: a batch of good pictures -> two overlapping views with known geometry and a third one with a
synthetic defect of the level's size -> one pass through the encoder -> at strides 8 and 16 the three losses
of `losses.py`. Good places are pulled to themselves in the other view and to their like in other pictures,
and pushed from synthetic defects only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kenpin.errors import TrainError
from kenpin.train.defects import add_defects
from kenpin.train.encoder import Encoder
from kenpin.train.levels import Level, learning_rate, plan_levels
from kenpin.train.losses import defect_contrast, defect_discrimination, soft_nearest_neighbour
from kenpin.train.views import Photometry, jitter, overlapping, random_crops, sample, to_picture, to_view, warp

# Cells of stride 8 and 16 count as defect when more than this share of them changed.
DEFECT_SHARE = (0.12, 0.05)
MAX_DEFECT_PLACES = 256
PEAK_LEARNING_RATE = 2e-3


class Pretrained(nn.Module):
    """What is trained: the encoder, and per tap a projection for the contrast and a defect map.

    Args:
        width: Width of the encoder.
        embedding: Dimension of the projected space.
    """

    def __init__(self, width: int = 32, embedding: int = 64) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        taps = self.encoder.channels[1:]
        self.projections = nn.ModuleList(_projection(channels, embedding) for channels in taps)
        self.discriminators = nn.ModuleList(discriminator(channels) for channels in taps)


def discriminator(channels: int) -> nn.Sequential:
    """1x1 convolutions from features to the logit of "this place has a defect"."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 1, 1)
    )


def _projection(channels: int, embedding: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, embedding))


def normalise(pictures: Tensor) -> Tensor:
    """0..1 BGR to about zero mean and unit variance (ImageNet statistics)."""
    mean = torch.tensor((0.406, 0.456, 0.485), device=pictures.device).view(1, 3, 1, 1)
    std = torch.tensor((0.225, 0.224, 0.229), device=pictures.device).view(1, 3, 1, 1)
    return (pictures - mean) / std


@dataclass(frozen=True)
class Schedule:
    """How long and how to train.

    Attributes:
        steps: Number of steps.
        batch: Pictures per step.
        seed: Every draw of step k depends on the seed and k only, so a resumed run repeats nothing.
    """

    steps: int
    batch: int
    seed: int


@dataclass(frozen=True)
class StepLog:
    """What one step tells."""

    step: int
    level: str
    loss: float
    learning_rate: float
    seconds: float


@dataclass
class Training:
    """State of a training that can be saved and resumed: model, optimiser and the number of steps done."""

    model: Pretrained
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, *, width: int, seed: int, device: torch.device) -> Training:
        """A new training with random weights."""
        torch.manual_seed(seed)
        model = Pretrained(width).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(model, torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-4))


def pretrain(
    training: Training, pictures: Tensor, schedule: Schedule, *, on_step: Callable[[StepLog], None]
) -> None:
    """Train until `schedule.steps` steps are done, then set the batch norms to clean good pictures.

    Args:
        training: Where to go on; changed in place.
        pictures: Good pictures, BGR uint8 (N, 3, S, S), on the device.
        schedule: How long and how.
        on_step: Called after each step.

    Raises:
        TrainError: The loss is not finite.
    """
    photometry = Photometry.measure(pictures)
    plan = plan_levels(schedule.steps, seed=schedule.seed)
    model = training.model
    while training.step < schedule.steps:
        started = time.monotonic()
        torch.manual_seed(schedule.seed * 1_000_003 + training.step)
        level = plan[training.step]
        rate = learning_rate(training.step, schedule.steps, peak=PEAK_LEARNING_RATE)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        model.train()
        chosen = torch.randperm(len(pictures))[: schedule.batch]
        batch = pictures[chosen.to(pictures.device)].float() / 255
        loss = level_loss(model, level, batch, photometry)
        training.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainError(
                f"the loss of level {level.name} is {value} at step {training.step}",
                cure="train again with another --seed; the last checkpoint is intact",
            )
        training.optimizer.step()
        training.step += 1
        on_step(StepLog(training.step, level.name, value, rate, time.monotonic() - started))
    settle_batch_norms(model.encoder, pictures)


@dataclass(frozen=True)
class Scene:
    """Three views of each picture of a batch, and what is known about them.

    Attributes:
        views: Two views of the good part and one with a synthetic defect, BGR, (3 * N, 3, S, S).
        mask: Where the defect is visible, (N, 1, S, S).
        places: Places in the first view, -1..1, (N, K, 2).
        places_second: The same places in the second view.
        seen: 1 where both views see the place, (N * K,).
    """

    views: Tensor
    mask: Tensor
    places: Tensor
    places_second: Tensor
    seen: Tensor


def cut_views(level: Level, batch: Tensor, photometry: Photometry) -> Scene:
    """Cut a level's views out of good pictures, BGR 0..1, (N, 3, S, S)."""
    count, side = len(batch), level.view_side(batch.shape[-1])
    first = random_crops(count, level.extent)
    second = overlapping(first, random_crops(count, level.extent), extent=level.extent[0])
    view = warp(batch, first, side)
    middle = sum(level.extent) / 2
    broken, mask = add_defects(view, (level.defect_sizes[0] / middle, level.defect_sizes[1] / middle))
    views = torch.cat([jitter(v, photometry) for v in (view, warp(batch, second, side), broken)])
    return Scene(views, mask, *_common_places(first, second, level.places))


def level_loss(model: Pretrained, level: Level, batch: Tensor, photometry: Photometry) -> Tensor:
    """Loss of one level on one batch.

    Args:
        model: Encoder, projections and discriminators.
        level: Its views, negatives and temperatures.
        batch: Good pictures, BGR 0..1, (N, 3, S, S).
        photometry: Spread of light and contrast among good parts.

    Returns:
        Scalar, the sum over the taps at strides 8 and 16.
    """
    scene = cut_views(level, batch, photometry)
    pictures = normalise(scene.views).contiguous(memory_format=torch.channels_last)
    taps = model.encoder(pictures)[1:]
    losses = [tap_loss(model, tap, taps[tap], scene, level.temperatures[tap]) for tap in range(len(taps))]
    return torch.stack(losses).sum()


def tap_loss(model: Pretrained, tap: int, features: Tensor, scene: Scene, temperature: float) -> Tensor:
    """Discrimination, contrast and soft nearest neighbour at one tap, for features (3 * N, C, h, w)."""
    clean, other, changed = features.chunk(3)
    share = functional.adaptive_avg_pool2d(scene.mask, features.shape[-1])[:, 0]
    logits = model.discriminators[tap](torch.cat([clean, changed]))[:, 0]
    shares = torch.cat([torch.zeros_like(share), share])
    discrimination = defect_discrimination(logits, shares, threshold=DEFECT_SHARE[tap])
    defects = _defect_places(changed, share > DEFECT_SHARE[tap])
    if len(defects) == 0:
        return discrimination
    good = [sample(clean, scene.places), sample(other, scene.places_second)]
    unit = functional.normalize(model.projections[tap](torch.cat([*good, defects])), dim=1)
    anchors, positives, negatives = torch.split(unit, [len(good[0]), len(good[1]), len(defects)])
    pull = defect_contrast(anchors, positives, negatives, temperature=temperature)
    pull = pull + defect_contrast(positives, anchors, negatives, temperature=temperature)
    seen = scene.seen.to(pull)
    contrast = 0.5 * (pull * seen).sum() / seen.sum().clamp(min=1)
    picture = torch.arange(len(clean), device=features.device).repeat_interleave(scene.places.shape[1])
    neighbour = soft_nearest_neighbour(
        torch.cat([anchors, positives]), picture.repeat(2), negatives, temperature=temperature
    )
    return discrimination + contrast + neighbour


def _common_places(first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places that both views see: (N, K, 2) in each view, and (N * K,) 1 where both really do."""
    candidates = torch.rand(len(first), 4 * count, 2) * 1.7 - 0.85
    mirrored = to_view(second, to_picture(first, candidates))
    inside = (mirrored.abs().amax(2) < 0.9).float() + 1e-4 * torch.rand(mirrored.shape[:2])
    best = inside.topk(count, 1).indices[..., None].expand(-1, -1, 2)
    places, places_second = candidates.gather(1, best), mirrored.gather(1, best)
    return places, places_second, (places_second.abs().amax(2) < 0.95).flatten().float()


def _defect_places(features: Tensor, is_defect: Tensor) -> Tensor:
    """Features of defect cells (M, C), at most MAX_DEFECT_PLACES by chance."""
    picked = features.permute(0, 2, 3, 1)[is_defect]
    return picked[torch.randperm(len(picked))[:MAX_DEFECT_PLACES].to(picked.device)]


@torch.no_grad()
def settle_batch_norms(encoder: Encoder, pictures: Tensor, *, batches: int = 10, batch: int = 20) -> None:
    """Re-estimate batch norm statistics on clean, whole good pictures: that is what the station shows."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    encoder.train()
    for _ in range(batches):
        chosen = torch.randint(len(pictures), (batch,)).to(pictures.device)
        encoder(normalise(pictures[chosen].float() / 255))
    for norm in norms:
        norm.momentum = 0.1
    encoder.eval()
