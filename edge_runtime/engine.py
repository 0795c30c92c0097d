"""The engine: what turns a camera frame into scores. TensorRT on a Jetson, ONNX Runtime elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kenpin.frame import Image
from kenpin.precision import Precision
from kenpin.sight import Sight

Runtime = Literal["tensorrt", "onnxruntime"]


@dataclass(frozen=True)
class Scored:
    """What the model says about one frame: raw scores, higher is stranger.

    Attributes:
        score: The anomaly score that the thresholds judge.
        level_scores: Scores of the levels coarse, mid, fine.
        anomaly_map: Where it is strange, float32, shape (h, w).
    """

    score: float
    level_scores: tuple[float, float, float]
    anomaly_map: NDArray[np.float32]

    @property
    def is_finite(self) -> bool:
        """Whether every number is one. A single NaN means that the model cannot be believed."""
        return bool(np.isfinite([self.score, *self.level_scores]).all() and np.isfinite(self.anomaly_map).all())


class Engine(Protocol):
    """A loaded model.

    Attributes:
        runtime: What runs it.
        precision: Which of the bundle's models runs.
        input_size: Height and width of the model's input in pixels.
        sight: What of a camera frame the model is to be shown; `None` = all of it.
    """

    runtime: Runtime
    precision: Precision
    input_size: tuple[int, int]
    sight: Sight | None

    def score(self, image: Image) -> Scored:
        """Score one picture; it is brought to the model's size as `kenpin.preprocess.to_input` does.

        Args:
            image: What `kenpin.sight.take` gave of a camera frame, BGR uint8, shape (H, W, 3).

        Raises:
            DataError: The frame is not BGR uint8 (H, W, 3).
            EngineError: The engine does not take this size, does not run, or gives a number that is not finite.
            DeviceLost: The GPU cannot be used any more by this process.
        """
        ...

    def close(self) -> None:
        """Give back its memory; it cannot be used after that."""
        ...
