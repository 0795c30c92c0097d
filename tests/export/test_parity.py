"""Figures of the comparison, on outputs that are easy to count by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from kenpin.errors import ExportError
from kenpin.export.card import write_card
from kenpin.export.outputs import Outputs
from kenpin.export.parity import MAX_SQNR_DB, Forms, compare, operating_point, sqnr_db, stay_below

# 21 held-back good pictures (20 of them stay below 3.5, the middle between 2 and 5), then two good and three
# bad test pictures.
HELD_BACK = [1.0] * 19 + [2.0, 5.0]
SCORES = np.array([*HELD_BACK, 1.5, 4, 1, 5, 9], np.float32)
BAD = np.array([False, False, True, True, True])


def outputs(scores: NDArray[np.float32], noise: float = 0.0) -> Outputs:
    rng = np.random.default_rng(0)
    maps = np.broadcast_to(scores[:, None, None], (len(scores), 4, 4))
    noisy = (maps + noise * rng.standard_normal(maps.shape)).astype(np.float32)
    return Outputs(scores, np.stack([scores] * 3, 1), noisy)


def test_flips_are_counted_at_the_operating_point() -> None:
    # Higher, as if INT8 had an operating point of its own.
    int8 = np.array([*HELD_BACK[:-1], 6.0, 3.6, 3.4, 1, 3.4, 9], np.float32)
    parity = compare(Forms(outputs(SCORES), outputs(SCORES), outputs(int8)), BAD)
    assert parity.threshold == 3.5
    assert parity.new_false_calls == 1  # 1.5 -> 3.6
    assert parity.new_escapes == 1  # 5 -> 3.4
    assert parity.other_flips == 1  # 4 -> 3.4, a good one
    assert (parity.pictures, parity.test_good, parity.test_bad) == (26, 2, 3)
    assert parity.int8_shift.max == pytest.approx(2.1)
    assert parity.int8_shift.p99 == pytest.approx(1.975)  # a quarter of the way from it to the next, 1.6
    assert parity.onnx_shift.max == parity.onnx_relative == 0
    # Pairs of a good and a bad one in the right order: 4 of 6, then 2 and one draw.
    assert parity.auroc == pytest.approx({"torch": 4 / 6, "onnx": 4 / 6, "int8": 2.5 / 6})


@pytest.mark.parametrize(("good", "below"), [(5, 4), (18, 17), (19, 18), (20, 19), (21, 20), (100, 95)])
def test_of_few_good_parts_less_than_95_of_100_stay_below(good: int, below: int) -> None:
    scores = np.arange(good, dtype=np.float32)
    assert stay_below(good) == below == (scores < operating_point(scores)).sum()
    same = outputs(scores)
    told = compare(Forms(same, same, same), np.zeros(0, np.bool_)).passing
    assert told == f"{below} of {good} held-back good parts"


@pytest.mark.parametrize("bad", [False, True])
def test_with_test_pictures_of_one_class_there_is_no_auroc(*, bad: bool) -> None:
    same = outputs(SCORES)
    parity = compare(Forms(same, same, same), np.full(5, bad))
    assert parity.auroc == {}
    card = write_card(
        names=("cap", "1"), shown="whole pictures", lineage={}, parity=parity, how={"precision": "fp32"}
    )
    assert "not known: that needs good and bad test pictures" in card
    assert parity.sqnr_db == dict.fromkeys(("score", "level_scores", "anomaly_map"), MAX_SQNR_DB)
    assert compare(Forms(same, same, same), np.zeros(0, np.bool_)).threshold == 7


def test_int8_is_compared_with_the_float_onnx_model() -> None:
    parity = compare(Forms(outputs(SCORES * np.float32(1.0005)), outputs(SCORES), outputs(SCORES)), BAD)
    assert parity.onnx_shift.max > parity.int8_shift.max == 0
    assert parity.sqnr_db["score"] == MAX_SQNR_DB
    assert parity.threshold == 3.5


def test_the_card_of_a_bundle_without_int8_names_none() -> None:
    same = outputs(SCORES)
    parity = compare(Forms(same, same, same), BAD)
    card = write_card(
        names=("cap", "1"), shown="whole pictures", lineage={}, parity=parity, how={"precision": "fp32"}
    )
    assert "| onnx | 0.6667 |\n\nThere is no INT8 in this bundle." in card


def test_figures_are_plain_json() -> None:
    parity = compare(Forms(outputs(SCORES), outputs(SCORES), outputs(SCORES, noise=0.1)), BAD)
    assert json.loads(json.dumps(parity.to_json(), allow_nan=False))["int8_shift"] == {"max": 0.0, "p99": 0.0}


def test_another_float_model_is_refused() -> None:
    wrong = outputs(np.where(SCORES == 4, SCORES * 1.02, SCORES).astype(np.float32))
    with pytest.raises(ExportError, match=r"differs from the torch model by 8\.9e-03"):
        compare(Forms(outputs(SCORES), wrong, wrong), BAD)


@pytest.mark.parametrize("noise", [3.0, np.nan, np.inf])
def test_broken_int8_is_refused(noise: float) -> None:
    broken = outputs(SCORES, noise)
    with np.errstate(invalid="ignore"), pytest.raises(ExportError, match="INT8 destroys the model"):
        compare(Forms(outputs(SCORES), outputs(SCORES), broken), BAD)


@pytest.mark.parametrize("position", range(3))
def test_a_float_model_that_is_not_finite_is_refused(position: int) -> None:
    good = outputs(SCORES)
    parts = [good.score, good.level_scores, good.anomaly_map]
    parts[position] = parts[position].copy()
    parts[position].flat[-1] = np.nan
    with pytest.raises(ExportError, match="differs from the torch model by nan"):
        compare(Forms(good, Outputs(*parts), good), BAD)


def test_signal_to_noise() -> None:
    signal = np.array([0, 2] * 50, np.float32)
    assert sqnr_db(signal, signal + np.float32(0.1)) == pytest.approx(20, abs=0.01)
    # A constant says nothing: it must not count as signal.
    assert sqnr_db(signal + 1000, signal + np.float32(1000.1)) == pytest.approx(20, abs=0.1)
