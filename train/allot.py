"""Compute goes where it pays: the gain of each level in a short probe decides its share of the rest.

The gain is measured on validation defects (`validation.py`), which training never sees.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kenpin.train.data import evenly
from kenpin.train.fit import known_of, maps_of, raw_maps_of
from kenpin.train.head import MAPS, AnomalyHead, HeadShape, robust_maximum
from kenpin.train.metrics import Floats, auroc
from kenpin.train.model import Pretrained, settle_batch_norms
from kenpin.train.validation import draw_validation_defects

# No level falls below this share: coarse defects stay covered whatever the probe says.
FLOOR = 0.05
# A level that gains this much more AUROC than another gets e times its usual share against it. The
# gains are from few pictures: a smaller number would follow noise.
TRUST = 0.03
PICTURES = 32
BANK = 250
LEARNED = [1.0 if name.startswith("bank") else 0.5 if name.startswith("defect") else 0.0 for name in MAPS]


def allot(gains: Sequence[float], usual: Sequence[float]) -> tuple[float, ...]:
    """Shares of the remaining compute.

    usual_l * exp(gain_l / TRUST), scaled to sum 1, never below FLOOR: multiplicative weights (Arora, Hazan &
    Kale 2012) from the shares that did best on the development sets.

    Args:
        gains: AUROC gained by each level in its probe.
        usual: Shares that would be taken without a probe, sum 1.
    """
    best = max(gains)
    wanted = np.array([u * math.exp((g - best) / TRUST) for g, u in zip(gains, usual, strict=True)])
    shares = wanted / wanted.sum()
    for _ in shares:
        low = shares <= FLOOR
        shares[low] = FLOOR
        shares[~low] *= (1 - FLOOR * low.sum()) / shares[~low].sum()
    return tuple(float(share) for share in shares)


def because(gains: Mapping[str, float], shares: Mapping[str, float]) -> str:
    """One sentence for the report."""
    most = max(shares, key=lambda name: shares[name])
    told = ", ".join(f"{name} {100 * gain:+.1f}" for name, gain in gains.items())
    return (
        f"In a short probe the AUROC on drawn validation defects changed by, in points: {told}. "
        f"{most} gets most of the rest; no level gets less than {100 * FLOOR:.0f} %."
    )


class Gauge:
    """How well a half-trained model separates validation defects from held-back good pictures.

    Args:
        pictures: Good pictures of the training, BGR uint8 (N, 3, S, S).
        held_back: Good pictures of other parts, BGR uint8 (M, 3, S, S).
        seed: Decides the defects.
    """

    def __init__(self, pictures: Tensor, held_back: Tensor, *, seed: int) -> None:
        self.known, self.good = (some[evenly(len(some), PICTURES)] for some in (pictures, held_back))
        images = [np.ascontiguousarray(p) for p in self.good.permute(0, 2, 3, 1).cpu().numpy()]
        drawn = draw_validation_defects(images, per_picture=-(-2 * PICTURES // len(images)), seed=seed)
        bad = torch.from_numpy(np.stack(drawn[: 2 * PICTURES])).permute(0, 3, 1, 2)
        self.bad = bad.to(pictures.device)

    def multiply_adds(self, model: Pretrained) -> float:
        """What one measurement costs: the good pictures pass twice, the bad ones once, none backward."""
        passes = 2 * len(self.known) + 2 * len(self.good) + len(self.bad)
        return passes * model.encoder.multiply_adds(self.known.shape[-1]) / 3

    def __call__(self, model: Pretrained) -> float:
        """AUROC of what is learned alone; the model stays as it is."""
        scores = score_quickly(model, self.known, self.good, torch.cat([self.good, self.bad]))
        return auroc(scores, np.repeat([False, True], [len(self.good), len(self.bad)]))


@torch.no_grad()
def score_quickly(model: Pretrained, known: Tensor, good: Tensor, pictures: Tensor) -> Floats:
    """Scores by banks and discriminators alone, with small banks; the model stays as it is.

    Args:
        model: Trained, or half trained.
        known: Good pictures that fill the banks, BGR uint8 (N, 3, S, S).
        good: Good pictures of other parts that standardise the maps (M, 3, S, S).
        pictures: What is scored (K, 3, S, S).

    Returns:
        (K,)
    """
    model = copy.deepcopy(model)
    settle_batch_norms(model.encoder, known)
    model.eval()
    shape = HeadShape(known.shape[-1], model.encoder.channels, BANK)
    head = AnomalyHead(shape, model.discriminators).to(known.device)
    head.fill(*known_of(head, model, known))
    head.standardise(raw_maps_of(head, model, good).unbind(1))
    return score_learned(maps_of(head, model, pictures))


def score_learned(maps: Tensor) -> Floats:
    """Scores (N,) of standardised maps (N, 7, h, w) by what is learned alone."""
    weighted = maps * maps.new_tensor(LEARNED).view(1, -1, 1, 1)
    return robust_maximum(weighted.sum(1)).cpu().numpy()
