"""Whether good parts are like those of the training."""

from __future__ import annotations

import pytest

from kenpin.calibration.likeness import Unlike, unlike

STATS = {"mean": 0.7, "std": 0.2, "p99": 1.2, "count": 26.0}


@pytest.mark.parametrize(
    ("scores", "stats", "expected"),
    [
        ([200.0] * 50, STATS, Unlike(200.0, 1.2)),
        ([0.7] * 25 + [200.0] * 24, STATS, None),  # most are what the model knows
        ([1.39] * 50, STATS, None),
        ([1.41] * 50, STATS, Unlike(1.41, 1.2)),
        ([200.0] * 4, STATS, None),
        ([200.0] * 50, {**STATS, "count": 9.0}, None),
        ([200.0] * 50, {}, None),
    ],
)
def test_half_of_the_parts_lie_beyond_what_the_training_saw(
    scores: list[float], stats: dict[str, float], expected: Unlike | None
) -> None:
    assert unlike(scores, stats) == expected
