"""The objective of one level on one batch: views through the encoder, then the losses at both taps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kenpin.train.levels import Level
from kenpin.train.losses import (
    defect_contrast,
    defect_discrimination,
    nt_xent,
    soft_nearest_neighbour,
    spread_loss,
)
from kenpin.train.model import Pretrained
from kenpin.train.ranks import gather, joined_mean, rank, world
from kenpin.train.scene import Scene
from kenpin.train.views import sample

# Cells of stride 8 and 16 count as defect when more than this share of them changed.
DEFECT_SHARE = (0.12, 0.05)
MAX_DEFECT_PLACES = 256
# Of a bad picture without a mask, this share of the places counts as defect.
SUSPECTED_SHARE = 0.02


class Task:
    """What one forward pass is about, as one object.

    Not a dataclass on purpose: in mixed precision Fabric opens those to cast what they hold, and refuses frozen
    ones.

    Args:
        level: Its negatives, temperatures and weights.
        scene: What the level sees.
        importance: Weight of each picture, mean 1 over many batches, (N,).
    """

    def __init__(self, level: Level, scene: Scene, importance: Tensor) -> None:
        self.level = level
        self.scene = scene
        self.importance = importance


class Objective(nn.Module):
    """Loss of a level as a module, so that one forward pass is all that devices and processes share.

    Args:
        model: Encoder, projections and discriminators.
    """

    def __init__(self, model: Pretrained) -> None:
        super().__init__()
        self.model = model

    def forward(self, task: Task) -> tuple[Tensor, Tensor]:
        """Loss of a scene.

        Returns:
            Scalar loss, the sum over the taps at strides 8 and 16; and how hard each picture was, (N,).
        """
        level, scene, importance = task.level, task.scene, task.importance
        views = scene.views.contiguous(memory_format=torch.channels_last)
        taps = self.model.encoder(views)[1:]
        if level.negatives == "pictures":
            return self._among_pictures(level, taps[1])
        losses, hard = zip(
            *(self._at_tap(tap, features, level, scene, importance) for tap, features in enumerate(taps)),
            strict=True,
        )
        return torch.stack(losses).sum(), torch.stack(hard).sum(0)

    def _among_pictures(self, level: Level, features: Tensor) -> tuple[Tensor, Tensor]:
        """SimCLR: two views of a picture are alike, other pictures are not."""
        own = self.model.projections[1](features.mean((2, 3))).float().chunk(3)
        first, second = (functional.normalize(gather(view)) for view in own[:2])
        loss = nt_xent(first, second, temperature=level.temperatures[1])
        return loss.mean(), own[0].new_zeros(len(own[0]))

    def _at_tap(
        self, tap: int, features: Tensor, level: Level, scene: Scene, importance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum of the losses at one tap, and how hard each picture was, (N,)."""
        clean, other, changed = features.chunk(3)
        for_contrast, for_neighbour, for_discrimination = level.losses
        share = functional.adaptive_avg_pool2d(scene.mask, features.shape[-1])[:, 0]
        logits = self.model.discriminators[tap](torch.cat([clean, changed]))[:, 0].float()
        share = suspect(share, logits[len(clean) :].detach())
        shares = torch.cat([torch.zeros_like(share), share])
        loss = for_discrimination * defect_discrimination(logits, shares, threshold=DEFECT_SHARE[tap])
        if for_contrast == for_neighbour == 0:
            return loss, importance.new_zeros(len(clean))
        good = [sample(clean, scene.places), sample(other, scene.places_second)]
        defects = _defect_places(changed, share > DEFECT_SHARE[tap])
        embedded = self.model.projections[tap](torch.cat([*good, defects])).float()
        unit = functional.normalize(embedded)
        anchors, positives, own = torch.split(unit, [len(good[0]), len(good[1]), len(defects)])
        negatives = gather(own)
        if len(negatives) == 0:
            return loss, importance.new_zeros(len(clean))
        temperature = level.temperatures[tap]
        pull = defect_contrast(anchors, positives, negatives, temperature=temperature)
        pull = 0.5 * (pull + defect_contrast(positives, anchors, negatives, temperature=temperature))
        pull = pull.view_as(scene.seen)
        loss = loss + for_contrast * joined_mean(pull * importance[:, None], scene.seen)
        both = unit[: 2 * len(anchors)]
        picture = _picture_numbers(len(clean), scene.seen.shape[1], both.device)
        known, of_known = gather(both), gather(picture)
        near = soft_nearest_neighbour(
            both, known, picture[:, None] != of_known, negatives, temperature=temperature
        )
        loss = loss + for_neighbour * joined_mean(near, torch.ones_like(near))
        if level.spread:
            loss = loss + level.spread * spread_loss(gather(embedded[: len(both)]))
        hard = (pull.detach() * scene.seen).sum(1) / scene.seen.sum(1).clamp(min=1)
        return loss, hard


def suspect(share: Tensor, logits: Tensor) -> Tensor:
    """Where only "somewhere in this view" is known, the places rated highest count as defect.

    Multiple-instance learning (Dietterich et al. 1997): a bad part has at least one bad
    place, and the discriminator says which one is the most likely.

    Args:
        share: Share of each cell that is defect, NaN where that is not known, (N, h, w).
        logits: Of the discriminator, (N, h, w).

    Returns:
        `share` with 1 at those places; where still nothing is known it stays NaN, neither good nor defect.
    """
    unknown = share.isnan()
    count = max(1, round(SUSPECTED_SHARE * share[0].numel()))
    rated = logits.masked_fill(~unknown, -torch.inf).flatten(1)
    highest = torch.zeros_like(rated, dtype=torch.bool).scatter(1, rated.topk(count, 1).indices, True)
    return share.masked_fill(highest.view_as(share) & unknown, 1.0)


def _picture_numbers(pictures: int, places: int, device: torch.device) -> Tensor:
    """Picture of each place of the first and of the second view, (2 * N * K,), different on every rank."""
    numbers = torch.arange(pictures, device=device) * world() + rank()
    return numbers.repeat_interleave(places).repeat(2)


def _defect_places(features: Tensor, is_defect: Tensor) -> Tensor:
    """Features of defect cells (M, C), at most MAX_DEFECT_PLACES by chance."""
    picked = features.permute(0, 2, 3, 1)[is_defect]
    return picked[torch.randperm(len(picked))[:MAX_DEFECT_PLACES].to(picked.device)]
