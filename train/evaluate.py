"""Measure a finished run on pictures with known labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from kenpin.errors import TrainError, printable
from kenpin.folder_names import GOOD
from kenpin.pictures import Picture
from kenpin.train.bounds import LEAST_PARTS, auroc_interval, parts_of, rate_interval
from kenpin.train.data import load_masks, read_image
from kenpin.train.inspector import Inspector
from kenpin.train.metrics import Bools, Floats, Interval, aupro, auroc, escapes_at, false_calls_at
from kenpin.train.pixels import pixel_intervals

BATCH = 16


@dataclass(frozen=True)
class Scores:
    """What a model says about pictures.

    Attributes:
        pictures: The N pictures.
        score: (N,)
        levels: (N, 3) coarse, mid, fine.
        maps: (N, h, w)
        ms_per_picture: Time of the model alone, in the fastest batch, on this machine.
    """

    pictures: tuple[Picture, ...]
    score: Floats
    levels: Floats
    maps: Floats
    ms_per_picture: float

    @property
    def groups(self) -> list[str]:
        """The physical part of each picture, (N,)."""
        return [p.group for p in self.pictures]

    @property
    def bad(self) -> Bools:
        """(N,) true where the label is not good."""
        return np.array([p.label != GOOD for p in self.pictures], np.bool_)


@torch.no_grad()
def score_pictures(
    inspector: Inspector,
    pictures: Sequence[Picture],
    *,
    side: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Score pictures in batches.

    Args:
        inspector: The model, in evaluation mode.
        pictures: At least one.
        side: Side of the model's input.
        advance: Called with the number of pictures done.

    Raises:
        TrainError: The model gives numbers that are not finite: sorted, they would pass for perfect ones.
    """
    shape = pictures[0].strips.shape(side)
    outputs: list[list[torch.Tensor]] = []
    seconds: list[float] = []
    for first in range(0, len(pictures), BATCH):
        images = [read_image(picture, shape=shape) for picture in pictures[first : first + BATCH]]
        batch = torch.from_numpy(np.stack(images))
        if first == 0:
            inspector(batch)  # sets up what all later calls use
        started = time.perf_counter()
        outputs.append(list(inspector(batch)))
        seconds.append((time.perf_counter() - started) / len(batch))
        advance(len(batch))
    score, levels, maps = (torch.cat(parts).numpy() for parts in zip(*outputs, strict=True))
    is_finite = np.isfinite(score) & np.isfinite(levels).all(1) & np.isfinite(maps).all((1, 2))
    if not is_finite.all():
        raise TrainError(
            "the model gives numbers that are not finite",
            where=pictures[int(is_finite.argmin())].path,
            cure="train again with another --seed, and do not use this model",
        )
    return Scores(tuple(pictures), score, levels, maps, min(seconds) * 1000)


def measure(scores: Scores, *, no_decision: Iterable[str] = ()) -> dict[str, Any]:
    """The figures of a report; what cannot be known from these pictures is missing, not zero.

    Args:
        scores: Of pictures with known labels.
        no_decision: Labels of the pictures that have no score, as the view does not find their part.

    Returns:
        `pictures`, `good`, `bad` of the scored ones, `ms_per_image`; where there are such, `no_decision_good`
        and `no_decision_bad`, which are in no other figure; with both classes `image_auroc`,
        `escapes_at_10_per_1000`, `false_calls_at_95`, `false_calls_at_99` (each value, low, high) and
        `auroc_of` each defect and level; with masks `pixel_auroc`, `aupro_30`, `aupro_05` as plain numbers
        and each again with its interval, `pixel_auroc_interval` and so on. The ends of an interval are None
        where there are too few parts to tell.
    """
    bad = scores.bad
    figures: dict[str, Any] = {
        "pictures": len(bad),
        "good": int((~bad).sum()),
        "bad": int(bad.sum()),
        "ms_per_image": round(scores.ms_per_picture, 2),
    }
    if labels := list(no_decision):
        good = labels.count(GOOD)
        figures |= {"no_decision_good": good, "no_decision_bad": len(labels) - good}
    if bad.any() and not bad.all():
        figures["image_auroc"] = _as_dict(auroc_interval(scores.score, bad, groups=scores.groups))
        for name, figure, counted in (
            ("escapes_at_10_per_1000", escapes_at, bad),
            ("false_calls_at_95", partial(false_calls_at, caught=0.95), ~bad),
            ("false_calls_at_99", partial(false_calls_at, caught=0.99), ~bad),
        ):
            interval = rate_interval(figure, scores.score, bad, groups=scores.groups, counted=counted)
            figures[name] = _as_dict(interval)
        figures["auroc_of"] = _parts(scores)
        figures |= _pixel_figures(scores)
    return figures


def _as_dict(interval: Interval) -> dict[str, float | None]:
    """As JSON has it, which knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(interval).items()}


def _parts(scores: Scores) -> dict[str, float]:
    """AUROC of each kind of defect against the good ones, and of each level alone."""
    bad = scores.bad
    labels = np.array([p.label for p in scores.pictures])
    parts = {}
    for label in sorted(set(labels[bad])):
        chosen = ~bad | (labels == label)
        parts[printable(str(label))] = auroc(scores.score[chosen], bad[chosen])
    for number, name in enumerate(("coarse", "mid", "fine")):
        parts[f"level {name}"] = auroc(scores.levels[:, number], bad)
    return parts


def _pixel_figures(scores: Scores) -> dict[str, Any]:
    height, width = scores.maps.shape[1:]
    masks = load_masks(scores.pictures, shape=(height, width))
    # A defect without a mask would count every one of its pixels as good.
    known = ~scores.bad | masks.any((1, 2))
    if not masks.any():
        return {}
    maps, masks = scores.maps[known], masks[known]
    every = {
        "pixel_auroc": auroc(maps, masks),
        "aupro_30": aupro(maps, masks, limit=0.3),
        "aupro_05": aupro(maps, masks, limit=0.05),
    }
    figures: dict[str, Any] = {name: value for name, value in every.items() if math.isfinite(value)}
    groups = [group for group, counted in zip(scores.groups, known, strict=True) if counted]
    if figures:
        few = parts_of(groups, np.asarray(masks.any((1, 2)))) < LEAST_PARTS
        for name, ends in pixel_intervals(maps, masks, groups=groups).items():
            low, high = (math.nan, math.nan) if few else ends
            figures[f"{name}_interval"] = _as_dict(Interval(figures[name], low, high))
    return figures
