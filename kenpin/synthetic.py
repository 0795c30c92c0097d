"""Drawn parts: four products with and without defects, for the demo, the tests and the synthetic source.

They are far easier than real parts. What is measured on them shows that the line works, not how well it
would inspect anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from kenpin import drawn_defects as defects
from kenpin import drawn_products as products
from kenpin.drawn_products import CAP_RADIUS, MIDDLE, SIZE, Canvas, Mask, blurred
from kenpin.errors import ConfigError
from kenpin.folder_names import GOOD
from kenpin.frame import Image

PRODUCTS = ("fabric", "metal", "board", "cap")

_Damage = Callable[[np.random.Generator, Canvas, defects.Spot], tuple[Canvas, Canvas]]

_DAMAGE: Mapping[str, _Damage] = MappingProxyType(
    {
        "scratch": defects.scratch,
        "hole": defects.hole,
        "stain": defects.stain,
        "dent": defects.dent,
        "streak": defects.streak,
    }
)
_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fabric": ("scratch", "hole", "stain", "streak"),
        "metal": ("scratch", "hole", "stain", "dent"),
        "board": ("scratch", "hole", "stain", "missing_component", "shifted_component"),
        "cap": ("scratch", "hole", "stain", "missing_print", "offset_print"),
    }
)
# Streams of chance of one part: its label must not depend on how it is drawn.
_LABEL, _PICTURE = 0, 1


@dataclass(frozen=True)
class DrawnPart:
    """One drawn part.

    Attributes:
        image: BGR uint8, shape (256, 256, 3).
        label: `good` or the kind of defect.
        mask: uint8, shape (256, 256), 255 where the defect is.
    """

    image: Image
    label: str
    mask: Mask


def draw_part(product: str, *, seed: int, index: int, defect_share: float) -> DrawnPart:
    """Draw a part. The same arguments give the same part.

    Args:
        product: One of `PRODUCTS`.
        seed: Number of the line of parts, from 0.
        index: Number of the part on that line, from 0.
        defect_share: Share of the parts that have a defect, 0 to 1.

    Raises:
        ConfigError: The product is unknown or a number is out of range.
    """
    label = label_of(product, seed=seed, index=index, defect_share=defect_share)
    rng = _stream(product, seed, index, _PICTURE)
    if label in _DAMAGE:
        canvas, mask = _damaged(rng, product, label)
    else:
        canvas, mask = _made(rng, product, "" if label == GOOD else label)
    return DrawnPart(_photograph(rng, canvas), label, mask)


def label_of(product: str, *, seed: int, index: int, defect_share: float) -> str:
    """The label that `draw_part` gives to the same arguments, without drawing.

    Raises:
        ConfigError: The product is unknown or a number is out of range.
    """
    if product not in PRODUCTS:
        raise ConfigError(f"there is no drawn product {product!r}", cure=f"choose one of {', '.join(PRODUCTS)}")
    if seed < 0 or index < 0 or not 0 <= defect_share <= 1:
        raise ConfigError(
            f"cannot draw part {index} of seed {seed} with a defect share of {defect_share}",
            cure="use a seed and an index from 0, and a share between 0 and 1",
        )
    rng = _stream(product, seed, index, _LABEL)
    if rng.random() >= defect_share:
        return GOOD
    return _KINDS[product][rng.integers(len(_KINDS[product]))]


def _stream(product: str, seed: int, index: int, use: int) -> np.random.Generator:
    return np.random.default_rng((seed, index, PRODUCTS.index(product), use))


def _made(rng: np.random.Generator, product: str, fault: str = "") -> tuple[Canvas, Mask]:
    """A part as it left the process: good, or with a fault of its making."""
    if product in ("fabric", "metal"):
        return (products.fabric if product == "fabric" else products.metal)(rng), products.no_fault()
    return (products.board if product == "board" else products.cap)(rng, fault)


def _damaged(rng: np.random.Generator, product: str, kind: str) -> tuple[Canvas, Mask]:
    """A part that was made well and damaged later."""
    canvas, _ = _made(rng, product)
    damaged, share = _DAMAGE[kind](rng, canvas, _spot_on(rng, product))
    if product == "cap":
        # Nothing is scratched beside the part.
        y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) - np.float32(MIDDLE)
        on_cap = np.hypot(x, y) < CAP_RADIUS - 3
        damaged, share = np.where(on_cap[..., None], damaged, canvas), share * on_cap
    return damaged, np.asarray((share > 0.3) * 255, np.uint8)


def _spot_on(rng: np.random.Generator, product: str) -> defects.Spot:
    """A place where the middle of a defect may lie, (x, y) in pixels."""
    if product == "cap":
        angle, radius = rng.uniform(0, 2 * math.pi), 78 * math.sqrt(rng.random())
        return MIDDLE + radius * math.cos(angle), MIDDLE + radius * math.sin(angle)
    x, y = rng.uniform(32, SIZE - 32, 2)
    return float(x), float(y)


def _photograph(rng: np.random.Generator, canvas: Canvas) -> Image:
    """What the camera makes of it: uneven light, slight blur, noise of the sensor."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    angle, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.10)
    light = rng.uniform(0.95, 1.05) + slope * (math.cos(angle) * x + math.sin(angle) * y)
    lit = blurred(np.asarray(canvas * light[..., None], np.float32), rng.uniform(0.5, 0.7))
    noisy = lit + rng.standard_normal(lit.shape, dtype=np.float32) * 0.012
    return np.asarray(np.clip(noisy * 255, 0, 255), np.uint8)
