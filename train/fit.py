"""Fit the anomaly head: fill the banks, standardise the maps, weigh them.

Only good pictures are used. The banks are filled from the pictures the encoder was trained on; spread and
weights come from held-back good pictures and defects drawn on them. The maps that nothing is trained for learn
from all pictures, and their spread from all of them, too, by cross-fitting.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kenpin.train.encoder import normalise
from kenpin.train.head import (
    MAPS,
    UNIT_QUANTILE,
    UNTRAINED_MAPS,
    AnomalyHead,
    Grids,
    HeadShape,
    by_level,
    fuse,
    robust_maximum,
)
from kenpin.train.metrics import auroc
from kenpin.train.model import Pretrained
from kenpin.train.validation import draw_validation_defects

BATCH = 32
# Weights within this AUROC of the best are averaged: validation defects are few and not the real ones.
NEAR_BEST = 0.01
# Whatever the drawn defects say.
LIGHT_WEIGHT, GRAIN_WEIGHT = 1.0, 2.0
# The maps of mid count half: they find what those of fine find, and outline it coarsely.
MID = 0.5
# What the other maps weigh before drawn defects are asked, in the order of MAPS: the four of the encoder repeat
# each other.
USUAL_WEIGHTS = (LIGHT_WEIGHT, 1.0, MID * 0.5, MID * 0.25, 0.5, 0.25, GRAIN_WEIGHT)
# Parts into which known pictures are cut for cross-fitting; the held-back ones are as many as one of them.
FOLDS = 4
# The choice by drawn defects is believed by half, because real ones are others.
TRUST = 0.5


@torch.no_grad()
def fit_head(trained: Pretrained, pictures: Tensor, held_back: Tensor, *, seed: int) -> AnomalyHead:
    """Build the head for a trained encoder.

    Args:
        trained: Encoder and discriminators.
        pictures: The good pictures it was trained on, BGR uint8 (N, 3, S, S).
        held_back: Good pictures of other parts, BGR uint8 (M, 3, S, S).
        seed: Decides the validation defects.

    Returns:
        The head, in evaluation mode.
    """
    trained.eval()
    shape = HeadShape(pictures.shape[-1], trained.encoder.channels)
    head = AnomalyHead(shape, trained.discriminators).to(pictures.device).eval()
    known, held = known_of(head, trained, pictures), _grids(head, held_back)
    untrained = _cross_fitted(head, known[0], held, AnomalyHead.fill_untrained)
    head.fill(*known)
    head.standardise(_with_untrained(untrained, raw_maps_of(head, trained, held_back)))
    good, bad = maps_of(head, trained, held_back), _validation_maps(head, trained, held_back, seed)
    head.weight.copy_(choose_weights(good, bad).to(pictures.device))
    levels, fused = _units(head, good)
    head.level_scale.copy_(levels.reciprocal())
    head.fused_scale.copy_(fused.reciprocal())
    head.fill_untrained(_joined([known[0], held]))
    return head


@torch.no_grad()
def update_head(
    head: AnomalyHead, trained: Pretrained, pictures: Tensor, held_back: Tensor, *, seed: int
) -> AnomalyHead:
    """A head that also knows new good pictures of the same parts; nothing that it knew is needed again.

    The encoder has to be the one that the head was fitted to, unchanged: remembered places are features of
    it. Everything counts by its number of pictures.

    Args:
        head: What is known so far; it stays as it is.
        trained: Its encoder and discriminators.
        pictures: New good pictures, BGR uint8 (N, 3, S, S).
        held_back: New good pictures of other parts, BGR uint8 (M, 3, S, S).
        seed: Decides the validation defects.

    Returns:
        The new head, in evaluation mode.
    """
    trained.eval()
    head = copy.deepcopy(head).eval()
    known, held = known_of(head, trained, pictures), _grids(head, held_back)
    untrained = _cross_fitted(head, known[0], held, AnomalyHead.merge_untrained)
    head.merge(*known)
    head.restandardise(_with_untrained(untrained, raw_maps_of(head, trained, held_back)))
    share = len(held_back) / float(head.count[MAPS.index("bank8")])
    good, bad = maps_of(head, trained, held_back), _validation_maps(head, trained, held_back, seed)
    head.weight.lerp_(choose_weights(good, bad).to(pictures.device), share)
    levels, fused = _units(head, good)
    head.level_scale.copy_(torch.lerp(head.level_scale.reciprocal(), levels, share).reciprocal())
    head.fused_scale.copy_(torch.lerp(head.fused_scale.reciprocal(), fused, share).reciprocal())
    head.merge_untrained(held)
    return head


@torch.no_grad()
def doubt(
    head: AnomalyHead, pictures: Tensor, held_back: Tensor, *, beside: bool = False
) -> tuple[Tensor, Tensor]:
    """How unlike all others each good picture is that a head was fitted to.

    By the maps that nothing is trained for, each by what the others teach: a defect that was learned as good is
    still unlike them. The memory banks have part of it, and with them it is found less often.

    Args:
        head: The fitted head; it stays as it is.
        pictures: The good pictures that it was fitted to, BGR uint8 (N, 3, S, S), those of a part side by side.
        held_back: The good pictures that were held back, BGR uint8 (M, 3, S, S).
        beside: Whether all these come beside those that it was fitted to, which then teach, too.

    Returns:
        Scores (N + M,) and maps (N + M, h, w).
    """
    grids = _joined([_grids(head, pictures), _grids(head, held_back)])
    none = Grids(*(grid[:0] for grid in grids))
    fused = torch.zeros_like(grids.energies[:, 0])
    learn = AnomalyHead.merge_untrained if beside else AnomalyHead.fill_untrained
    found = _cross_fitted(head, grids, none, learn)
    for name, raw in zip(UNTRAINED_MAPS, found, strict=True):
        number = MAPS.index(name)
        fused += (raw[:, 0] - head.offset[number]) * head.scale[number] * head.weight[number]
    fused *= head.fused_scale
    return robust_maximum(fused), fused


def choose_weights(good: Tensor, bad: Tensor) -> Tensor:
    """Weights of the maps: half of the way from the usual ones to those that separate drawn defects best.

    Combinations are tried; those near the best are averaged. Three rules hold whatever the drawn defects
    say, because those resemble the defects of training more than real ones do: every level keeps its bank or
    its pattern, a discriminator weighs half at most, and light and grain always count, because nothing that a
    brightness meter would catch may escape, nor a scratch.

    Args:
        good: Standardised maps of good pictures (N, 7, h, w).
        bad: Standardised maps of pictures with drawn defects (M, 7, h, w).

    Returns:
        (7,)
    """
    maps = torch.cat([good, bad])
    is_bad = np.arange(len(maps)) >= len(good)
    tried: list[tuple[float, tuple[float, ...]]] = []
    some, any_half = (0.5, 1.0), (0.0, 0.5)
    for pattern, bank16, bank8, defect16, defect8 in itertools.product(some, some, some, any_half, any_half):
        weight = (LIGHT_WEIGHT, pattern, MID * bank16, MID * defect16, bank8, defect8, GRAIN_WEIGHT)
        fused = fuse(by_level(maps * maps.new_tensor(weight).view(1, -1, 1, 1)))
        tried.append((auroc(robust_maximum(fused).cpu().numpy(), is_bad), weight))
    best = max(figure for figure, _ in tried)
    chosen = torch.tensor([w for figure, w in tried if figure >= best - NEAR_BEST]).mean(0)
    return torch.lerp(torch.tensor(USUAL_WEIGHTS), chosen, TRUST)


def _cross_fitted(
    head: AnomalyHead, grids: Grids, held: Grids, learn: Callable[[AnomalyHead, Grids], None]
) -> list[Tensor]:
    """The maps (N, 1, h, w) that nothing is trained for, of each picture by what the others teach.

    Neighbours are left out together, as several pictures of one part have to be neighbours.

    Args:
        head: Whose maps learn; it stays as it is.
        grids: Of the pictures.
        held: Of held-back pictures, which help each time.
        learn: `AnomalyHead.fill_untrained`, or `merge_untrained` to keep what the head knows.
    """
    folds = [Grids(*fold) for fold in zip(*(g.tensor_split(min(FOLDS, len(g))) for g in grids), strict=True)]
    found = []
    for k, fold in enumerate(folds):
        without_fold = copy.deepcopy(head)
        learn(without_fold, _joined([*folds[:k], *folds[k + 1 :], held]))
        found.append(without_fold.untrained_maps(fold))
    return [torch.cat(maps) for maps in zip(*found, strict=True)]


def _with_untrained(untrained: list[Tensor], held_back: Tensor) -> list[Tensor]:
    """Each raw map of held-back pictures (M, 7, h, w), of those that nothing is trained for also of others."""
    raw = list(held_back.unbind(1))
    for name, maps in zip(UNTRAINED_MAPS, untrained, strict=True):
        raw[MAPS.index(name)] = torch.cat([maps[:, 0], raw[MAPS.index(name)]])
    return raw


def _joined(grids: Sequence[Grids]) -> Grids:
    return Grids(*(torch.cat(pictures) for pictures in zip(*grids, strict=True)))


@torch.no_grad()
def known_of(head: AnomalyHead, trained: Pretrained, pictures: Tensor) -> tuple[Grids, Tensor, Tensor]:
    """What the head is filled from: grids, and features at strides 8 and 16, of pictures (N, 3, S, S)."""
    # Without the tap at stride 4, which is the largest and not remembered.
    seen = [(head.grids(images), taps[1], taps[2]) for images, taps in _seen(trained, pictures)]
    grids, stride8, stride16 = zip(*seen, strict=True)
    return _joined(grids), torch.cat(stride8), torch.cat(stride16)


@torch.no_grad()
def raw_maps_of(head: AnomalyHead, trained: Pretrained, pictures: Tensor) -> Tensor:
    """Raw maps (N, 7, S/4, S/4) of pictures, BGR uint8 (N, 3, S, S)."""
    return torch.cat([head.raw_maps(images, taps) for images, taps in _seen(trained, pictures)])


@torch.no_grad()
def maps_of(head: AnomalyHead, trained: Pretrained, pictures: Tensor) -> Tensor:
    """Standardised maps (N, 7, S/4, S/4) of pictures, BGR uint8 (N, 3, S, S)."""
    return torch.cat([head.maps(images, taps) for images, taps in _seen(trained, pictures)])


def _seen(trained: Pretrained, pictures: Tensor) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]:
    """Pictures BGR 0..1 and their features, a batch at a time."""
    for batch in torch.split(pictures, BATCH):
        images = batch.float() / 255
        yield images, trained.encoder(normalise(images))


def _grids(head: AnomalyHead, pictures: Tensor) -> Grids:
    """The grids of pictures, BGR uint8 (N, 3, S, S)."""
    return _joined([head.grids(batch.float() / 255) for batch in torch.split(pictures, BATCH)])


def _units(head: AnomalyHead, good: Tensor) -> tuple[Tensor, Tensor]:
    """What one good part in ten exceeds: of each level (3,) and of the fused map ()."""
    levels = by_level(good * head.weight.view(1, -1, 1, 1))
    fused = robust_maximum(fuse(levels)).quantile(UNIT_QUANTILE)
    return robust_maximum(levels).quantile(UNIT_QUANTILE, 0).clamp(min=1e-3), fused.clamp(min=1e-3)


def _validation_maps(head: AnomalyHead, trained: Pretrained, held_back: Tensor, seed: int) -> Tensor:
    images = [np.ascontiguousarray(p) for p in held_back.permute(0, 2, 3, 1).cpu().numpy()]
    per_picture = max(1, min(4, 160 // len(images)))
    drawn = np.stack(draw_validation_defects(images, per_picture=per_picture, seed=seed))
    return maps_of(head, trained, torch.from_numpy(drawn).permute(0, 3, 1, 2).to(held_back.device))
