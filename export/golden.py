"""Golden frames: pictures with known scores, by which a station proves that it runs the model it was given."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from onnx import ModelProto

from kenpin.bundle import Golden
from kenpin.export.outputs import Floats, Fusion, Models, Outputs, run_onnx
from kenpin.frame import Image

COUNT = 8
# Scores of one model differ a little between machines: other instruction sets sum in another order, and in
# INT8 a sum near the middle of two steps falls to the other side. What this machine can show of it (one
# thread and two, the graph as written and optimised) is taken this many times,
NOISE_MARGIN = 4.0
# and at least this share of the spread of good scores, too little for a threshold to feel.
SPREAD_SHARE = 0.02


@dataclass(frozen=True)
class GoldenFrames:
    """Golden frames of a bundle.

    Attributes:
        scores: Their scores.
        files: Name -> PNG.
        tolerance: Largest |difference of a score| that counts as the same model.
        tolerance_fp: The same of the float model, which repeats far better than INT8.
    """

    scores: tuple[Golden, ...]
    files: dict[str, bytes]
    tolerance: float
    tolerance_fp: float


def make_golden(models: Models, held_back: Image, *, spread: float) -> GoldenFrames:
    """Choose golden frames and measure how well their scores repeat.

    Args:
        models: The models of the bundle.
        held_back: Good pictures, BGR uint8 (N, H, W, 3).
        spread: Standard deviation of the score over good pictures.
    """
    count = min(COUNT, len(held_back))
    chosen = held_back[np.linspace(0, len(held_back) - 1, count).round().astype(int)]
    # As a station runs it: on a CPU that is nothing with fp16 in it, so that is scored as written.
    fusion = Fusion.NONE if models.half else Fusion.BASIC
    int8 = run_onnx(models.int8, chosen, fusion=fusion, threads=2)
    fp = run_onnx(models.fp, chosen, fusion=Fusion.FULL, threads=2)
    noise = _noise(models.int8, chosen, int8.score, fusion)
    noise_fp = _noise(models.fp, chosen, fp.score, Fusion.FULL)
    files = {f"golden/{number}.png": _png(image) for number, image in enumerate(chosen)}
    scores = tuple(_golden(name, number, int8, fp) for number, name in enumerate(files))
    return GoldenFrames(scores, files, _tolerance(noise, spread), _tolerance(noise_fp, spread))


def _noise(model: ModelProto, images: Image, score: Floats, fusion: Fusion) -> float:
    """How far scores (N,) move with one thread, and in the graph as written."""
    others = [run_onnx(model, images, fusion=other, threads=1).score for other in (fusion, Fusion.NONE)]
    return max(float(np.abs(score - other).max()) for other in others)


def _tolerance(noise: float, spread: float) -> float:
    return max(NOISE_MARGIN * noise, SPREAD_SHARE * spread, 1e-6)


def _golden(file: str, number: int, int8: Outputs, fp: Outputs) -> Golden:
    return Golden(
        file=file,
        score=float(int8.score[number]),
        level_scores=_three(int8.level_scores[number]),
        score_fp=float(fp.score[number]),
        level_scores_fp=_three(fp.level_scores[number]),
    )


def _three(values: Floats) -> tuple[float, float, float]:
    coarse, mid, fine = (float(value) for value in values)
    return coarse, mid, fine


def _png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])
