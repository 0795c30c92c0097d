"""Validation defects: drawn on held-back good pictures to weigh the maps of the head.

They come from other shapes than the defects that training pushes away (`defects.py`): strokes, pits, stains,
dents, streaks, gaps and slips. No real defect and no test picture is used for any choice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from kenpin.frame import Image
from kenpin.strips import OVERLAP, Strips
from kenpin.train.fold import fold, unfold

Canvas = NDArray[np.float32]
Rng = np.random.Generator


def draw_validation_defects(pictures: list[Image], *, per_picture: int, seed: int) -> list[Image]:
    """Draw one defect into copies of each picture.

    Args:
        pictures: BGR uint8 (H, W, 3), square or such as `Strips` has them.
        per_picture: Number of copies of each.
        seed: Decides all draws.
    """
    rng = np.random.default_rng(seed)
    kinds: tuple[Callable[[Rng, Canvas], Canvas], ...] = (_stroke, _pit, _stain, _dent, _streak, _gap, _slip)
    drawn = []
    for number, picture in enumerate(p for p in pictures for _ in range(per_picture)):
        changed = _on_square(picture, partial(kinds[number % len(kinds)], rng))
        drawn.append(np.clip(changed, 0, 255).astype(np.uint8))
    return drawn


def _on_square(picture: Image, draw: Callable[[Canvas], Canvas]) -> Canvas:
    """A picture (H, W, 3) with what is drawn on the square of its strips."""
    if picture.shape[0] == picture.shape[1]:
        return draw(picture.astype(np.float32))
    whole = torch.from_numpy(picture).permute(2, 0, 1).float()
    square = fold(whole).permute(1, 2, 0).numpy()
    change = torch.from_numpy(draw(square) - square).permute(2, 0, 1)
    strips = Strips.of_shape(*picture.shape[:2])
    # Where strips overlap, only one of them was drawn on.
    brighter, darker = (unfold(part.relu(), strips, overlap=OVERLAP) for part in (change, -change))
    return np.asarray((whole + brighter - darker).permute(1, 2, 0))


def _stroke(rng: Rng, canvas: Canvas) -> Canvas:
    """A thin wandering line, lighter or darker."""
    side = len(canvas)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.06, rng.integers(side // 8, side // 2)))
    steps = np.stack([np.cos(heading), np.sin(heading)], 1).cumsum(0) + rng.uniform(0.15, 0.85, 2) * side
    mask = np.zeros(canvas.shape[:2], np.float32)
    points = np.round(steps * 16).astype(np.int32)
    cv2.polylines(mask, [points], False, (1.0,), int(rng.integers(1, 3)), cv2.LINE_AA, 4)
    return _shade(canvas, mask, rng.choice([-1, 1]) * rng.uniform(25, 70))


def _pit(rng: Rng, canvas: Canvas) -> Canvas:
    """A small dark spot."""
    return _shade(canvas, _polygon(rng, len(canvas), 0.012, 0.03), -rng.uniform(60, 140))


def _stain(rng: Rng, canvas: Canvas) -> Canvas:
    """A translucent patch of one tone."""
    mask = _polygon(rng, len(canvas), 0.03, 0.09)[..., None] * np.float32(rng.uniform(0.25, 0.6))
    tone = np.float32(rng.uniform(20, 220))
    return np.asarray(canvas * (1 - mask) + tone * mask, np.float32)


def _dent(rng: Rng, canvas: Canvas) -> Canvas:
    """Local bulge with a shadow."""
    side = len(canvas)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    cx, cy = rng.uniform(0.15, 0.85, 2) * side
    radius = rng.uniform(0.04, 0.1) * side
    bump = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2).astype(np.float32)
    pull = bump * np.float32(rng.choice([-1, 1]) * rng.uniform(0.3, 0.6))
    map_x, map_y = (x + pull * (x - cx)).astype(np.float32), (y + pull * (y - cy)).astype(np.float32)
    moved = cv2.remap(canvas, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    shadow = bump * (x - cx) / radius * np.float32(rng.uniform(15, 45))
    return np.asarray(moved + shadow[..., None], np.float32)


def _streak(rng: Rng, canvas: Canvas) -> Canvas:
    """A straight smeared band across part of the picture."""
    side = len(canvas)
    mask = np.zeros((side, side), np.float32)
    row, first = int(rng.integers(side)), int(rng.integers(side // 2))
    mask[row : row + max(2, side // 50), first : first + int(rng.integers(side // 5, side // 2))] = 1
    if rng.random() < 0.5:
        mask = np.ascontiguousarray(mask.T)
    soft = cv2.GaussianBlur(canvas, (0, 0), side / 40) * np.float32(rng.choice([0.8, 1.2]))
    blend = cv2.GaussianBlur(mask, (0, 0), 1.0)[..., None]
    return np.asarray(canvas * (1 - blend) + soft * blend, np.float32)


def _gap(rng: Rng, canvas: Canvas) -> Canvas:
    """A block is missing: only its surroundings' mean tone is left."""
    rows, columns = _block(rng, len(canvas), 0.08, 0.25)
    gone: Canvas = np.array(canvas)
    gone[rows, columns] = 0.7 * canvas[rows, columns].mean((0, 1)) + 0.3 * canvas.mean((0, 1))
    return gone


def _slip(rng: Rng, canvas: Canvas) -> Canvas:
    """A block has moved by a few pixels."""
    rows, columns = _block(rng, len(canvas), 0.1, 0.3)
    moved: Canvas = np.array(canvas)
    shift = max(3, len(canvas) // 25)
    moved[rows, columns] = np.roll(canvas, (shift, -shift), (0, 1))[rows, columns]
    return moved


def _block(rng: Rng, side: int, smallest: float, largest: float) -> tuple[slice, slice]:
    height, width = (int(side * v) for v in rng.uniform(smallest, largest, 2))
    top, left = int(rng.integers(side - height)), int(rng.integers(side - width))
    return slice(top, top + height), slice(left, left + width)


def _polygon(rng: Rng, side: int, smallest: float, largest: float) -> Canvas:
    """A soft, irregular closed shape; radius relative to the picture."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = np.convolve(np.tile(rng.standard_normal(24), 3), np.ones(5) / 5, "same")[24:48]
    radius = rng.uniform(smallest, largest) * side * (1 + 0.45 * wobble)
    centre = rng.uniform(0.15, 0.85, 2) * side
    outline = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1) + centre
    mask = np.zeros((side, side), np.float32)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], (1.0,), cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.8), np.float32)


def _shade(canvas: Canvas, mask: Canvas, amount: float) -> Canvas:
    return np.asarray(canvas + mask[..., None] * np.float32(amount), np.float32)
