"""From the float model to the smallest one that keeps its verdicts: equalise, ranges, biases, gate, audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from kenpin.export.audit import audit
from kenpin.export.bias import correct_biases
from kenpin.export.equalise import equalise
from kenpin.export.fallback import Recipe, Settled, settle
from kenpin.export.fidelity import TapFidelity, measure_taps
from kenpin.export.gate import Judged, Limits
from kenpin.export.onnx_model import HALF_OPSET, OPSET, check_model
from kenpin.export.outputs import Models
from kenpin.export.placement import find_placement
from kenpin.export.range_choice import RangeChoice, choose_ranges
from kenpin.export.range_methods import METHODS
from kenpin.export.ranges import Reach, measure_reach
from kenpin.export.samples import Samples
from kenpin.export.scheme import Scheme
from kenpin.export.sensitivity import Sensitivity, measure_sensitivity
from kenpin.frame import Image
from kenpin.train.data import evenly
from kenpin.train.validation import draw_validation_defects

# Starts a step with a number of parts and returns what is to be called after each part.
Step = Callable[[str, int], Callable[[], object]]

DEFECTS_PER_PICTURE = 2
# Held-back pictures, and as many with drawn defects, that ranges and sensitivity are measured on.
MEASURED = 16
# Good pictures that biases are corrected on.
CORRECTED = 24
LIMITS = Limits()


@dataclass(frozen=True)
class Compressed:
    """What became of the float model.

    Attributes:
        settled: The model and what the gate found.
        choice: Ranges and how they were chosen.
        layers: What each convolution alone costs, the most sensitive first.
        taps: Signal to noise of the encoder's features.
        scheme: Number formats.
        pictures: Number of pictures that gave the ranges.
    """

    settled: Settled
    choice: RangeChoice
    layers: tuple[Sensitivity, ...]
    taps: tuple[TapFidelity, ...]
    scheme: Scheme
    pictures: int

    def gate_json(self) -> dict[str, Any]:
        """What the gate found, for the manifest and `--json`."""
        found, first, unseen = self.settled.judgement, self.settled.at_first, self.settled.unseen
        return {
            **found.to_json(),
            # These pictures chose the model until none of them flipped: they prove nothing about it.
            "flip_bound": None,
            "limits": {"auroc_points": LIMITS.auroc_points, "flip_share": LIMITS.flip_share},
            "unseen": {**unseen.judgement.to_json(), "returned_to_float": unseen.returned},
            "with_every_convolution_in_int8": first.to_json(),
        }

    def layers_json(self) -> list[dict[str, Any]]:
        """Each convolution: its cost in INT8, and what it is now."""
        floats = self.settled.placement.floats
        real = "fp16" if self.scheme.half else "fp32"
        return [
            {
                "name": layer.name,
                "precision": real if layer.conv in floats else "int8",
                "map_sqnr_db": round(layer.map_sqnr_db, 2),
                "largest_shift": float(f"{layer.largest_shift:.4g}"),
                "risk": float(f"{layer.risk:.4g}"),
            }
            for layer in self.layers
        ]

    def to_json(self) -> dict[str, Any]:
        """How it was made, for the manifest."""
        placement = self.settled.placement
        return {
            "precision": self.scheme.precision,
            "weights": self.scheme.weights,
            "scheme": "int8 symmetric; weights per channel, activations per tensor; encoder convolutions only",
            "equalised": True,
            "biases_corrected": True,
            "pictures": self.pictures,
            "defects_drawn_per_picture": DEFECTS_PER_PICTURE,
            "convs": list(placement.convs),
            "floats": list(placement.floats),
            "shortcuts": list(placement.shortcuts),
            "ranges": {name: self.choice.ranges[name] for name in placement.activations},
            "range_choice": self.choice.to_json(),
            "layers": self.layers_json(),
            "taps_sqnr_db": [{n: round(v, 2) for n, v in vars(tap).items()} for tap in self.taps],
            "gate": self.gate_json(),
            "onnxruntime": onnxruntime.__version__,
        }


def compress(fp: ModelProto, samples: Samples, judged: Judged, scheme: Scheme, *, step: Step) -> Compressed:
    """Quantise as much of the encoder as the gate allows.

    Args:
        fp: The float model.
        samples: The pictures of the run.
        judged: Those that the gate looks at.
        scheme: Number formats.
        step: Shows progress.

    Raises:
        ExportError: The gate does not hold, or the graph breaks a rule.
    """
    pictures = with_defects(samples.fit)
    even, reaches = _measure(fp, pictures, step)
    rows = _measured(judged)
    choice = choose_ranges(even, reaches, judged, rows, advance=step("choose ranges", len(METHODS)))
    convs = len(find_placement(even).convs)
    advance = step("correct biases", convs)
    some = samples.fit[evenly(len(samples.fit), CORRECTED)]
    biases = correct_biases(even, choice.ranges, scheme, some, advance=advance)
    advance = step("measure each convolution alone", convs)
    layers = measure_sensitivity(even, choice.ranges, judged, rows, advance=advance)
    recipe = Recipe(even, choice.ranges, scheme, biases)
    settled = settle(recipe, judged, layers, limits=LIMITS, advance=step("accuracy gate", convs))
    audit(settled.model, floats=settled.placement.floats)
    check_model(settled.model, shape=samples.shape, opset=HALF_OPSET if scheme.half else OPSET)
    taps = measure_taps(Models(fp, settled.model), judged.pictures[rows])
    return Compressed(settled, choice, layers, taps, scheme, len(pictures))


def _measure(fp: ModelProto, pictures: Image, step: Step) -> tuple[ModelProto, dict[str, Reach]]:
    """The model with channels that reach alike, and how far its activations reach."""
    advance = step("measure ranges", 3 * len(pictures))
    even = equalise(fp, pictures, advance=advance)
    return even, measure_reach(even, find_placement(even).activations, pictures, advance=advance)


def with_defects(good: Image) -> Image:
    """Good pictures, and copies with defects drawn on them.

    What counts are the strange parts. The encoder reacts to them with activations two or three times those of
    good parts; a range that fits good parts alone would saturate there, and lower exactly the scores that must
    be high.
    """
    drawn = draw_validation_defects(list(good), per_picture=DEFECTS_PER_PICTURE, seed=0)
    return np.concatenate([good, np.stack(drawn)]) if drawn else good


def _measured(judged: Judged) -> list[int]:
    """Some held-back pictures that choose, and as many with drawn defects; test pictures only pass the gate."""
    choosing, _ = judged.halves
    first = judged.held_back + len(judged.test_bad)
    good = [row for row in choosing if row < judged.held_back]
    drawn = [row for row in choosing if row >= first]
    count = min(MEASURED, len(good))
    return [rows[at] for rows in (good, drawn) for at in np.linspace(0, len(rows) - 1, count).astype(int)]
