from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kenpin.edge_runtime.quality_gate import QualityGate
from kenpin.edge_runtime.stuck_score import STUCK_AT, StuckScore
from kenpin.errors import DataError
from kenpin.frame import Image
from kenpin.quality import locate, measure
from kenpin.quality_limits import LEAST, Finding, QualityLimits, learn_limits, light_limits
from kenpin.synthetic import draw_part

Ramp = NDArray[np.float32]
FROM_ONE_SIDE: Ramp = np.linspace(0, 1, 256, dtype=np.float32)[:, np.newaxis]


def parts(product: str, count: int, first: int = 0) -> list[Image]:
    return [draw_part(product, seed=9, index=k, defect_share=0).image for k in range(first, first + count)]


@pytest.fixture(scope="module")
def limits() -> QualityLimits:
    learned = learn_limits([measure(image) for image in parts("board", 60)])
    assert learned is not None
    return learned


def finding(limits: QualityLimits, image: Image) -> str:
    found = QualityGate(limits, live=False).check(image)
    return found[0].value if found else ""


def gain(image: Image, factor: float | Ramp) -> Image:
    return np.clip(image.astype(np.float32) * factor, 0, 255).astype(np.uint8)


def tint(image: Image, *, red: float = 1.0, blue: float = 1.0) -> Image:
    return np.clip(image.astype(np.float32) * np.float32([blue, 1.0, red]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image: image, ""),
        (np.zeros_like, "black"),
        (lambda image: gain(image, 0.6), "light_drift"),
        (lambda image: gain(image, 1.4), "over_exposed light_drift"),
        (lambda image: gain(image, FROM_ONE_SIDE), "light_drift"),  # a part matches less, but it is there
        (lambda image: np.full_like(image, 255), "over_exposed"),
        (lambda image: tint(image, red=1.04, blue=0.98), ""),
        (lambda image: tint(image, red=0.85), "colour_drift"),
        (lambda image: tint(image, blue=0.85), "colour_drift"),
        (lambda image: np.dstack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)] * 3), "colour_drift"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 2.0), "blurred"),
        (lambda image: cv2.blur(image, (9, 1)), "blurred"),
        (lambda image: cv2.blur(image, (1, 9)), "blurred"),
        (lambda image: np.roll(image, 20, axis=1), "misplaced"),
        (lambda image: np.roll(image, -20, axis=0), "misplaced"),
        (lambda image: np.ascontiguousarray(image[::-1]), "absent"),
        (lambda image: np.ascontiguousarray(image[:200]), "wrong_size"),
    ],
)
def test_each_kind_of_bad_frame_is_called_by_its_name(
    limits: QualityLimits, change: Callable[[Image], Image], expected: str
) -> None:
    for image in parts("board", 10, first=200):
        assert finding(limits, change(image)) in (expected.split() or [""])


@pytest.mark.parametrize("product", ["board", "cap"])
@pytest.mark.parametrize(("grey", "lit"), [(45, "too dark"), (240, "too bright")])
def test_an_empty_place_is_no_lamp_that_has_changed(product: str, grey: int, lit: str) -> None:
    """It is darker or brighter than a part, and whoever cleans the lamp for it looks in the wrong place."""
    learned = learn_limits([measure(image) for image in parts(product, 30)])
    assert learned is not None
    empty = np.random.default_rng(1).normal(grey, 3, (256, 256, 3)).clip(0, 249).astype(np.uint8)
    found = QualityGate(learned, live=False).check(empty)
    assert found is not None
    assert found[0] is Finding.ABSENT
    assert f"; {lit}: light " in found[1]


def test_the_words_name_the_number_and_the_limit(limits: QualityLimits) -> None:
    found = QualityGate(limits, live=False).check(gain(parts("board", 1)[0], 0.6))
    assert found is not None
    assert found[1].startswith("too dark: light ")
    assert "allowed" in found[1]


def test_a_frame_that_is_none_is_an_error() -> None:
    with pytest.raises(DataError, match="uint8"):
        QualityGate(None, live=False).check(np.zeros((10, 10), np.uint8))


def test_the_same_picture_once_more_means_frozen() -> None:
    """The part that stands before the camera then was not seen: it must not pass as the one before it."""
    image, other = parts("cap", 2)
    gate = QualityGate(None, live=True)
    assert gate.check(image) is None
    found = gate.check(image)
    assert found is not None
    assert found[0] is Finding.FROZEN
    assert gate.check(image) is not None
    assert gate.check(other) is None


def test_a_light_that_is_out_is_not_called_a_frozen_camera(limits: QualityLimits) -> None:
    gate = QualityGate(limits, live=True)
    for _ in range(3):
        found = gate.check(np.zeros_like(parts("board", 1)[0]))
        assert found is not None
        assert found[0] is Finding.BLACK


def test_a_camera_without_limits_keeps_its_size() -> None:
    gate = QualityGate(None, live=True)
    small, large = (np.random.default_rng(k).integers(0, 256, (8, 8 + k, 3), np.uint8) for k in (0, 1))
    assert gate.check(small) is None
    assert gate.check(large) == (Finding.WRONG_SIZE, "the frame is 9 x 8 pixels, the frames before were 8 x 8")
    assert gate.check(small) is None
    files = QualityGate(None, live=False)
    assert files.check(small) is None
    assert files.check(large) is None


def test_files_may_repeat() -> None:
    (image,) = parts("cap", 1)
    gate = QualityGate(None, live=False)
    assert [gate.check(image) for _ in range(5)] == [None] * 5


