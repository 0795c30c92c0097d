"""How the view follows parts that lie turned."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import loose as gears
from kenpin.cutout import turned_about
from kenpin.errors import ConfigError, OutOfView
from kenpin.frame import Image
from kenpin.sight import Sight
from kenpin.synthetic import draw_part
from kenpin.view import Align, Box, View

SIZE = (320, 240)
ROI, TEMPLATE, SHIFT = Box(90, 50, 140, 140), Box(100, 60, 120, 120), 20
MIDDLE = (159.5, 119.5)


def loose(turn_deg: float = 0.0, right: int = 0, down: int = 0) -> Image:
    """A screw on a belt, turned and shifted: its two ends look much alike."""
    frame = np.full((SIZE[1], SIZE[0], 3), 190, np.uint8)
    cv2.rectangle(frame, (108, 104), (122, 136), (90, 90, 90), -1)
    cv2.rectangle(frame, (122, 112), (204, 128), (80, 80, 80), -1)
    for x in range(128, 200, 9):
        cv2.line(frame, (x, 112), (x + 4, 128), (40, 40, 40), 2)
    cv2.rectangle(frame, (204, 106), (212, 134), (90, 90, 90), -1)
    turn = turned_about(MIDDLE, turn_deg)
    turn[:, 2] += (right, down)
    return np.asarray(cv2.warpAffine(frame, turn, SIZE, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def sight(max_turn_deg: float = 180, reference: Image | None = None, **changed: Any) -> Sight:
    picture = cv2.imencode(".png", loose() if reference is None else reference)[1].tobytes()
    align = {"template": TEMPLATE, "max_shift_px": SHIFT, "max_turn_deg": max_turn_deg, **changed}
    view = View(
        frame_size=SIZE,
        roi=ROI,
        align=Align.model_validate(align),
        reference=hashlib.sha256(picture).hexdigest(),
    )
    return Sight(view, picture, where="here")


ANY_TURN = sight()


def _degrees_apart(one: float, other: float) -> float:
    return abs(math.remainder(one - other, 360))


@given(
    st.floats(-180, 180),
    st.integers(1 - SHIFT, SHIFT - 1),
    st.integers(1 - SHIFT, SHIFT - 1),
    st.floats(0.7, 1.3),
    st.integers(0, 99),
)
def test_the_view_turns_with_the_part(turn_deg: float, right: int, down: int, gain: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 4, (SIZE[1], SIZE[0], 3))
    frame = np.clip(loose(turn_deg, right, down) * gain + noise, 0, 255).astype(np.uint8)
    cutout = ANY_TURN.take(frame).cutout
    assert _degrees_apart(cutout.turn_deg, turn_deg) <= 1  # a pixel at the part's ends
    assert max(abs(cutout.box.x - ROI.x - right), abs(cutout.box.y - ROI.y - down)) <= 1


@pytest.mark.parametrize("turn_deg", [-120, -60, 30, 90, 150])
def test_light_that_falls_off_across_the_frame_does_not_turn_with_the_part(turn_deg: float) -> None:
    light = np.linspace(0.4, 1.3, SIZE[0])[:, None]
    lit = sight(reference=(loose() * light).astype(np.uint8), min_match=0.9)
    cutout = lit.take((loose(turn_deg, 5, -3) * light).astype(np.uint8)).cutout
    assert _degrees_apart(cutout.turn_deg, turn_deg) <= 1
    assert max(abs(cutout.box.x - ROI.x - 5), abs(cutout.box.y - ROI.y + 3)) <= 1


def test_a_part_that_looks_much_the_same_turned_is_told_apart_by_a_small_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gear of sixteen teeth, with shine that does not turn; its keyway is 25 pixels of 260."""
    turns: list[float] = []

    def noted(middle: tuple[float, float], turn_deg: float) -> Any:
        turns.append(turn_deg)
        return turned_about(middle, turn_deg)

    monkeypatch.setattr(gears, "turned_about", noted)
    frames = [gears.picture("gear", np.random.default_rng(n), is_bad=False)[0] for n in range(24)]
    picture = cv2.imencode(".png", frames[0])[1].tobytes()
    align = Align(template=Box(170, 90, 300, 300), max_shift_px=55, max_turn_deg=180)
    view = View(
        frame_size=(640, 480), roi=align.template, align=align, reference=hashlib.sha256(picture).hexdigest()
    )
    follows = Sight(view, picture, where="here")
    for frame, turn_deg in zip(frames, turns, strict=True):
        assert _degrees_apart(follows.take(frame).cutout.turn_deg, turn_deg - turns[0]) <= 1


@pytest.mark.parametrize("turn_deg", [-180, -137.4, -90, -2, 0.4, 1, 45, 88.5, 179.6])
def test_the_model_is_shown_the_part_as_it_lies_in_the_reference_picture(turn_deg: float) -> None:
    taken = ANY_TURN.take(loose(turn_deg, 7, -5))
    shown = taken.image.astype(int)
    assert _degrees_apart(taken.cutout.turn_deg, turn_deg) <= 0.3
    apart = np.abs(shown - loose()[ROI.slices])
    tail_first = np.abs(shown - loose()[ROI.slices][::-1, ::-1])
    assert apart.mean() < 0.6 * tail_first.mean()
    assert apart.mean() < 2.2  # grey levels: a pixel off at the edges of the part


