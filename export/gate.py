"""The accuracy gate: may INT8 take the place of float? Verdicts count, at the operating point.

A picture flips when float stops it and INT8 does not, or the other way round, at one threshold for both.
What a count of flips proves follows from the number of pictures: the bound is that of Clopper and Pearson
(Biometrika 26, 1934), one-sided and exact, for independent pictures. Pictures of one part, and several drawn
defects on one picture, are not quite independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from kenpin.errors import ExportError
from kenpin.export.outputs import Floats, Outputs
from kenpin.export.parity import count_flips, operating_point
from kenpin.frame import Image
from kenpin.train.data import MIN_HELD_BACK
from kenpin.train.metrics import auroc

Bools = NDArray[np.bool_]
Rows = Sequence[int]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Limits:
    """What the gate allows.

    Attributes:
        auroc_points: Largest |difference of the AUROC|, in points of a hundred. Of few pictures, where one pair
            in another order makes more than that, one pair is allowed.
        flip_share: Largest share of pictures whose verdict changes.
    """

    auroc_points: float = 0.2
    flip_share: float = 0.001


@dataclass(frozen=True)
class Judged:
    """The pictures that the gate looks at: G held-back good ones, T test pictures, then D with drawn defects.

    Attributes:
        pictures: BGR uint8 (N, H, W, 3).
        held_back: G.
        test_bad: (T,) true = bad.
        exact: What the float model says about them.
    """

    pictures: Image
    held_back: int
    test_bad: Bools
    exact: Outputs

    @property
    def bad(self) -> Bools:
        """Which of the pictures show a bad part, (N,)."""
        drawn = len(self.pictures) - self.held_back - len(self.test_bad)
        return np.concatenate([np.zeros(self.held_back, np.bool_), self.test_bad, np.ones(drawn, np.bool_)])

    @property
    def halves(self) -> tuple[list[int], list[int]]:
        """Pictures that choose what is INT8, and pictures that then tell what this is worth.

        Every second one of each kind; a drawn defect goes with the picture that it was drawn on.
        """
        first = self.held_back + len(self.test_bad)
        drawn = len(self.pictures) - first
        behind = np.arange(drawn) // max(drawn // self.held_back, 1)
        odd = np.concatenate([np.arange(self.held_back), np.arange(len(self.test_bad)), behind]) % 2 == 1
        return np.flatnonzero(~odd).tolist(), np.flatnonzero(odd).tolist()

    @property
    def threshold(self) -> float:
        """The operating point of the float model."""
        return operating_point(self.exact.score[: self.held_back])

    @property
    def spread(self) -> float:
        """Standard deviation of the float score over held-back good pictures."""
        return max(float(self.exact.score[: self.held_back].std()), 1e-6)

    @property
    def margins(self) -> Floats:
        """Distance of each float score from the operating point, (N,)."""
        return np.asarray(np.abs(self.exact.score - self.threshold), np.float32)


@dataclass(frozen=True)
class Judgement:
    """What the gate found.

    Attributes:
        pictures: Number of pictures.
        threshold: The operating point: a part above it is stopped.
        new_escapes: Bad parts that float stops and INT8 does not.
        new_false_calls: Good parts that INT8 stops and float does not.
        other_flips: Parts where INT8 is right and float is not; they count as flips as well.
        flip_bound: At most this share of such pictures flips, with CONFIDENCE.
        auroc_points: |difference of the AUROC|, in points of a hundred.
        auroc_over: What the AUROC was taken over.
        auroc_step: What one pair in another order makes, in points.
        nearest: Smallest distance of a float score from the operating point.
        largest_shift: Largest |difference of a score|.
        near: Pictures whose score moved at least half of the way to the operating point: nearly a flip.
    """

    pictures: int
    threshold: float
    new_escapes: int
    new_false_calls: int
    other_flips: int
    flip_bound: float
    auroc_points: float
    auroc_over: str
    auroc_step: float
    nearest: float
    largest_shift: float
    near: int

    @property
    def flips(self) -> int:
        """Pictures whose verdict changes."""
        return self.new_escapes + self.new_false_calls + self.other_flips

    def holds(self, limits: Limits) -> bool:
        """Whether the gate lets it pass. Numbers that are not finite never do."""
        few = self.flips <= limits.flip_share * self.pictures
        same = self.auroc_points <= max(limits.auroc_points, self.auroc_step) + 1e-9
        return few and same and bool(np.isfinite(self.largest_shift))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain numbers, rounded to six digits."""
        rounded = {n: float(f"{v:.6g}") if isinstance(v, float) else v for n, v in vars(self).items()}
        return {**rounded, "flips": self.flips, "confidence": CONFIDENCE}


