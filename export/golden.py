"""Golden frames: pictures with known scores, by which a station proves that it runs the model it was given."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from onnx import ModelProto

from kenpin.export.half import to_single
from kenpin.export.outputs import Floats, Fusion, Models, Outputs, run_onnx
from kenpin.frame import Image
from kenpin.manifest import Golden
from kenpin.train.data import evenly

COUNT = 8
# Of so many drawn defects so many are taken.
CANDIDATES, DEFECTS = 16, 2
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


def make_golden(models: Models, held_back: Image, drawn: Image, *, spread: float) -> GoldenFrames:
    """Choose golden frames and measure how well their scores repeat.

    Good parts alone would not show an engine that saturates where it matters. So some drawn defects come with
    them: the strongest of those whose scores repeat as well.

    Args:
        models: The models of the bundle.
        held_back: Good pictures, BGR uint8 (N, H, W, 3).
        drawn: Others with drawn defects (M, H, W, 3).
        spread: Standard deviation of the score over good pictures.
    """
    good = held_back[evenly(len(held_back), COUNT)]
    images = np.concatenate([good, drawn[evenly(len(drawn), CANDIDATES)]])
    # As a station runs it: on a CPU that is nothing with fp16 in it, so that is scored as written.
    small, noise = _repeat(models.int8, images, Fusion.BASIC, half=models.half)
    exact, noise_fp = _repeat(models.fp, images, Fusion.FULL)
    count = len(good)
    tolerance, tolerance_fp = _tolerance(noise[:count], spread), _tolerance(noise_fp[:count], spread)
    repeats = (NOISE_MARGIN * noise <= tolerance) & (NOISE_MARGIN * noise_fp <= tolerance_fp)
    strongest = [int(n) for n in np.argsort(-exact.score) if n >= count and repeats[n]][:DEFECTS]
    chosen = [*range(count), *strongest]
    files = {f"golden/{number}.png": _png(images[n]) for number, n in enumerate(chosen)}
    scores = tuple(_golden(file, n, small, exact) for file, n in zip(files, chosen, strict=True))
    return GoldenFrames(scores, files, tolerance, tolerance_fp)


def _repeat(model: ModelProto, images: Image, fusion: Fusion, *, half: bool = False) -> tuple[Outputs, Floats]:
    """Outputs of images, and how far each score moves with one thread, and in the graph as written, (N,).

    With fp16 in it a graph is run as written, and so repeats to the last digit: what shows how other kernels
    round is the same graph computing in fp32.
    """
    outputs = run_onnx(model, images, fusion=Fusion.NONE if half else fusion, threads=2)
    twin = to_single(model) if half else model
    others = [run_onnx(twin, images, fusion=other, threads=1).score for other in (fusion, Fusion.NONE)]
    return outputs, np.max([np.abs(outputs.score - other) for other in others], 0)


def _tolerance(noise: Floats, spread: float) -> float:
    return max(NOISE_MARGIN * float(noise.max()), SPREAD_SHARE * spread, 1e-6)


def _golden(file: str, number: int, small: Outputs, exact: Outputs) -> Golden:
    return Golden(
        file=file,
        score=float(small.score[number]),
        level_scores=_three(small.level_scores[number]),
        score_fp=float(exact.score[number]),
        level_scores_fp=_three(exact.level_scores[number]),
    )


def _three(values: Floats) -> tuple[float, float, float]:
    coarse, mid, fine = (float(value) for value in values)
    return coarse, mid, fine


def _png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])
