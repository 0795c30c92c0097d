"""What each convolution alone costs: the float model with that one in INT8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from kenpin.export.gate import Judged, flip_risk
from kenpin.export.onnx_model import ENCODER
from kenpin.export.outputs import Fusion, run_onnx
from kenpin.export.parity import sqnr_db
from kenpin.export.placement import find_placement
from kenpin.export.quantize import quantize


@dataclass(frozen=True)
class Sensitivity:
    """One convolution in INT8, everything else in float.

    Attributes:
        conv: Its weight.
        map_sqnr_db: Signal to noise of the anomaly map.
        largest_shift: Largest |difference of the score|.
        risk: How easily verdicts flip; see `flip_risk`.
    """

    conv: str
    map_sqnr_db: float
    largest_shift: float
    risk: float

    @property
    def name(self) -> str:
        """Its name within the encoder."""
        return self.conv.removeprefix(ENCODER).removesuffix(".weight")


def measure_sensitivity(
    model: ModelProto,
    ranges: Mapping[str, float],
    judged: Judged,
    rows: Sequence[int],
    *,
    advance: Callable[[], object],
) -> tuple[Sensitivity, ...]:
    """Quantise each convolution alone, with its input and the shortcut that is fused into it.

    Args:
        model: The float model.
        ranges: Of all activations.
        judged: Pictures and what float says about them.
        rows: Which of them are used.
        advance: Called after each convolution.

    Returns:
        The most sensitive first.
    """
    exact = judged.exact[rows]
    convs = find_placement(model).convs
    found = []
    for conv in convs:
        alone = find_placement(model, floats=[other for other in convs if other != conv])
        changed = run_onnx(quantize(model, alone, ranges), judged.pictures[rows], fusion=Fusion.NONE)
        found.append(
            Sensitivity(
                conv=conv,
                map_sqnr_db=sqnr_db(exact.anomaly_map, changed.anomaly_map),
                largest_shift=float(np.abs(exact.score - changed.score).max()),
                risk=flip_risk(judged, changed.score, rows),
            )
        )
        advance()
    return tuple(sorted(found, key=lambda one: one.risk, reverse=True))