def check_enough(held_back: int) -> None:
    """Refuse to judge what cannot be known.

    Raises:
        ExportError: Too few held-back good pictures.
    """
    if held_back < MIN_HELD_BACK:
        raise ExportError(
            f"{held_back} good pictures were held back from training, too few to know whether INT8 keeps the "
            f"verdicts (at least {MIN_HELD_BACK})",
            cure="train with at least 27, better 300 good parts, or export with --precision fp32",
        )


def judge(judged: Judged, changed: Outputs, rows: Rows | None = None) -> Judgement:
    """Compare verdicts at the operating point.

    Args:
        judged: The pictures and what float says.
        changed: What the other model says about the same pictures.
        rows: Which of the pictures count; without it all of them.
    """
    rows = range(len(judged.pictures)) if rows is None else rows
    threshold, bad, margins = judged.threshold, judged.bad[rows], judged.margins[rows]
    exact, scores = judged.exact.score[rows], changed.score[rows]
    flips = count_flips(exact, scores, bad, threshold=threshold)
    shift = np.abs(exact - scores)
    largest = float(np.where(np.isfinite(shift), shift, np.inf).max())
    return Judgement(
        pictures=len(bad),
        threshold=threshold,
        **flips,
        flip_bound=upper_bound(sum(flips.values()), len(bad)),
        **_auroc(judged, changed, rows),
        nearest=float(margins.min()),
        largest_shift=largest,
        near=int((margins <= 2 * shift).sum()),
    )


def upper_bound(seen: int, of: int) -> float:
    """The largest rate, with CONFIDENCE, at which `seen` of `of` independent pictures would flip."""
    return 1.0 if seen >= of else float(beta.ppf(CONFIDENCE, seen + 1, of - seen))


def flip_risk(judged: Judged, changed: Floats, rows: Rows) -> float:
    """How easily verdicts flip: mean of (shift of the score)^2 / (margin^2 + spread^2) over pictures.

    A shift far from the operating point changes no verdict, and one near it counts in full. By Chebyshev's
    inequality the first fraction without the spread bounds the chance of a flip.

    Args:
        judged: Pictures and what float says.
        changed: Scores of the other model for some of them, (R,).
        rows: Which ones, (R,).
    """
    shift = judged.exact.score[rows] - changed
    weight = judged.margins[rows] ** 2 + judged.spread**2
    risk = float(np.mean(shift**2 / weight))
    return risk if np.isfinite(risk) else np.inf


def _auroc(judged: Judged, changed: Outputs, rows: Rows) -> dict[str, Any]:
    tests = range(judged.held_back, judged.held_back + len(judged.test_bad))
    over, taken = "test pictures", [row for row in rows if row in tests]
    bad = judged.bad[taken]
    if bad.all() or not bad.any():
        over, taken = "held-back pictures and drawn defects", list(rows)
        bad = judged.bad[taken]
    before, after = (auroc(np.nan_to_num(s[taken]), bad) for s in (judged.exact.score, changed.score))
    pairs = int(bad.sum()) * int((~bad).sum())
    return {"auroc_points": 100 * abs(before - after), "auroc_over": over, "auroc_step": 100 / pairs}
