"""How far activations reach, measured on real pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from kenpin.errors import ExportError
from kenpin.export.outputs import Floats, Fusion, run_tensors
from kenpin.frame import Image

BINS = 2048
# Of the absolute values within one picture. Over the pictures it is always the largest: what is rare over
# pictures, a defect, is what must not be clipped.
PERCENTILE = 99.99


@dataclass(frozen=True)
class Reach:
    """Absolute values of one activation over pictures.

    Attributes:
        largest: The largest one.
        percentile: PERCENTILE of those within one picture, of the picture where it is largest.
        counts: How many fall into each of BINS equal bins from 0 to `largest`, (BINS,).
    """

    largest: float
    percentile: float
    counts: NDArray[np.float64]


def check_shown(images: Image) -> None:
    """Refuse to measure on nothing.

    Raises:
        ExportError: There is no picture.
    """
    if not len(images):
        raise ExportError(
            "there is no picture to measure ranges on, and invented ranges clip real defects",
            cure="export a run whose pictures of good parts are there",
        )


def measure_reach(
    model: ModelProto, names: Sequence[str], images: Image, *, advance: Callable[[], object] = lambda: None
) -> dict[str, Reach]:
    """Measure activations over pictures.

    Args:
        model: The float model.
        names: The activations.
        images: BGR uint8 (N, H, W, 3) at model resolution.
        advance: Called twice for each picture.

    Raises:
        ExportError: There is no picture, or an activation is zero on every picture, or not finite.
    """
    check_shown(images)
    largest = dict.fromkeys(names, 0.0)
    for values in run_tensors(model, names, images, fusion=Fusion.FULL):
        for name, value in zip(names, values, strict=True):
            # Python's max would let a NaN vanish.
            largest[name] = float(np.maximum(largest[name], np.abs(value).max()))
        advance()
    _check(largest, len(images))
    counts = {name: np.zeros(BINS) for name in names}
    percentile = dict.fromkeys(names, 0.0)
    for values in run_tensors(model, names, images, fusion=Fusion.FULL):
        for name, value in zip(names, values, strict=True):
            own = _count(value, largest[name])
            counts[name] += own
            percentile[name] = max(percentile[name], _percentile_of(own) * largest[name])
        advance()
    return {name: Reach(largest[name], percentile[name], counts[name]) for name in names}


def _check(largest: dict[str, float], pictures: int) -> None:
    for name, value in largest.items():
        if not 0 < value < np.inf:
            raise ExportError(
                f"the activation {name} reaches {value} on {pictures} pictures: no scale fits it",
                cure="train again, with more --steps or another --seed",
            )


def _count(value: Floats, largest: float) -> NDArray[np.int64]:
    bins = (np.abs(value).ravel() * (BINS / largest)).astype(np.int64)
    return np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)


def _percentile_of(counts: NDArray[np.int64]) -> float:
    """Upper edge of the bin where PERCENTILE is reached, as a share of the range of all bins."""
    reached = np.searchsorted(counts.cumsum(), counts.sum() * PERCENTILE / 100)
    return float(min(reached + 1, BINS)) / BINS