def test_a_live_picture_with_hardly_any_noise_is_not_frozen() -> None:
    rng = np.random.default_rng(3)
    still = rng.integers(20, 230, (64, 96, 3)).astype(np.float32)
    gate = QualityGate(None, live=True)
    for _ in range(3000):
        noisy = still + rng.standard_normal(still.shape, dtype=np.float32) * np.float32(0.2)
        assert gate.check(np.rint(noisy).astype(np.uint8)) is None


@pytest.mark.parametrize("product", ["fabric", "metal", "board", "cap"])
def test_fresh_good_parts_are_not_stopped(product: str) -> None:
    limits = learn_limits([measure(image) for image in parts(product, 50)])
    assert limits is not None
    assert [finding(limits, image) for image in parts(product, 150, first=500)] == [""] * 150


def test_of_two_pictures_in_different_light_nothing_is_known() -> None:
    low, high = light_limits([80.0, 120.0])
    assert low == 0.0
    assert high > 255


def test_a_texture_has_no_place_and_a_part_has_one() -> None:
    textile = learn_limits([measure(image) for image in parts("fabric", 30)])
    board = learn_limits([measure(image) for image in parts("board", 30)])
    assert textile is not None
    assert board is not None
    assert not textile.reference
    assert board.reference


def test_the_shift_is_measured_in_shares_of_the_frame() -> None:
    (image,) = parts("board", 1)
    place = locate(measure(np.roll(image, 16, axis=1)).small, measure(image).small)
    assert place.shift == pytest.approx(16 / 256, abs=0.01)
    assert place.match > 0.95


@pytest.mark.parametrize("height", range(1, 7))
def test_a_frame_of_a_few_rows_is_measured(height: int) -> None:
    image = np.full((height, 9, 3), 100, np.uint8)
    seen = measure(image)
    assert (seen.light, seen.focus, seen.clipped) == (100, 0, 0)
    assert (seen.small == 100).all()


@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (480, 640), (256, 256)])
def test_focus_and_the_small_picture_are_those_of_the_plain_formulas(size: tuple[int, int]) -> None:
    image = cv2.resize(parts("board", 1)[0], size[::-1])
    seen = measure(image)
    step = size[0] // 135
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(int)
    here = grey[2 : size[0] - 2 : step]
    down = 2 * here - grey[: size[0] - 4 : step] - grey[4 : size[0] : step]
    across = 2 * here[:, 2:-2] - here[:, :-4] - here[:, 4:]
    bent = min((down**2).mean(), (across**2).mean())
    assert seen.focus == pytest.approx(bent / here.mean() ** 2)
    small = cv2.resize(here.astype(np.uint8), seen.small.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(seen.small.astype(int) - small).max() <= 1
    assert seen.small.shape == tuple(round(160 * side / max(size)) for side in size)


def test_too_few_pictures_teach_no_limits() -> None:
    assert learn_limits([measure(image) for image in parts("cap", LEAST - 1)]) is None


def test_a_grey_camera_that_delivers_colour_is_told(limits: QualityLimits) -> None:
    grey = [np.ascontiguousarray(np.dstack([image[:, :, 1]] * 3)) for image in parts("board", 30)]
    learned = learn_limits([measure(image) for image in grey])
    assert learned is not None
    assert learned.colour == (pytest.approx((1 / 1.05, 1.05)), pytest.approx((1 / 1.05, 1.05)))
    assert finding(learned, grey[0]) == ""
    found = QualityGate(learned, live=False).check(tint(grey[0], red=1.1))
    assert found is not None
    assert found[1].startswith("another colour: red over green 1.0")


def test_limits_of_before_colour_was_looked_at_are_signed_without(limits: QualityLimits) -> None:
    assert "colour" in limits.model_dump()
    before = limits.model_copy(update={"colour": None})
    assert "colour" not in before.model_dump(mode="json")
    assert QualityLimits.model_validate(before.model_dump()) == before
    assert finding(before, tint(parts("board", 1)[0], red=0.5)) != "colour_drift"


def test_limits_survive_being_written_down(limits: QualityLimits) -> None:
    again = QualityLimits.model_validate_json(limits.model_dump_json())
    assert again == limits
    reference = again.reference_picture()
    assert reference is not None
    assert reference.shape == (160, 160)


def test_a_score_that_never_changes_is_not_believed() -> None:
    watch = StuckScore()
    assert [watch.check(1.5) for _ in range(STUCK_AT - 1)] == [""] * (STUCK_AT - 1)
    assert "same score" in watch.check(1.5)
    assert watch.check(1.6) == ""


@pytest.mark.parametrize(("count", "pictures"), [(20, 1), (20, 5), (50, 5)])
def test_limits_hold_for_999_of_1000_frames_in_19_of_20_cases_however_many_pictures_show_a_part(
    count: int, pictures: int
) -> None:
    """Pictures of one part are alike: counted one by one they say the limits are known better than they are."""
    random, held, cases = np.random.default_rng(3), 0, 400
    whole = NormalDist(sigma=math.hypot(0.10, 0.02))
    for _ in range(cases):
        logs = random.normal(0, 0.10, (count, 1)) + random.normal(0, 0.02, (count, pictures))
        low, high = light_limits([100 * math.exp(x) for x in logs.ravel()], parts=count)
        held += whole.cdf(math.log(high / 100)) - whole.cdf(math.log(low / 100)) >= 0.999
    assert held >= 0.91 * cases  # chance moves 0.95 by 0.011
