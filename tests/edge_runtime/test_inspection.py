from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kenpin.cutout import Cutout
from kenpin.edge_runtime import inspection
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.inspection import Desk, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.readiness import check_readiness
from kenpin.edge_runtime.source import Fault
from kenpin.edge_runtime.stuck_score import STUCK_AT
from kenpin.frame import Frame
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from kenpin.synthetic import draw_part
from kenpin.view import Box
from tests.edge_runtime.conftest import TIMEOUT_MS, Clock

CAMERAS = ("top", "side")


def judge(workshop: Any, *, live: tuple[str, ...] = ()) -> Judge:
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    look = Look(ready, cameras=CAMERAS, live=live)
    return Judge(Desk(ready, look, Identity("st1"), Counters(), timeout_ms=TIMEOUT_MS))


def view(camera: str, brightness: int | None) -> Frame | Fault:
    if brightness is None:
        return Fault("p", camera, Verdict.MISSED, f"{camera} is down")
    return Frame(np.full((20, 30, 3), brightness, np.uint8), "p", camera, frame_id=brightness + 1)


@pytest.mark.parametrize(
    ("top", "side", "verdict", "camera"),
    [
        (10, 20, "OK", "side"),
        (10, 150, "REVIEW", "side"),
        (150, 10, "REVIEW", "top"),
        (150, 250, "NG", "side"),
        (250, None, "NG", "top"),
        (10, None, "MISSED", "side"),
        (150, None, "MISSED", "side"),
        (None, None, "MISSED", "top"),
    ],
)
def test_the_worst_view_decides(
    workshop: Any, top: int | None, side: int | None, verdict: str, camera: str
) -> None:
    shot = Shot("p", 7, (view("top", top), view("side", side)))
    found = judge(workshop.ready()).inspect(shot)
    part = found.part
    assert (part.decision.verdict.value, part.camera, part.trigger_id) == (verdict, camera, 7)
    assert (part.ts_ms, part.captured_ns) in {
        (v.ts_ms, v.captured_ns) for v in shot.views if v.camera == camera
    }
    assert (found.event is not None) == (verdict in ("NG", "REVIEW"))
    assert found.cutout == (None if verdict == "MISSED" else Cutout(Box(0, 0, 30, 20), (30, 20)))
    decisive = next(v for v in shot.views if v.camera == camera)
    assert found.image is (decisive.image if isinstance(decisive, Frame) else None)
    if found.event is not None:
        assert (found.event.camera, found.event.ng_rate_window) == (camera, float(verdict == "NG"))
        assert part.region is not None
        assert (part.region.width, part.region.height) == (30, 20)


def test_who_only_watches_names_no_picture(workshop: Any) -> None:
    """A picture that somebody wants of the next part is the station's to keep, not that of a shadow."""

    def name(_verdict: Verdict) -> str:
        raise AssertionError

    ready = check_readiness(workshop.ready().folder, [workshop.signer.public])
    shadow = Judge(Desk(ready, Look(ready, cameras=CAMERAS), Identity("st1"), Counters(), TIMEOUT_MS, name))
    shot = Shot("p", 7, (view("top", 10), view("side", 150)))
    assert shadow.decide(shot).verdict is Verdict.REVIEW
    with pytest.raises(AssertionError):
        shadow.inspect(shot)


def test_light_and_focus_are_those_of_the_first_camera_whichever_decides(workshop: Any) -> None:
    station = judge(workshop.ready())
    top = Frame(np.random.default_rng(1).integers(0, 100, (20, 30, 3), np.uint8), "p", "top", frame_id=1)
    found = station.inspect(Shot("p", 1, (top, view("side", 150))))
    part, seen = found.part, measure(top.image)
    assert (part.camera, part.light, part.focus) == ("side", seen.light, seen.focus)
    assert found.quality is not None
    assert (found.quality.light, found.quality.clipped) == (seen.light, seen.clipped)
    assert seen.focus > 0
    part = station.inspect(Shot("p", 2, (view("top", None), view("side", 150)))).part
    assert (part.light, part.focus) == (None, None)


def test_a_bad_picture_is_no_decision_with_its_own_cause(workshop: Any) -> None:
    pictures = [draw_part("cap", seed=1, index=k, defect_share=0).image for k in range(30)]
    limits = learn_limits([measure(image) for image in pictures])
    workshop.calibrated(t1=300.0, t2=400.0, quality=limits)
    station = judge(workshop)
    good = Frame(pictures[0], "p", "top", frame_id=1)
    assert station.inspect(Shot("p", 1, (good,))).part.decision.verdict is Verdict.OK
    black = Frame(np.zeros_like(pictures[0]), "p", "top", frame_id=2)
    part = station.inspect(Shot("p", 2, (black,))).part
    decision = part.decision
    assert (decision.verdict, decision.cause, decision.scored) == (Verdict.NO_DECISION, "black", None)
    assert decision.reason.startswith("black picture: light 0, allowed ")
    assert part.light == 0.0
    # The limits were learned on the first camera and say nothing about the second.
    side = Frame(np.zeros_like(pictures[0]), "p", "side", frame_id=3)
    assert station.inspect(Shot("p", 3, (side,))).part.decision.verdict is Verdict.OK


def test_an_engine_that_fails_in_a_way_nobody_thought_of_is_no_decision(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = judge(workshop.ready())
    monkeypatch.setattr(station.ready.engine, "score", lambda _image: 1 / 0)
    decision = station.inspect(Shot("p", 1, (view("top", 10),))).part.decision
    assert (decision.verdict, decision.cause) == (Verdict.NO_DECISION, "engine")
    assert decision.reason == "internal error: ZeroDivisionError: division by zero"


def test_only_a_camera_whose_pictures_always_differ_is_watched_for_those_that_do_not(workshop: Any) -> None:
    station = judge(workshop.ready(), live=("top",))
    causes = {}
    for camera in (*CAMERAS, "none of them"):
        shots = [Shot("p", number, (view(camera, 10),)) for number in range(STUCK_AT)]
        causes[camera] = {station.inspect(shot).part.decision.cause for shot in shots}
    assert causes == {"top": {"", "frozen"}, "side": {""}, "none of them": {""}}


def test_how_long_the_engine_took_is_told(workshop: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    station = judge(workshop.ready())
    engine: Any = station.ready.engine
    score = engine.score
    monkeypatch.setattr(inspection, "time", clock)
    monkeypatch.setattr(engine, "score", lambda image: (clock.sleep(0.25), score(image))[1])
    assert station.inspect(Shot("p", 1, (view("top", 10),))).part.infer_ms == pytest.approx(250)


def test_an_engine_that_looks_at_nothing_is_found_out(workshop: Any) -> None:
    station = judge(workshop.ready(), live=("top",))
    rng = np.random.default_rng(1)
    verdicts = []
    for number in range(STUCK_AT + 1):
        image = rng.integers(0, 200, (16, 16, 3), np.uint8)
        image[0, 0] = 90  # the brightest pixel is the score: noise never reaches it
        image[1:] //= 4
        image[0, 1:] //= 4
        frame = Frame(image, "p", "top", frame_id=number)
        verdicts.append(station.inspect(Shot("p", number, (frame,))).part.decision)
    assert [d.verdict for d in verdicts[: STUCK_AT - 1]] == [Verdict.OK] * (STUCK_AT - 1)
    assert verdicts[-1].verdict is Verdict.NO_DECISION
    assert verdicts[-1].cause == "score"
