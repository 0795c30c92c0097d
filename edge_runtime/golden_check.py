"""The golden check: an engine proves on known frames that it is the model that was exported."""

from __future__ import annotations

from dataclasses import dataclass

from kenpin.bundle import Bundle
from kenpin.edge_runtime.engine import Engine
from kenpin.errors import EngineError
from kenpin.frame import decode_picture
from kenpin.precision import expected_score, tolerance_of

# The bundle's tolerance was measured between variants of ONNX Runtime on one processor. TensorRT differs from
# them in the same way (order of sums, sums near the middle of two INT8 steps) but in more layers, so it gets
# some times as much. How much it really needs has not been measured on a GPU: docs/tensorrt.md.
TRT_MARGIN = 3.0


@dataclass(frozen=True)
class GoldenScore:
    """One known frame.

    Attributes:
        file: Its name in the bundle.
        expected: Its score when the model was exported.
        score: Its score here.
    """

    file: str
    expected: float
    score: float

    @property
    def difference(self) -> float:
        """How far the score is off."""
        return abs(self.score - self.expected)


@dataclass(frozen=True)
class GoldenCheck:
    """All known frames of a bundle, scored by one engine.

    Attributes:
        scores: Their scores.
        tolerance: Largest difference that counts as the same model.
    """

    scores: tuple[GoldenScore, ...]
    tolerance: float

    @property
    def worst(self) -> GoldenScore:
        """The frame that is off the most."""
        return max(self.scores, key=lambda s: s.difference)

    @property
    def passed(self) -> bool:
        """Whether there are frames and each one is within the tolerance. A NaN is not."""
        return bool(self.scores) and all(s.difference <= self.tolerance for s in self.scores)


def check_golden(engine: Engine, bundle: Bundle) -> GoldenCheck:
    """Score a bundle's golden frames.

    Raises:
        DataError: A golden frame is not a picture.
        EngineError: The engine fails.
    """
    margin = TRT_MARGIN if engine.runtime == "tensorrt" else 1.0
    scores = []
    for golden in bundle.manifest.golden:
        image = decode_picture(bundle.files.get(golden.file, b""), where=golden.file)
        expected = expected_score(golden, engine.precision)
        scores.append(GoldenScore(golden.file, expected, engine.score(image).score))
    return GoldenCheck(tuple(scores), margin * tolerance_of(bundle.manifest, engine.precision))


def prove(engine: Engine, bundle: Bundle, *, cure: str) -> GoldenCheck:
    """Refuse an engine that scores a golden frame otherwise than the model did when it was exported.

    Args:
        engine: The engine.
        bundle: Where its model comes from.
        cure: What to do about it.

    Raises:
        EngineError: It names the frame that is off the most.
    """
    check = check_golden(engine, bundle)
    if not check.passed:
        off = [s for s in check.scores if not s.difference <= check.tolerance]
        what, where = "the bundle has no golden frames", "golden"
        if off:
            # All that the first devices can tell of the tolerance: the engine is not kept.
            worst = max(off, key=lambda s: s.difference)
            scored = f"{worst.score:.6g} instead of {worst.expected:.6g}"
            count = f"{len(off)} of {len(check.scores)} that are off by more than {check.tolerance:.3g}"
            what = f"the {engine.precision} model scores a known frame {scored}, the worst of {count}"
            where = worst.file
        raise EngineError(what, where=f"{bundle.path}: {where}", cure=cure)
    return check
