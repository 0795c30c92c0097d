"""How much export changes what the model says: torch, ONNX in float, ONNX in INT8."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kenpin.errors import ExportError
from kenpin.export.outputs import Outputs
from kenpin.precision import OUTPUTS
from kenpin.train.metrics import auroc

# Torch and ONNX Runtime sum in another order; anything above is another model.
MAX_FLOAT_DIFFERENCE = 1e-3
# Below this INT8 adds more to the maps than tells one good part from the next. The verdicts are the gate's
# business (gate.py); maps may be as noisy as this.
MIN_SQNR_DB = 0.0
# Below this the export says so.
WEAK_SQNR_DB = 15.0
# Where flips are counted. The largest score would hang on one picture, and few test pictures lie near it.
OPERATING_PERCENTILE = 95
# What is written for outputs that do not differ at all.
MAX_SQNR_DB = 150.0


@dataclass(frozen=True)
class ScoreShift:
    """|difference of the score| between two forms of a model: largest and 99th percentile."""

    max: float
    p99: float


@dataclass(frozen=True)
class Parity:
    """Three forms of one model on the same held-back pictures.

    Attributes:
        pictures: Held-back good pictures and test pictures together.
        test_good: Good ones among the test pictures.
        test_bad: Bad ones among the test pictures.
        onnx_relative: Largest difference of any output of the float ONNX model to torch, relative to the
            largest value of that output.
        onnx_shift: Score of the float ONNX model against torch.
        int8_shift: Score of the INT8 model against the float ONNX model.
        sqnr_db: Per output, signal to noise of INT8 against float, decibels.
        auroc: Of `torch`, `onnx` and `int8` over the test pictures; empty without both classes.
        threshold: The operating point of float over held-back good pictures. A part above it is stopped.
        new_escapes: Bad test pictures that float stops and INT8 does not, at this threshold.
        new_false_calls: Good test pictures that INT8 stops and float does not.
        other_flips: Test pictures where INT8 is right and float is not.
    """

    pictures: int
    test_good: int
    test_bad: int
    onnx_relative: float
    onnx_shift: ScoreShift
    int8_shift: ScoreShift
    sqnr_db: dict[str, float]
    auroc: dict[str, float]
    threshold: float
    new_escapes: int
    new_false_calls: int
    other_flips: int

    @property
    def passing(self) -> str:
        """How many good parts stay below the threshold, in words."""
        held_back = self.pictures - self.test_good - self.test_bad
        return f"{stay_below(held_back)} of {held_back} held-back good parts"

    def to_json(self) -> dict[str, Any]:
        """The fields as plain numbers, rounded to six digits."""
        rounded: dict[str, Any] = _rounded(asdict(self))
        return rounded


@dataclass(frozen=True)
class Forms:
    """Outputs of the three forms of a model for the same pictures: G held-back good ones, then T test pictures.

    Attributes:
        torch: Of the torch model.
        onnx: Of the float ONNX model.
        int8: Of the INT8 model, every Q/DQ run as written.
    """

    torch: Outputs
    onnx: Outputs
    int8: Outputs


def compare(forms: Forms, test_bad: NDArray[np.bool_]) -> Parity:
    """Compare the forms of a model.

    Args:
        forms: Outputs for the held-back good pictures, then the test pictures.
        test_bad: (T,) true = bad; says how many of the last pictures are test pictures.

    Raises:
        ExportError: ONNX in float is not the torch model, or INT8 is clearly broken.
    """
    relative = float(np.max([_relative(a, b) for a, b in _pairs(forms.torch, forms.onnx)]))
    if not relative <= MAX_FLOAT_DIFFERENCE:
        raise ExportError(
            f"the ONNX model differs from the torch model by {relative:.1e} of its largest output "
            f"(allowed {MAX_FLOAT_DIFFERENCE:.0e})",
            cure="install the versions of torch, onnxscript and onnxruntime that constraints.txt names",
        )
    sqnr = {n: sqnr_db(a, b) for n, (a, b) in zip(OUTPUTS, _pairs(forms.onnx, forms.int8), strict=True)}
    if not sqnr["anomaly_map"] >= MIN_SQNR_DB:
        raise ExportError(
            f"INT8 destroys the model: its anomaly maps have {sqnr['anomaly_map']:.1f} dB signal to noise "
            f"against float (at least {MIN_SQNR_DB:g} dB)",
            cure="train longer, so that the encoder's activations settle, and export again",
        )
    first_test = len(forms.onnx.score) - len(test_bad)
    threshold = operating_point(forms.onnx.score[:first_test])
    exact, changed = (form.score[first_test:] for form in (forms.onnx, forms.int8))
    return Parity(
        pictures=len(forms.onnx.score),
        test_good=int((~test_bad).sum()),
        test_bad=int(test_bad.sum()),
        onnx_relative=relative,
        onnx_shift=_shift(forms.torch, forms.onnx),
        int8_shift=_shift(forms.onnx, forms.int8),
        sqnr_db=sqnr,
        auroc=_aurocs(forms, test_bad),
        threshold=threshold,
        **count_flips(exact, changed, test_bad, threshold=threshold),
    )


def count_flips(
    exact: NDArray[np.float32], changed: NDArray[np.float32], bad: NDArray[np.bool_], *, threshold: float
) -> dict[str, Any]:
    """Pictures whose verdict changes, by kind: float stops them and the other model does not, or vice versa.

    Args:
        exact: Scores of the float model, (N,).
        changed: Scores of the other one, (N,).
        bad: (N,) true = bad.
        threshold: A part above it is stopped.
    """
    stops, stops_now = exact > threshold, changed > threshold
    flips = stops != stops_now
    return {
        "new_escapes": int((flips & bad & stops).sum()),
        "new_false_calls": int((flips & ~bad & stops_now).sum()),
        "other_flips": int((flips & (bad == stops_now)).sum()),
    }


def operating_point(scores: NDArray[np.float32]) -> float:
    """A threshold that `stay_below` of the good scores (N,) are below, in the middle between two of them.

    Any threshold between the two passes the same parts; the middle hangs on neither.
    """
    ordered = np.sort(scores)
    below = stay_below(len(ordered))
    return float(ordered[below - 1] + ordered[below]) / 2


def stay_below(good: int) -> int:
    """OPERATING_PERCENTILE of so many good parts; of fewer than 20 all but one, which are less."""
    return min(math.ceil(good * OPERATING_PERCENTILE / 100), good - 1)


def sqnr_db(signal: NDArray[np.float32], changed: NDArray[np.float32]) -> float:
    """Signal to quantisation noise, 10 log10(sum (s - mean s)^2 / sum (s - c)^2), at most MAX_SQNR_DB.

    The mean is no signal: a score says something only by how it differs. NaN where a value is not finite.
    """
    noise = float(np.square(signal - changed, dtype=np.float64).sum())
    power = float(np.square(signal - signal.mean(), dtype=np.float64).sum())
    if not math.isfinite(noise + power):
        return math.nan
    return min(MAX_SQNR_DB, 10 * math.log10(max(power, 1e-30) / max(noise, 1e-30)))


def _pairs(a: Outputs, b: Outputs) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    return [(getattr(a, name), getattr(b, name)) for name in OUTPUTS]


def _relative(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-12))


def _shift(a: Outputs, b: Outputs) -> ScoreShift:
    difference = np.abs(a.score - b.score)
    return ScoreShift(float(difference.max()), float(np.percentile(difference, 99)))


def _aurocs(forms: Forms, test_bad: NDArray[np.bool_]) -> dict[str, float]:
    if test_bad.all() or not test_bad.any():
        return {}
    first = len(forms.onnx.score) - len(test_bad)
    return {n: auroc(getattr(forms, n).score[first:], test_bad) for n in ("torch", "onnx", "int8")}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
