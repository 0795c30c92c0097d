"""A bundle's manifest and a calibration record, of which each test says only what it looks at."""

from __future__ import annotations

from typing import Any

from kenpin.record import Bound, CalibrationRecord


def manifest(**changes: Any) -> dict[str, Any]:
    fields = {"product": "cap", "version": "7", "created_ms": 0, "min_runtime": "0.1.0"}
    model = {"input_shape": (1, 64, 64, 3), "golden": (), "golden_tolerance": 0.01, "score_stats": {}}
    return {**fields, **model, "lineage": {}, "metrics": {}, "quantization": {}, **changes}


def golden(score: float, levels: tuple[float, float, float]) -> dict[str, Any]:
    """A golden frame that both models score alike."""
    scores = {"score": score, "score_fp": score, "level_scores": levels, "level_scores_fp": levels}
    return {"file": "golden/0.png", **scores}


def record(**changes: Any) -> CalibrationRecord:
    """The first one: scores below 1 are OK, from 2 on NG."""
    fields: dict[str, Any] = {
        "rev": 1,
        "created_ms": 0,
        "bundle_sha256": "ab" * 32,
        "precision": "int8",
        "t1": 1.0,
        "t2": 2.0,
        "method": "chosen for the test",
        "good": {"a.png": 0.5},
        "masters": {},
        "false_calls": Bound(seen=0, of=3, bound=0.7, confidence=0.95),
        "caught": None,
        "by": "tester",
        "why": "test",
        "software": "0",
        "previous_sha256": "",
    }
    return CalibrationRecord(**{**fields, **changes})
