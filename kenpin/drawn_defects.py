"""Drawn defects of a surface: scratch, hole, stain, dent, streak.

Each function takes a canvas (BGR float32 (SIZE, SIZE, 3)) and the spot (x, y) in pixels where the defect is,
and gives the damaged canvas and the share of each pixel that is damaged, float32 (SIZE, SIZE), 0 to 1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from kenpin.drawn_products import SIZE, Canvas, blurred, cloud

Spot = tuple[float, float]


def scratch(rng: np.random.Generator, image: Canvas, spot: Spot) -> tuple[Canvas, Canvas]:
    """A thin, slightly bent line, brighter or darker than the surface."""
    length, steps = rng.uniform(40, 110), 32
    bend = np.cumsum(rng.normal(rng.normal(0, 0.02), 0.02, steps))
    angle = rng.uniform(0, 2 * math.pi) + bend
    path = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), 0) * (length / steps)
    path += np.array(spot) - path.mean(0)
    where = np.zeros((SIZE, SIZE), np.uint8)
    points = np.round(path * 16).astype(np.int32)
    cv2.polylines(where, [points], False, (255,), 2, cv2.LINE_AA, 4)
    share = blurred(np.asarray(where / 255, np.float32), 0.5)
    contrast = rng.choice([-1, 1]) * rng.uniform(0.22, 0.36)
    return np.asarray(image + (share * contrast)[..., None], np.float32), share


def hole(rng: np.random.Generator, image: Canvas, spot: Spot) -> tuple[Canvas, Canvas]:
    """A small dark opening with a ragged edge."""
    share = _blob(rng, spot, radius=rng.uniform(4, 8))
    depth = rng.uniform(0.65, 0.9)
    return np.asarray(image * (1 - share[..., None] * depth), np.float32), share


def stain(rng: np.random.Generator, image: Canvas, spot: Spot) -> tuple[Canvas, Canvas]:
    """A dirty patch through which the surface still shows, clearly darker or of another colour."""
    share = _blob(rng, spot, radius=rng.uniform(9, 18))
    dirt = np.array([[0.10, 0.16, 0.22], [0.30, 0.18, 0.10], [0.12, 0.30, 0.42]], np.float32)[rng.integers(3)]
    cover = share[..., None] * np.float32(rng.uniform(0.55, 0.75))
    patchy = dirt * (1 + 0.25 * cloud(rng, 20)[..., None])
    return np.asarray(image * (1 - cover) + cover * patchy, np.float32), share


def dent(rng: np.random.Generator, image: Canvas, spot: Spot) -> tuple[Canvas, Canvas]:
    """The surface is pushed in: its texture is distorted, one flank is lit and the other in shade."""
    radius = rng.uniform(13, 22)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    dx, dy = x - np.float32(spot[0]), y - np.float32(spot[1])
    distance = (dx**2 + dy**2) / np.float32(radius**2)
    pull = np.exp(-1.5 * distance) * np.float32(rng.choice([-1, 1]) * rng.uniform(0.35, 0.6))
    bent = cv2.remap(image, x + pull * dx, y + pull * dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    flanks = np.exp(-2 * distance) * (dx / np.float32(radius)) * np.float32(rng.uniform(0.4, 0.55))
    share = (distance < 1.2).astype(np.float32)
    return np.asarray(bent + flanks[..., None], np.float32), share


def streak(rng: np.random.Generator, image: Canvas, spot: Spot) -> tuple[Canvas, Canvas]:
    """A missing thread or a smeared band along one of the axes."""
    length, width = rng.uniform(60, 150), rng.uniform(5, 8)
    half = (length / 2, width / 2) if rng.random() < 0.5 else (width / 2, length / 2)
    band = np.zeros((SIZE, SIZE), np.float32)
    first = tuple(round(s - h) for s, h in zip(spot, half, strict=True))
    last = tuple(round(s + h) for s, h in zip(spot, half, strict=True))
    cv2.rectangle(band, first, last, (1.0,), -1)
    share = blurred(band, 0.8)
    tone = rng.choice([-1, 1]) * rng.uniform(0.3, 0.42)
    smeared = blurred(image, 6) * np.float32(1 + tone)
    return np.asarray(image * (1 - share[..., None]) + share[..., None] * smeared, np.float32), share


def _blob(rng: np.random.Generator, spot: Spot, *, radius: float) -> Canvas:
    """An irregular patch of about `radius` pixels with soft edges."""
    corners = 24
    bumps = rng.standard_normal(corners)
    smooth = np.convolve(np.r_[bumps, bumps, bumps], np.ones(5) / 5, "same")[corners : 2 * corners]
    reach = radius * np.clip(1 + 0.45 * smooth, 0.6, 1.6)
    angle = np.arange(corners) * (2 * math.pi / corners)
    stretch = rng.uniform(0.75, 1.3)
    x, y = spot[0] + reach * np.cos(angle) * stretch, spot[1] + reach * np.sin(angle) / stretch
    patch = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillPoly(patch, [np.round(np.stack([x, y], 1)).astype(np.int32)], (1.0,))
    return blurred(patch, 0.9)
