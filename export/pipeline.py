"""From a run folder to a signed bundle. Read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from kenpin.export.audit import audit
from kenpin.export.golden import make_golden
from kenpin.export.onnx_model import check_model, to_onnx
from kenpin.export.outputs import Floats, Fusion, Models, run_onnx, run_torch
from kenpin.export.pack import Content, Label, pack
from kenpin.export.parity import Forms, Parity, compare
from kenpin.export.quantize import Placement, find_placement, quantize
from kenpin.export.ranges import measure_ranges
from kenpin.export.samples import Samples, choose_rows, read_samples
from kenpin.frame import Image
from kenpin.signing import SecretKey
from kenpin.train.run import RunFolder, load_inspector
from kenpin.train.validation import draw_validation_defects

# Starts a step with a number of parts and returns what is to be called after each part.
Step = Callable[[str, int], Callable[[], object]]

# Of the encoder's activations, above what good parts with drawn defects reach.
HEADROOM = 1.25
DEFECTS_PER_PICTURE = 2


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        path: The bundle.
        sha256: Its identity.
        parity: How much the model changed on the way.
        quantized_convs: Number of INT8 convolutions.
        golden_tolerance: Tolerance of the golden scores.
    """

    path: Path
    sha256: str
    parity: Parity
    quantized_convs: int
    golden_tolerance: float


def export_run(run: RunFolder, out: Path, *, label: Label, key: SecretKey, step: Step) -> Exported:
    """Export, quantise, compare, and write the signed bundle.

    Args:
        run: A finished run.
        out: The `.kenpin` file to write.
        label: Product and version.
        key: Signs the bundle.
        step: Shows progress.

    Raises:
        ConfigError, DataError, TrainError: The run or its pictures cannot be used.
        ExportError: The model cannot become a bundle.
    """
    inspector, side = load_inspector(run.root), run.config.size
    chosen = choose_rows(run.data)
    advance = step("read pictures", sum(len(rows) for rows in chosen.values()))
    samples = read_samples(chosen, side=side, advance=advance)

    advance = step("torch to ONNX", 1)
    fp = to_onnx(inspector, side=side)
    advance()

    placement = find_placement(fp)
    pictures = with_defects(samples.fit)
    ranges = find_ranges(fp, placement, pictures, advance=step("measure ranges", len(pictures)))
    models = Models(fp, quantize(fp, placement, ranges))
    audit(models.int8)
    check_model(models.int8, side=side)

    pictures = samples.all
    advance = step("compare torch, ONNX and INT8", 3 * len(pictures))
    forms = Forms(
        torch=run_torch(inspector, pictures, advance=advance),
        onnx=run_onnx(models.fp, pictures, fusion=Fusion.FULL, advance=advance),
        int8=run_onnx(models.int8, pictures, fusion=Fusion.NONE, advance=advance),
    )
    parity = compare(forms, samples.test_bad)

    advance = step("golden frames, sign and write", 1)
    stats = score_stats(forms.int8.score[: len(samples.held_back)])
    golden = make_golden(models, samples.held_back, spread=stats["std"])
    content = Content(models, golden, parity, stats, _how(placement, ranges, samples))
    sha256 = pack(out, run=run, content=content, label=label, key=key)
    advance()
    return Exported(out, sha256, parity, len(placement.convs), golden.tolerance)


def with_defects(good: Image) -> Image:
    """Good pictures, and copies with defects drawn on them.

    What counts are the strange parts. The encoder reacts to them with activations two or three times those of
    good parts; a range that fits good parts alone would saturate there, and lower exactly the scores that must
    be high.
    """
    drawn = draw_validation_defects(list(good), per_picture=DEFECTS_PER_PICTURE, seed=0)
    return np.concatenate([good, np.stack(drawn)])


def find_ranges(
    model: ModelProto, placement: Placement, pictures: Image, *, advance: Callable[[], object]
) -> dict[str, float]:
    """Ranges of all activations: what they reach on pictures, with headroom."""
    measured = measure_ranges(model, placement.activations, pictures, advance=advance)
    return {name: HEADROOM * largest for name, largest in measured.items()}


def score_stats(scores: Floats) -> dict[str, float]:
    """Mean, standard deviation, 99th percentile and count of scores (N,)."""
    return {
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "p99": float(np.percentile(scores, 99)),
        "count": float(len(scores)),
    }


def _how(placement: Placement, ranges: dict[str, float], samples: Samples) -> dict[str, Any]:
    return {
        "scheme": "int8 symmetric; weights per channel, activations per tensor; encoder convolutions only",
        "headroom": HEADROOM,
        "pictures": len(samples.fit),
        "defects_drawn_per_picture": DEFECTS_PER_PICTURE,
        "convs": list(placement.convs),
        "shortcuts": list(placement.shortcuts),
        "ranges": ranges,
        "onnxruntime": onnxruntime.__version__,
    }
