"""The manifest: what a bundle says of itself, trusted once its signature is verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kenpin import __version__
from kenpin.errors import BundleError
from kenpin.view import View

MAX_BYTES = 1 << 30  # of a bundle


class _Strict(BaseModel):
    # A tolerance of NaN would accept every score.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Strict):
    """Size in bytes and SHA-256 of one file."""

    size: int = Field(ge=0, le=MAX_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Golden(_Strict):
    """A frame at model resolution and the scores each model gave for it when it was exported.

    `score` and `level_scores` (coarse, mid, fine) are of `model.onnx` in ONNX Runtime with basic graph
    optimisation, `score_fp` and `level_scores_fp` of the float model with all of it: as a station runs them. A
    `model.onnx` with fp16 in it was run as written, without optimisation: ONNX Runtime garbles it otherwise.
    """

    file: str
    score: float
    level_scores: tuple[float, float, float]
    score_fp: float
    level_scores_fp: tuple[float, float, float]


class Manifest(_Strict):
    """Content of `manifest.json`.

    Attributes:
        product: Name of the part that is inspected.
        version: Version of the bundle, chosen by whoever exports.
        created_ms: UTC, milliseconds since 1970.
        min_runtime: Oldest kenpin that can run it.
        floor: Oldest version of this product that may run on a station after this one; empty = any.
        files: Every other file of the bundle, by path.
        input_shape: Shape of the model's input `frames` (N, H, W, 3).
        golden: Frames with known scores.
        score_stats: `mean`, `std` and `p99` of the INT8 score over held-back good pictures, and `count`.
        golden_tolerance: Largest |difference of a golden score| that counts as the same model.
        golden_tolerance_fp: The same of the float model; `None` = no other one.
        lineage: Where it comes from: run name, seed, git commit, SHA-256 of the data manifest, and so on.
        learned_from: SHA-256 of every picture that training learned from; their scores prove nothing.
        metrics: Figures measured at training and export.
        quantization: How `model.onnx` was made: `precision` (int8, fp16 = INT8 and fp16 for TensorRT only, or
            fp32; int8 where it is missing), ranges, number of pictures, layers, what the accuracy gate found.
        view: What of a frame the model is shown; `None` = all of it. A kenpin that knows no views refuses a
            bundle that has one.
    """

    schema_: Literal["kenpin.bundle.v1"] = Field(default="kenpin.bundle.v1", alias="schema")
    product: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    version: str = Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")
    created_ms: int
    min_runtime: str = Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$")
    floor: str = Field(default="", pattern=r"^[A-Za-z0-9_.+-]{0,64}$")
    files: dict[str, FileEntry]
    input_shape: tuple[int, int, int, int]
    golden: tuple[Golden, ...]
    golden_tolerance: float = Field(gt=0)
    golden_tolerance_fp: float | None = Field(default=None, gt=0)
    score_stats: dict[str, float]
    lineage: dict[str, Any]
    learned_from: tuple[str, ...] = ()
    metrics: dict[str, Any]
    quantization: dict[str, Any]
    view: View | None = None


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Read a manifest whose signature was verified.

    Args:
        content: Of `manifest.json`.
        path: The bundle, for messages.

    Raises:
        BundleError: It is not understood, or made for a newer kenpin.
    """
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"the manifest is signed but not understood: {key}: {first['msg']}",
            where=path,
            cure="install the kenpin version that exported it",
        ) from None
    if _numbers(manifest.min_runtime) > _numbers(__version__):
        raise BundleError(
            f"the bundle needs kenpin {manifest.min_runtime} or newer, this is {__version__}",
            where=path,
            cure="update kenpin on this machine",
        )
    return manifest


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