def test_a_part_full_of_detail_is_found_at_every_turn() -> None:
    """Its match falls within a degree or two, so the turns that are tried first may miss it by some degrees."""
    drawn = draw_part("board", seed=1, index=0, defect_share=0).image
    board = np.asarray(cv2.resize(drawn, (240, 240), interpolation=cv2.INTER_AREA), np.uint8)
    frame = cv2.copyMakeBorder(board, 0, 0, 40, 40, cv2.BORDER_REFLECT)
    view = sight(reference=frame, template=Box(110, 70, 100, 100))
    for turn_deg in np.arange(-180, 180, 4.3):
        turn = turned_about(view.take(frame).cutout.pivot, turn_deg)
        turned = np.asarray(cv2.warpAffine(frame, turn, SIZE, borderMode=cv2.BORDER_REFLECT), np.uint8)
        assert _degrees_apart(view.take(turned).cutout.turn_deg, turn_deg) <= 1


def test_a_narrow_part_is_told_from_itself_turned_end_to_end() -> None:
    """Its template is thirty times as long as wide."""
    shaft = np.full((SIZE[1], 700, 3), 190, np.uint8)
    cv2.rectangle(shaft, (60, 112), (639, 127), (60, 60, 60), -1)
    cv2.rectangle(shaft, (90, 112), (130, 127), (95, 95, 95), -1)
    picture = cv2.imencode(".png", shaft)[1].tobytes()
    align = Align(template=Box(45, 110, 610, 20), max_shift_px=20, max_turn_deg=180)
    view = View(
        frame_size=(700, 240), roi=align.template, align=align, reference=hashlib.sha256(picture).hexdigest()
    )
    follows = Sight(view, picture, where="here")
    assert follows.take(shaft).cutout.turn_deg == pytest.approx(0, abs=0.5)
    assert abs(follows.take(shaft[::-1, ::-1].copy()).cutout.turn_deg) == pytest.approx(180, abs=0.5)


def test_a_part_that_is_turned_more_than_allowed_is_misplaced_and_farther_absent() -> None:
    ten = sight(max_turn_deg=10)
    assert abs(ten.take(loose(9)).cutout.turn_deg - 9) < 0.6
    assert abs(ten.take(loose(-9)).cutout.turn_deg + 9) < 0.6
    with pytest.raises(
        OutOfView, match=r"turned by 1[23]\.\d degrees clockwise, allowed 10 either way"
    ) as askew:
        ten.take(loose(13), where="0001.png")
    assert (askew.value.finding, askew.value.where) == ("misplaced", "0001.png")
    with pytest.raises(OutOfView, match=r"turned by -1[23]\.\d degrees"):
        ten.take(loose(-13))
    with pytest.raises(OutOfView, match="no part, or another one") as away:
        ten.take(loose(70))
    assert away.value.finding == "absent"


def test_no_turn_is_searched_unless_it_is_allowed() -> None:
    with pytest.raises(OutOfView, match="no part, or another one"):
        sight(max_turn_deg=0).take(loose(60))
    assert sight(max_turn_deg=0).take(loose()).cutout.turn_deg == 0


def test_turned_and_too_far_off_is_misplaced() -> None:
    with pytest.raises(OutOfView, match=r"shifted by 2[45] pixels to the right") as refused:
        ANY_TURN.take(loose(120, SHIFT + 5))
    assert refused.value.finding == "misplaced"


def test_an_empty_belt_is_no_part_however_it_is_turned() -> None:
    for level in (0, 190, 255):
        with pytest.raises(OutOfView, match="no part"):
            ANY_TURN.take(np.full((SIZE[1], SIZE[0], 3), level, np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    with pytest.raises(OutOfView, match="no part"):
        ANY_TURN.take(noise)


def test_a_round_part_tells_no_turn() -> None:
    washer = np.full((SIZE[1], SIZE[0], 3), 190, np.uint8)
    cv2.circle(washer, (160, 120), 50, (60, 60, 60), -1)
    cv2.circle(washer, (160, 120), 20, (190, 190, 190), -1)
    with pytest.raises(ConfigError, match="the same however it is turned") as refused:
        sight(reference=washer)
    assert "max_turn_deg" in refused.value.cure
    assert sight(max_turn_deg=0, reference=washer).take(washer).cutout.box == ROI


def test_what_is_ignored_turns_with_the_part() -> None:
    label = ((222, 100), (229, 100), (229, 140), (222, 140))  # on the belt, beside the template
    picture = cv2.imencode(".png", loose())[1].tobytes()
    ignoring = Sight(ANY_TURN.view.model_copy(update={"ignore": (label,)}), picture, where="here")
    turned = loose(50)
    marked = turned.copy()
    x, y = turned_about(MIDDLE, 50) @ (225.5, 120, 1)
    cv2.circle(marked, (round(x), round(y)), 2, (255, 255, 255), -1)
    assert _apart(ignoring, marked, turned) <= 3  # the mark moves the turn by next to nothing
    assert _apart(ANY_TURN, marked, turned) > 60
    mask = np.zeros_like(turned)
    mask[(marked != turned).any(2)] = 255
    assert not ignoring.take_mask(mask, ignoring.take(turned).cutout).any()
    assert set(np.unique(ANY_TURN.take_mask(mask, ANY_TURN.take(turned).cutout))) == {0, 255}


def _apart(view: Sight, one: Image, other: Image) -> int:
    return int(np.abs(view.take(one).image.astype(int) - view.take(other).image).max())
