"""Pictures to compare recipes on: folders of real parts, and drawn products."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kenpin.counted import counted
from kenpin.errors import DataError
from kenpin.folder_names import GOOD
from kenpin.pictures import Picture, read_data, split_groups
from kenpin.preprocess import to_input
from kenpin.synthetic import PRODUCTS, draw_part
from kenpin.train.data import HELD_BACK_SHARE, load_masks, load_pictures, shrink_mask
from kenpin.train.metrics import Bools, Floats, aupro, auroc
from kenpin.train.recipe import Recipe
from kenpin.train.training import Schedule

DRAWN_TRAIN, DRAWN_TEST = 160, 200
# Test pictures of each class are limited, or measuring would take longer than training.
MOST_OF_A_CLASS = 200
# Pictures per step.
BATCH = 24


@dataclass(frozen=True)
class BenchSet:
    """One product.

    Attributes:
        name: Name of the folder or of the drawn product.
        fit: Good pictures that train, BGR uint8 (N, 3, S, S).
        held_back: Good pictures of other parts (M, 3, S, S).
        test: Pictures of either class (T, 3, S, S).
        bad: Which of them are defective, (T,).
        masks: Defect masks at a quarter of the side, (T, S/4, S/4); none for a set without masks.
        groups: Physical part of each test picture, (T,).
        good_groups: Physical part of each picture of `fit` and then of `held_back`, (N + M,).
    """

    name: str
    fit: Tensor
    held_back: Tensor
    test: Tensor
    bad: Bools
    masks: Bools | None
    groups: tuple[str, ...]
    good_groups: tuple[str, ...]

    @property
    def fit_by_part(self) -> Tensor:
        """The pictures that train, those of one part side by side, as `kenpin train` gives them to the head."""
        return self.fit[sorted(range(len(self.fit)), key=self.good_groups.__getitem__)]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over pictures, labels, masks and groups: two sets with the same one may be compared."""
        found = hashlib.sha256(repr((self.good_groups, self.groups)).encode(errors="surrogateescape"))
        for images in (self.fit, self.held_back, self.test):
            found.update(images.cpu().numpy().tobytes())
        found.update(self.bad.tobytes() + (b"" if self.masks is None else self.masks.tobytes()))
        return found.hexdigest()

    def pixel_figures(self, maps: Floats) -> tuple[float, float, float]:
        """Pixel AUROC, and AUPRO up to 30 and 5 %, of maps (T, S/4, S/4); NaN for a set without masks."""
        if self.masks is None:
            return (float("nan"),) * 3
        # A defect without a mask would count every one of its pixels as good.
        known = ~self.bad | self.masks.any((1, 2))
        maps, masks = maps[known], self.masks[known]
        return auroc(maps, masks), aupro(maps, masks, limit=0.3), aupro(maps, masks, limit=0.05)

    def schedule(self, steps: int, *, seed: int, recipe: Recipe) -> Schedule:
        """As much compute as that of steps of `BATCH` pictures: with fewer in each there are more of them."""
        batch = min(BATCH, len(self.fit))
        return Schedule(steps * BATCH // batch, batch, seed, recipe)

    def on(self, device: torch.device) -> BenchSet:
        """The same set with its pictures in the memory of a device."""
        return replace(
            self, fit=self.fit.to(device), held_back=self.held_back.to(device), test=self.test.to(device)
        )

    def with_few(self, count: int, *, draw: int) -> BenchSet:
        """The same set with only `count` good pictures to learn from; a fifth of their parts is held back.

        Raises:
            DataError: All that are drawn show one part.
        """
        every = torch.cat([self.fit, self.held_back])
        order = random.Random(draw).sample(range(len(every)), min(count, len(every)))
        drawn = [Picture(Path(str(number)), GOOD, self.good_groups[number]) for number in order]
        sides = split_groups(drawn, HELD_BACK_SHARE, seed=draw)
        fit, kept = ([int(picture.path.name) for picture in side] for side in sides)
        if not kept:
            raise DataError(
                f"the {len(drawn)} pictures that were drawn show one part",
                where=self.name,
                cure="measure with more pictures, or on a set of more parts",
            )
        groups = tuple(self.good_groups[number] for number in (*fit, *kept))
        return replace(self, fit=every[fit], held_back=every[kept], good_groups=groups)


def read_set(name: str, *, side: int) -> BenchSet:
    """Read a folder of real parts, or draw a product.

    Args:
        name: Path of a folder, MVTec style, or the name of a drawn product.
        side: Side of the pictures.

    Raises:
        DataError: The folder cannot be used.
    """
    return _drawn(name, side) if name in PRODUCTS else _real(Path(name), side)


def good_pictures(name: str) -> int:
    """How many pictures of good parts a set has to learn from.

    Raises:
        DataError: The folder cannot be used.
    """
    return DRAWN_TRAIN if name in PRODUCTS else len(read_data(Path(name)).train)


def check_measurable(data: BenchSet, *, where: object) -> None:
    """Refuse a set on which nothing tells good from bad parts: all its figures would be no numbers.

    Raises:
        DataError: It has test pictures of one class alone.
    """
    if data.bad.all() or not data.bad.any():
        bad = int(data.bad.sum())
        raise DataError(
            f"the set has {len(data.bad) - bad} good and {bad} bad pictures to test",
            where=where,
            cure="give a folder that has test pictures of both: good/ beside folders of defects, or test/",
        )


def _real(folder: Path, side: int) -> BenchSet:
    data = read_data(folder)
    return set_of(folder.name, data.train, _some(data.test), side=side)


def set_of(name: str, train: Sequence[Picture], test: Sequence[Picture], *, side: int) -> BenchSet:
    """A set from picture files; a fifth of the good parts that train is held back.

    Raises:
        DataError: A picture or a mask cannot be read, or all good parts to learn from are one.
    """
    fit, held_back = split_groups(train, HELD_BACK_SHARE, seed=0)
    if not held_back:
        raise DataError(
            f"{counted(len(train), 'picture')} of good parts to learn from, all of one part",
            where=name,
            cure="give pictures of several good parts, better 100 or more",
        )
    masks = load_masks(test, shape=(side // 4, side // 4))
    return BenchSet(
        name,
        load_pictures(fit, side=side),
        load_pictures(held_back, side=side),
        load_pictures(test, side=side),
        np.array([p.label != GOOD for p in test]),
        masks if masks.any() else None,
        tuple(p.group for p in test),
        tuple(p.group for p in (*fit, *held_back)),
    )


def _some(pictures: tuple[Picture, ...]) -> list[Picture]:
    """Up to MOST_OF_A_CLASS good and as many bad ones, drawn by lot once and for all."""
    chosen: set[Path] = set()
    for good in (True, False):
        members = [p.path for p in pictures if (p.label == GOOD) == good]
        chosen |= set(random.Random(0).sample(members, min(MOST_OF_A_CLASS, len(members))))
    return [p for p in pictures if p.path in chosen]


def _drawn(product: str, side: int) -> BenchSet:
    good = [draw_part(product, seed=1, index=i, defect_share=0).image for i in range(DRAWN_TRAIN)]
    parts = [draw_part(product, seed=2, index=i, defect_share=0.5) for i in range(DRAWN_TEST)]
    held_back = round(HELD_BACK_SHARE * len(good))
    masks = [shrink_mask(np.dstack([p.mask] * 3), height=side // 4, width=side // 4) for p in parts]
    return BenchSet(
        product,
        _stack(good[held_back:], side),
        _stack(good[:held_back], side),
        _stack([p.image for p in parts], side),
        np.array([p.label != GOOD for p in parts]),
        np.stack(masks),
        tuple(str(i) for i in range(DRAWN_TEST)),
        tuple(str(i) for i in range(len(good))),
    )


def _stack(images: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]], side: int) -> Tensor:
    inputs = np.stack([to_input(image, height=side, width=side) for image in images])
    return torch.from_numpy(inputs).permute(0, 3, 1, 2).contiguous()
