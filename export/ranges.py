"""Ranges of activations, measured on real pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto, ValueInfoProto

from kenpin.errors import ExportError
from kenpin.export.onnx_model import INPUT
from kenpin.export.outputs import Fusion, open_session
from kenpin.frame import Image


def measure_ranges(
    model: ModelProto,
    names: Sequence[str],
    images: Image,
    *,
    percentile: float = 100,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Largest absolute value of activations over pictures.

    Args:
        model: The float model.
        names: The activations.
        images: BGR uint8 (N, H, W, 3) at model resolution.
        percentile: Of the absolute values within one picture; 100 = their maximum. Over the pictures it is
            always the maximum.
        advance: Called after each picture.

    Returns:
        Range of each activation.

    Raises:
        ExportError: An activation is zero on every picture, or not finite.
    """
    probed = ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = open_session(probed, Fusion.FULL)
    ranges = dict.fromkeys(names, 0.0)
    for image in images:
        for name, value in zip(names, session.run(list(names), {INPUT: image[None]}), strict=True):
            ranges[name] = max(ranges[name], float(np.percentile(np.abs(value), percentile)))
        advance()
    for name, largest in ranges.items():
        if not 0 < largest < np.inf:
            raise ExportError(
                f"the activation {name} reaches {largest} on {len(images)} pictures: no scale fits it",
                cure="train again, with more --steps or another --seed",
            )
    return ranges
