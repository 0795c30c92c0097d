"""How exactly INT8 keeps the encoder's features: signal to noise at its taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from kenpin.export.outputs import Fusion, Models, run_tensors
from kenpin.export.parity import sqnr_db
from kenpin.export.placement import find_taps
from kenpin.frame import Image


@dataclass(frozen=True)
class TapFidelity:
    """Signal to noise of what the head reads of the encoder, in decibels.

    Attributes:
        places: Of the features of single places.
        pooled: Of their means over each picture, the embedding of a whole picture.
    """

    places: float
    pooled: float


def measure_taps(models: Models, pictures: Image) -> tuple[TapFidelity, ...]:
    """Compare the taps of the float model with those of the other one, in order of their stride.

    Args:
        models: Both.
        pictures: BGR uint8 (N, H, W, 3) at model resolution.
    """
    taps = find_taps(models.fp)
    exact = _features(models.fp, taps, pictures, Fusion.FULL)
    changed = _features(models.int8, taps, pictures, Fusion.NONE)
    return tuple(
        TapFidelity(sqnr_db(a, b), sqnr_db(a.mean((2, 3)), b.mean((2, 3))))
        for a, b in zip(exact, changed, strict=True)
    )


def _features(
    model: ModelProto, taps: Sequence[str], pictures: Image, fusion: Fusion
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    each = zip(*run_tensors(model, taps, pictures, fusion=fusion), strict=True)
    return [np.concatenate(values).astype(np.float32) for values in each]
