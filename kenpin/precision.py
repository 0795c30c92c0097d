"""The models of a bundle: their input and outputs, which file each one is, what it scores the golden frames."""

from __future__ import annotations

from typing import Literal

from kenpin.bundle import MODEL, MODEL_FP, Bundle
from kenpin.errors import EngineError
from kenpin.manifest import Golden, Manifest

Precision = Literal["int8", "fp16", "fp32"]
INPUT = "frames"  # uint8 (1, H, W, 3)
OUTPUTS = ("score", "level_scores", "anomaly_map")


def small_precision(bundle: Bundle) -> Precision:
    """What `model.onnx` is: int8, or fp16 where it is INT8 and fp16, or fp32 where it is the float model again.

    Raises:
        EngineError: The bundle tells something else.
    """
    told = bundle.manifest.quantization.get("precision", "int8")
    if told not in ("int8", "fp16", "fp32"):
        raise EngineError(
            f"the precision {told!r} of the bundle's model is not known",
            where=bundle.path,
            cure="update kenpin on this station",
        )
    precision: Precision = told
    return precision


def model_of(bundle: Bundle, precision: Precision) -> bytes:
    """The ONNX file of one model.

    Raises:
        EngineError: The bundle has no such model, or no golden frames to prove it by.
    """
    small = small_precision(bundle)
    if precision not in (small, "fp32"):
        raise EngineError(
            f"the bundle has no {precision} model: its model.onnx is {small}",
            where=bundle.path,
            cure=f"use {small} or fp32, or export it again with --precision {precision}",
        )
    if not bundle.manifest.golden:
        raise EngineError(
            "the bundle has no golden frames",
            where=bundle.path,
            cure="export the bundle again with this version of kenpin",
        )
    return bundle.files[MODEL_FP if precision == "fp32" else MODEL]


def expected_score(golden: Golden, precision: Precision) -> float:
    """What this model scored a golden frame when it was exported."""
    return golden.score_fp if precision == "fp32" else golden.score


def tolerance_of(manifest: Manifest, precision: Precision) -> float:
    """How far the golden scores of this model may be off."""
    own = manifest.golden_tolerance_fp if precision == "fp32" else None
    return manifest.golden_tolerance if own is None else own
