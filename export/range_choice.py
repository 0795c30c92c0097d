"""Which ranges to take: each method is tried on held-back pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from kenpin.export.gate import Judged, flip_risk
from kenpin.export.outputs import Fusion, run_onnx
from kenpin.export.parity import sqnr_db
from kenpin.export.placement import find_placement
from kenpin.export.quantize import quantize
from kenpin.export.range_methods import METHODS, WHOLE, ranges_by
from kenpin.export.ranges import Reach

# Risks that differ less than this are the same on so few pictures.
ALIKE = 2.0


@dataclass(frozen=True)
class Trial:
    """One method.

    Attributes:
        risk: How easily verdicts flip; see `flip_risk`.
        map_sqnr_db: Signal to noise of the anomaly map.
    """

    risk: float
    map_sqnr_db: float


@dataclass(frozen=True)
class RangeChoice:
    """The ranges that were taken.

    Attributes:
        method: The method that `best_of` took.
        ranges: Its range of each activation.
        trials: What each method reached.
    """

    method: str
    ranges: Mapping[str, float]
    trials: Mapping[str, Trial]

    def to_json(self) -> dict[str, Any]:
        """For the manifest, rounded to six digits."""
        trials = {
            method: {name: float(f"{value:.6g}") for name, value in vars(trial).items()}
            for method, trial in self.trials.items()
        }
        return {"method": self.method, "trials": trials}


def choose_ranges(
    model: ModelProto,
    reaches: Mapping[str, Reach],
    judged: Judged,
    rows: Sequence[int],
    *,
    advance: Callable[[], object],
) -> RangeChoice:
    """Try every method with all convolutions in INT8.

    Args:
        model: The float model.
        reaches: How far its activations reach, measured on pictures that trained.
        judged: Pictures that did not, and what float says about them.
        rows: Which of them are used; none of the test pictures.
        advance: Called after each method.
    """
    placement, exact = find_placement(model), judged.exact[rows]
    trials = {}
    for method in METHODS:
        int8 = quantize(model, placement, ranges_by(method, reaches))
        changed = run_onnx(int8, judged.pictures[rows], fusion=Fusion.NONE)
        risk = flip_risk(judged, changed.score, rows)
        trials[method] = Trial(risk, sqnr_db(exact.anomaly_map, changed.anomaly_map))
        advance()
    best = best_of(trials)
    return RangeChoice(best, ranges_by(best, reaches), trials)


def best_of(trials: Mapping[str, Trial]) -> str:
    """With headroom, unless verdicts flip clearly more easily then than without.

    What clips is tried for comparison only, and headroom comes first, because the pictures at hand cannot show
    the defects that nobody has seen yet.
    """
    return next(m for m in WHOLE if not trials[m].risk > ALIKE * min(trials[w].risk for w in WHOLE))
