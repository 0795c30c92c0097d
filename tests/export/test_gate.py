"""The accuracy gate on outputs that are easy to count by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kenpin.errors import ExportError
from kenpin.export.gate import Judged, Limits, check_enough, flip_risk, judge, upper_bound
from kenpin.export.outputs import Outputs
from kenpin.export.parity import operating_point
from kenpin.pictures import read_good_bad
from kenpin.train.data import MIN_HELD_BACK, assign_roles

# 20 held-back good pictures, 2 good and 3 bad test pictures, 2 drawn defects.
SCORES = [*np.arange(20) / 10, 1.0, 1.95, 1.2, 3, 9, 1.8, 4]
TEST_BAD = np.array([False, False, True, True, True])


def outputs(scores: list[float]) -> Outputs:
    score = np.array(scores, np.float32)
    return Outputs(score, np.stack([score] * 3, 1), np.broadcast_to(score[:, None, None], (len(score), 4, 4)))


def judged(scores: list[float] = SCORES) -> Judged:
    return Judged(np.zeros((len(scores), 8, 8, 3), np.uint8), 20, TEST_BAD, outputs(scores))


def changed(**to: float) -> Outputs:
    scores = list(SCORES)
    for position, value in to.items():
        scores[int(position[1:])] = value
    return outputs(scores)


def test_the_operating_point_lies_between_two_good_parts() -> None:
    assert judged().threshold == pytest.approx(1.85)  # 19 of 20 below it
    assert operating_point(np.array([3, 1, 2], np.float32)) == 2.5
    assert operating_point(np.array([3], np.float32)) == 3


def test_nothing_flips() -> None:
    found = judge(judged(), outputs(SCORES))
    assert (found.flips, found.auroc_points, found.near, found.largest_shift) == (0, 0, 0, 0)
    assert found.pictures == 27
    assert found.nearest == pytest.approx(0.05)
    assert found.holds(Limits())


def test_halves_share_no_picture_and_no_part() -> None:
    """Drawn defects go with the picture that they were drawn on."""
    scores = [0.0] * (5 + 5 + 15)
    three_of_each = Judged(np.zeros((25, 8, 8, 3), np.uint8), 5, TEST_BAD, outputs(scores))
    choosing, others = three_of_each.halves
    assert sorted(choosing + others) == list(range(25))
    assert choosing == [0, 2, 4, 5, 7, 9, 10, 11, 12, 16, 17, 18, 22, 23, 24]
    assert Judged(np.zeros((25, 8, 8, 3), np.uint8), 20, TEST_BAD, outputs(scores)).halves[1][-2:] == [21, 23]


def test_some_of_the_pictures() -> None:
    """At the operating point of all; a flip among the others is not theirs."""
    found = judge(judged(), changed(n18=1.9, n23=1.7), rows=[0, 18, 20, 22])
    assert (found.pictures, found.flips, found.new_false_calls) == (4, 1, 1)
    assert found.threshold == judged().threshold
    assert found.flip_bound == pytest.approx(upper_bound(1, 4))
    assert found.auroc_step == pytest.approx(100)
    assert found.largest_shift == pytest.approx(0.1)
    assert judge(judged(), changed(n23=1.7), rows=[0, 18, 20, 22]).holds(Limits())
    assert judge(judged(), outputs(SCORES), rows=[0, 22]).nearest == pytest.approx(0.65)


def test_flips_of_each_kind() -> None:
    found = judge(judged(), changed(n18=1.9, n21=1.8, n23=1.7, n25=1.9))
    assert found.new_false_calls == 1  # a held-back one, 1.8 -> 1.9
    assert found.new_escapes == 1  # a bad one, 3 -> 1.7
    assert found.other_flips == 2  # a good one that passes now, and a drawn defect that is stopped
    assert found.flips == 4
    assert found.largest_shift == pytest.approx(1.3)
    assert found.near == 4
    assert not found.holds(Limits())
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["flips"] == 4


@pytest.mark.parametrize("position", ["n18", "n23", "n21", "n25"])
def test_one_flip_of_any_kind_closes_the_gate(position: str) -> None:
    other = {"n18": 1.9, "n23": 1.84, "n21": 1.84, "n25": 1.9}[position]
    found = judge(judged(), changed(**{position: other}))
    assert found.flips == 1
    assert not found.holds(Limits(auroc_points=100))
    assert found.holds(Limits(auroc_points=100, flip_share=1 / 27))


def test_one_flip_of_999_pictures_closes_the_gate() -> None:
    """As many as no export has: none may flip."""
    scores = [*SCORES, *[9.0] * (999 - len(SCORES))]
    assert judge(judged(scores), outputs(scores)).holds(Limits())
    assert not judge(judged(scores), outputs([*scores[:-1], 0])).holds(Limits())


def test_a_score_at_the_operating_point_is_passed() -> None:
    point = float(np.float32(judged().threshold))
    assert judge(judged(), changed(n18=point)).flips == 0
    assert judge(judged(), changed(n18=float(np.nextafter(np.float32(point), np.float32(9))))).flips == 1
    at_the_point = judged([*SCORES[:20], point, *SCORES[21:]])
    assert judge(at_the_point, changed(n20=point - 0.01)).flips == 0


def test_what_nearly_flips_is_told() -> None:
    found = judge(judged(), changed(n18=1.83))
    assert (found.flips, found.near) == (0, 1)


def test_the_auroc_counts_beyond_one_pair() -> None:
    many = [*np.arange(20) / 10, *np.arange(30) / 100, *(5 + np.arange(40) / 100)]
    bad = np.arange(70) >= 30
    exact = Judged(np.zeros((90, 8, 8, 3), np.uint8), 20, bad, outputs(many))
    # Three good test pictures above all bad ones cost 10 points, without a flip at a threshold above all.
    worse = list(many)
    worse[20:23] = [6, 6, 6]
    found = judge(exact, outputs(worse))
    assert found.auroc_over == "test pictures"
    assert found.auroc_points == pytest.approx(10)
    assert found.auroc_step == pytest.approx(100 / 1200)
    assert not found.holds(Limits(flip_share=1))
    assert found.holds(Limits(flip_share=1, auroc_points=10))
    # The one pair is in place of the limit, not on top of it.
    assert not found.holds(Limits(flip_share=1, auroc_points=9.95))
    # A good test picture above two of the bad ones costs 0.17 points, above three of them 0.25.
    for place, passes in ((2, True), (3, False)):
        worse[20:23] = [5.005 + (place - 1) / 100, *many[21:23]]
        assert judge(exact, outputs(worse)).holds(Limits(flip_share=1)) is passes
    # In another order, too, where that is a better one.
    better = judge(judged(), changed(n21=0.5))
    assert better.auroc_points == pytest.approx(100 / 6)


def test_few_pictures_may_change_one_pair() -> None:
    """Of 2 x 3 test pictures one pair makes 16.7 points: less than that cannot be asked for."""
    found = judge(judged(), changed(n22=0.9))  # 1.2 falls below the good one at 1.0
    assert found.auroc_points == pytest.approx(100 / 6)
    assert found.flips == 0
    assert found.holds(Limits())


@pytest.mark.parametrize(("test_bad", "bad"), [([], 2), ([True], 2), ([False], 1)])
def test_without_both_kinds_of_test_pictures_drawn_defects_stand_in(test_bad: list[bool], bad: int) -> None:
    scores = [*np.arange(20) / 10, 1.5, 4]
    exact = Judged(np.zeros((22, 8, 8, 3), np.uint8), 20, np.array(test_bad, np.bool_), outputs(scores))
    found = judge(exact, outputs(scores))
    assert found.auroc_over == "held-back pictures and drawn defects"
    assert found.auroc_step == pytest.approx(100 / (bad * (22 - bad)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_close_the_gate(value: float) -> None:
    found = judge(judged(), changed(n24=value))
    assert not found.holds(Limits(auroc_points=100, flip_share=1))


def test_bounds_of_clopper_and_pearson() -> None:
    # 1 - 0.05^(1/n) where nothing was seen, and tables for the others.
    assert upper_bound(0, 64) == pytest.approx(1 - 0.05 ** (1 / 64))
    assert upper_bound(0, 2995) == pytest.approx(0.001, rel=1e-3)
    assert upper_bound(1, 20) == pytest.approx(0.21611, abs=1e-5)
    assert upper_bound(5, 5) == 1


def test_too_few_to_know() -> None:
    check_enough(MIN_HELD_BACK)
    with pytest.raises(ExportError, match="too few to know") as caught:
        check_enough(MIN_HELD_BACK - 1)
    assert "--precision fp32" in caught.value.cure


def test_as_many_good_parts_as_the_refusal_asks_for_are_enough(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        check_enough(0)
    wanted = int(caught.value.cure.split()[4].rstrip(","))
    for number in range(wanted):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    for few, enough in ((0, True), (1, False)):
        (tmp_path / f"{few - 1}.png").unlink(missing_ok=True)
        # Without a test folder a fifth measures, and a fifth of the rest is held back.
        roles = assign_roles(read_good_bad(tmp_path, None), where=tmp_path, seed=0)
        assert (len(roles.held_back) >= MIN_HELD_BACK) is enough


def test_risk_counts_shifts_near_the_operating_point() -> None:
    exact, rows = judged(), [18, 24]
    here = flip_risk(exact, np.array([1.9, 9], np.float32), rows)
    far = flip_risk(exact, np.array([1.8, 9.1], np.float32), rows)
    assert here > 10 * far > 0
    spread = float(np.std(np.arange(20) / 10))
    assert here == pytest.approx(0.1**2 / (0.05**2 + spread**2) / 2, rel=1e-4)
    assert flip_risk(exact, np.array([np.nan, 9], np.float32), rows) == np.inf
    same = np.ones(27, np.float32)  # what every good part scores, and so the operating point
    assert flip_risk(judged(same.tolist()), same[:2], rows=[0, 1]) == 0
