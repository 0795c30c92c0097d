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
        views = task.scene.views.contiguous(memory_format=torch.channels_last)
        taps = self.model.encoder(views)[1:]
        if task.level.negatives == "pictures":
            return self._among_pictures(task.level, taps[1])
        losses, hard = zip(*(self._at_tap(n, features, task) for n, features in enumerate(taps)), strict=True)
        return torch.stack(losses).sum(), torch.stack(hard).sum(0)

    def _among_pictures(self, level: Level, features: Tensor) -> tuple[Tensor, Tensor]:
        """SimCLR: two views of a picture are alike, other pictures are not."""
        own = self.model.projections[1](features.mean((2, 3))).float().chunk(3)
        first, second = (functional.normalize(gather(view)) for view in own[:2])
        loss = nt_xent(first, second, temperature=level.temperatures[1])
        return loss.mean(), own[0].new_zeros(len(own[0]))

    def _at_tap(self, tap: int, features: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """Weighted sum of the three losses at one tap, and how hard each picture was, (N,)."""
        level, scene = task.level, task.scene
        for_contrast, for_neighbour, for_discrimination = level.losses
        clean, other, changed = features.chunk(3)
        loss, is_defect = self._discriminate(tap, clean, changed, scene.mask)
        loss, not_hard = for_discrimination * loss, task.importance.new_zeros(len(clean))
        if for_contrast == for_neighbour == 0:
            return loss, not_hard
        good = [sample(clean, scene.places), sample(other, scene.places_second)]
        defects = _defect_places(changed, is_defect)
        embedded = self.model.projections[tap](torch.cat([*good, defects])).float()
        both, own = torch.split(functional.normalize(embedded), [2 * len(good[0]), len(defects)])
        negatives = gather(own)
        if len(negatives) == 0:
            return loss, not_hard
        pull = _pull_together(both, negatives, level.temperatures[tap]).view_as(scene.seen)
        near = _pull_to_like(both, negatives, level.temperatures[tap], pictures=len(clean))
        contrast = joined_mean(pull * task.importance[:, None], scene.seen)
        loss = loss + for_contrast * contrast + for_neighbour * joined_mean(near, torch.ones_like(near))
        if level.spread:
            loss = loss + level.spread * spread_loss(gather(embedded[: len(both)]))
        return loss, (pull.detach() * scene.seen).sum(1) / scene.seen.sum(1).clamp(min=1)

    def _discriminate(self, tap: int, clean: Tensor, changed: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the defect map of good and changed views; and which cells of these are defect, (N, h, w)."""
        logits = self.model.discriminators[tap](torch.cat([clean, changed]))[:, 0].float()
        share = functional.adaptive_avg_pool2d(mask, changed.shape[-1])[:, 0]
        share = suspect(share, logits[len(clean) :].detach())
        shares = torch.cat([torch.zeros_like(share), share])
        loss = defect_discrimination(logits, shares, threshold=DEFECT_SHARE[tap])
        return loss, share > DEFECT_SHARE[tap]


def _pull_together(both: Tensor, defects: Tensor, temperature: float) -> Tensor:
    """Contrast of places in two views (2 * N * K, D), the mean of both directions: (N * K,)."""
    first, second = both.chunk(2)
    there = defect_contrast(first, second, defects, temperature=temperature)
    return 0.5 * (there + defect_contrast(second, first, defects, temperature=temperature))


def _pull_to_like(both: Tensor, defects: Tensor, temperature: float, *, pictures: int) -> Tensor:
    """Soft nearest neighbours of places in two views (2 * N * K, D) among other pictures: (2 * N * K,)."""
    # Different on every rank.
    numbers = torch.arange(pictures, device=both.device) * world() + rank()
    picture = numbers.repeat_interleave(len(both) // (2 * pictures)).repeat(2)
    is_other = picture[:, None] != gather(picture)
    return soft_nearest_neighbour(both, gather(both), is_other, defects, temperature=temperature)


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


def _defect_places(features: Tensor, is_defect: Tensor) -> Tensor:
    """Features of defect cells (M, C), at most MAX_DEFECT_PLACES by chance."""
    picked = features.permute(0, 2, 3, 1)[is_defect]
    return picked[torch.randperm(len(picked))[:MAX_DEFECT_PLACES].to(picked.device)]
