"""The decision on one part. Only OK releases it, and OK needs every precondition; all else fails to not OK."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from kenpin.edge_runtime.engine import Scored
from kenpin.precision import Precision
from kenpin.record import CalibrationRecord

LEVELS: tuple[Literal["coarse", "mid", "fine"], ...] = ("coarse", "mid", "fine")


class Verdict(str, Enum):
    """Exactly one per part."""

    OK = "OK"
    REVIEW = "REVIEW"
    NG = "NG"
    MISSED = "MISSED"
    NO_DECISION = "NO_DECISION"


DECIDED = (Verdict.OK, Verdict.REVIEW, Verdict.NG)  # the others say that there is no decision
WITHHELD = frozenset(("store", "deadline", "output"))  # causes for which an OK was not released all the same


@dataclass(frozen=True)
class Model:
    """What scores the parts, taken from a bundle that was verified.

    Attributes:
        name: Product and version.
        bundle_sha256: Identity of the bundle.
        precision: Which of its models runs.
        signed_by: Name of the key that signed the bundle.
        dataset_sha256: Of the list of pictures that it was trained on; empty where the bundle does not say.
        tensorrt: Version of TensorRT that runs it; empty where ONNX Runtime does.
        engine_sha256: Of the engine that TensorRT built of it; empty as above.
    """

    name: str
    bundle_sha256: str
    precision: Precision
    signed_by: str = ""
    dataset_sha256: str = ""
    tensorrt: str = ""
    engine_sha256: str = ""


@dataclass(frozen=True)
class Decision:
    """A verdict and what it rests on.

    Attributes:
        verdict: The verdict.
        reason: Why there is none of OK, REVIEW and NG, in words; empty for those.
        scored: The scores, where there are any.
        cause: The reason as one word of a fixed list, to count by; empty where there is no reason.
    """

    verdict: Verdict
    reason: str = ""
    scored: Scored | None = None
    cause: str = ""

    @property
    def judged(self) -> Verdict:
        """What the part was found to be, released or not: without such OK the bad parts would stand alone."""
        return Verdict.OK if self.cause in WITHHELD else self.verdict

    @property
    def level(self) -> Literal["", "coarse", "mid", "fine"]:
        """The level that is strangest: coarse, mid or fine; empty without scores."""
        if self.scored is None:
            return ""
        return LEVELS[self.scored.level_scores.index(max(self.scored.level_scores))]


def decide(scored: Scored, model: Model | None, record: CalibrationRecord | None) -> Decision:
    """Judge the scores of one part by the calibration record.

    Args:
        scored: What the engine gave.
        model: The verified model that gave it; `None` = not verified.
        record: The verified calibration record in force; `None` = not calibrated.

    Returns:
        NO_DECISION with the reason in words unless all of it is there, finite and belongs together.
    """
    reason = why_not(model, record)
    if reason:
        return Decision(Verdict.NO_DECISION, reason, scored, "not_ready")
    if not scored.is_finite:
        return Decision(Verdict.NO_DECISION, "the score is not a finite number", scored, "score")
    assert record is not None
    return Decision(judge(scored.score, record.t1, record.t2), scored=scored)


def why_not(model: Model | None, record: CalibrationRecord | None) -> str:
    """Why no part can be judged with this model and record, in words; empty when it can."""
    if model is None:
        return "no verified bundle"
    if record is None:
        return "not calibrated"
    if record.bundle_sha256 != model.bundle_sha256:
        return f"calibrated for bundle {record.bundle_sha256[:16]}, but {model.bundle_sha256[:16]} is active"
    if record.precision != model.precision:
        return f"calibrated for the {record.precision} model, but the {model.precision} model runs"
    if not (math.isfinite(record.t1) and math.isfinite(record.t2) and record.t1 <= record.t2):
        return "the thresholds of the calibration record are not usable"
    return ""


def judge(score: float, t1: float, t2: float) -> Verdict:
    """The one rule: a score below T1 is OK, from T2 on NG, between them REVIEW."""
    if score < t1:
        return Verdict.OK
    return Verdict.NG if score >= t2 else Verdict.REVIEW
