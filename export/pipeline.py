"""From a run folder to a signed bundle. Read from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from kenpin.export.compress import Compressed, Step, compress
from kenpin.export.gate import Judged, check_enough
from kenpin.export.golden import make_golden
from kenpin.export.half import check_rounding
from kenpin.export.onnx_model import to_onnx
from kenpin.export.outputs import Floats, Fusion, Models, run_onnx, run_torch
from kenpin.export.pack import Content, Label, pack
from kenpin.export.parity import Forms, Parity, compare
from kenpin.export.samples import Samples, choose_rows, read_samples
from kenpin.export.scheme import Scheme
from kenpin.signing import SecretKey
from kenpin.train.inspector import Inspector
from kenpin.train.run import RunFolder
from kenpin.train.validation import draw_validation_defects

# Copies with a drawn defect for the gate: about this many, and of each held-back picture at most four.
DRAWN = 64
MOST_DRAWN_OF_EACH = 4


@dataclass(frozen=True)
class Order:
    """What to make of a run.

    Attributes:
        label: Product and version.
        key: Signs the bundle.
        scheme: Number formats of `model.onnx`.
    """

    label: Label
    key: SecretKey
    scheme: Scheme


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        path: The bundle.
        sha256: Its identity.
        parity: How much the model changed on the way.
        compressed: How it was quantised and what the gate found; none in fp32.
        model_bytes: Size of `model.onnx` and of the float model.
        golden_tolerance: Tolerance of the golden scores.
    """

    path: Path
    sha256: str
    parity: Parity
    compressed: Compressed | None
    model_bytes: tuple[int, int]
    golden_tolerance: float


def export_run(run: RunFolder, inspector: Inspector, out: Path, order: Order, *, step: Step) -> Exported:
    """Export, quantise, judge, and write the signed bundle.

    Args:
        run: A finished run.
        inspector: Its model.
        out: The `.kenpin` file to write.
        order: What to make of it.
        step: Shows progress.

    Raises:
        ConfigError, DataError, TrainError: The run or its pictures cannot be used.
        ExportError: The model cannot become a bundle, or INT8 does not keep its verdicts.
    """
    shape = run.config.input_shape
    chosen = choose_rows(run.data)
    small = order.scheme.precision != "fp32"
    if small:
        check_enough(len(chosen["held_back"]))
    if order.scheme.half:
        check_rounding()
    advance = step("read pictures", sum(len(rows) for rows in chosen.values()))
    samples = read_samples(chosen, shape=shape, sight=run.sight, advance=advance)

    advance = step("torch to ONNX", 1)
    fp = to_onnx(inspector, shape=shape)
    advance()

    judged = _judged(fp, samples, step=step)
    compressed = compress(fp, samples, judged, order.scheme, step=step) if small else None
    models = Models(fp, compressed.settled.model if compressed else fp, half=order.scheme.half)

    known = slice(0, len(samples.all))
    advance = step("compare torch and ONNX", len(samples.all))
    forms = Forms(
        torch=run_torch(inspector, samples.all, advance=advance),
        onnx=judged.exact[known],
        int8=(compressed.settled.outputs if compressed else judged.exact)[known],
    )
    parity = compare(forms, samples.test_bad)

    advance = step("golden frames, sign and write", 1)
    stats = score_stats(forms.int8.score[: len(samples.held_back)])
    golden = make_golden(models, samples.held_back, judged.pictures[known.stop :], spread=stats["std"])
    content = Content(models, golden, parity, stats, _how(compressed))
    sha256 = pack(out, run=run, content=content, label=order.label, key=order.key)
    advance()
    sizes = (models.int8.ByteSize(), models.fp.ByteSize())
    return Exported(out, sha256, parity, compressed, sizes, golden.tolerance)


def _judged(fp: ModelProto, samples: Samples, *, step: Step) -> Judged:
    """The pictures that the gate looks at, scored by the float model."""
    each = min(max(DRAWN // len(samples.held_back), 1), MOST_DRAWN_OF_EACH)
    # Other draws than those that give the ranges.
    drawn = draw_validation_defects(list(samples.held_back), per_picture=each, seed=1)
    pictures = np.concatenate([samples.all, np.stack(drawn)])
    advance = step("score in float", len(pictures))
    exact = run_onnx(fp, pictures, fusion=Fusion.FULL, advance=advance)
    return Judged(pictures, len(samples.held_back), samples.test_bad, exact)


def score_stats(scores: Floats) -> dict[str, float]:
    """Mean, standard deviation, 99th percentile and count of scores (N,)."""
    return {
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "p99": float(np.percentile(scores, 99)),
        "count": float(len(scores)),
    }


def _how(compressed: Compressed | None) -> dict[str, Any]:
    if compressed is None:
        return {"precision": "fp32", "convs": [], "onnxruntime": onnxruntime.__version__}
    return compressed.to_json()
