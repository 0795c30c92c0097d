"""A station looks through the view of its bundle: at the part, where it lies, and at nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kenpin.calibration.cli import calibrate
from kenpin.cutout import turned_about
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.inspection import Desk, Inspection, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.readiness import check_readiness
from kenpin.errors import OutOfView
from kenpin.frame import Frame, Image
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from kenpin.record import load_records
from kenpin.signing import PublicKey
from tests.edge_runtime.conftest import TIMEOUT_MS

LABEL = ((100, 60), (140, 60), (140, 90), (100, 90))
SHIFT = 10


def scene(right: int = 0, down: int = 0, *, label: int = 90) -> Image:
    """A dark part with a mark to align by, a label of any brightness, and a bright belt around it."""
    frame = np.full((120, 160, 3), 255, np.uint8)
    x, y = right, down
    cv2.rectangle(frame, (20 + x, 20 + y), (145 + x, 105 + y), (80, 80, 80), -1)
    cv2.circle(frame, (50 + x, 46 + y), 8, (10, 10, 10), -1)
    cv2.rectangle(frame, (100 + x, 60 + y), (140 + x, 90 + y), (label,) * 3, -1)
    return frame


def png(image: Image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


REFERENCE = png(scene())
VIEW = {
    "frame_size": (160, 120),
    "roi": (36, 30, 109, 74),
    "ignore": (LABEL,),
    "align": {"template": (36, 32, 28, 28), "max_shift_px": SHIFT},
    "reference": hashlib.sha256(REFERENCE).hexdigest(),
}


@pytest.fixture
def bundle(workshop: Any) -> Any:
    return workshop.install(workshop.bundle(reference=REFERENCE, view=VIEW))


@pytest.fixture
def judge(workshop: Any, bundle: Any) -> Judge:
    workshop.calibrate(bundle)
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    look = Look(ready, cameras=["top"])
    return Judge(Desk(ready, look, Identity("st1"), Counters(), timeout_ms=TIMEOUT_MS))


def inspect(judge: Judge, image: Image, camera: str = "top") -> Inspection:
    return judge.inspect(Shot("p", 1, (Frame(image, "p", camera, frame_id=1),)))


@pytest.mark.parametrize(("right", "down"), [(0, 0), (-7, 5), (SHIFT, -SHIFT)])
def test_neither_the_label_nor_the_belt_is_judged(judge: Judge, right: int, down: int) -> None:
    """All of the belt is as bright as the worst defect, and so is a label."""
    frame = scene(right, down, label=255)
    before = frame.copy()
    found = inspect(judge, frame)
    assert found.part.decision.verdict.value == "OK"
    assert found.image is frame  # what is kept as evidence is the whole frame, label and all
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (-7, 5)])
def test_a_defect_is_told_in_frame_pixels(judge: Judge, right: int, down: int) -> None:
    frame = scene(right, down)
    cv2.rectangle(frame, (70 + right, 75 + down), (80 + right, 85 + down), (255, 255, 255), -1)
    found = inspect(judge, frame)
    assert found.part.decision.verdict.value == "NG"
    region, event = found.part.region, found.event
    assert region is not None
    assert event is not None
    # A pixel of the map is 7 x 5 pixels of the frame.
    np.testing.assert_allclose([region.x, region.x + region.width], [70 + right, 81 + right], atol=7)
    np.testing.assert_allclose([region.y, region.y + region.height], [75 + down, 86 + down], atol=5)
    assert (event.roi_x_px, event.roi_y_px) == (region.x, region.y)


def turned(turn_deg: float, *, defect: bool = False) -> Image:
    """A dark part that lies anyhow on a belt, heavier at one end; its defect is as bright as can be."""
    frame = np.full((120, 160, 3), 90, np.uint8)
    cv2.rectangle(frame, (50, 50), (110, 70), (40, 40, 40), -1)
    cv2.rectangle(frame, (50, 38), (64, 82), (20, 20, 20), -1)
    if defect:
        cv2.rectangle(frame, (90, 54), (98, 62), (255, 255, 255), -1)
    turn = turned_about((79.5, 59.5), turn_deg)
    return np.asarray(cv2.warpAffine(frame, turn, (160, 120), borderValue=(90, 90, 90)), np.uint8)


@pytest.mark.parametrize("turn_deg", [0, 90, -130])
def test_a_defect_on_a_turned_part_is_told_where_it_lies_in_the_frame(workshop: Any, turn_deg: float) -> None:
    reference = png(turned(0))
    view = {
        "frame_size": (160, 120),
        "roi": (30, 10, 100, 100),
        "align": {"template": (44, 24, 72, 72), "max_shift_px": 8, "max_turn_deg": 180},
        "reference": hashlib.sha256(reference).hexdigest(),
    }
    workshop.calibrate(workshop.install(workshop.bundle(reference=reference, view=view)))
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    judge = Judge(Desk(ready, Look(ready), Identity("st1"), Counters(), timeout_ms=TIMEOUT_MS))
    assert inspect(judge, turned(turn_deg)).part.decision.verdict.value == "OK"
    found = inspect(judge, turned(turn_deg, defect=True))
    region = found.part.region
    assert found.part.decision.verdict.value == "NG"
    assert region is not None
    middle = turned_about((79.5, 59.5), turn_deg) @ (94, 58, 1)
    lies = (region.x + region.width / 2, region.y + region.height / 2)
    np.testing.assert_allclose(lies, middle, atol=7)  # a pixel of the map is 6 of the frame
    assert found.image is not None
    assert found.image.shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("frame", "cause", "reason"),
    [
        (scene(SHIFT + 5), "misplaced", "the part lies elsewhere: shifted by 15 pixels"),
        (np.full((120, 160, 3), 255, np.uint8), "absent", "no part, or another one"),
        (np.zeros((100, 160, 3), np.uint8), "wrong_size", "160 x 100 pixels, not 160 x 120"),
    ],
    ids=["misplaced", "absent", "wrong size"],
)
def test_a_frame_without_the_part_in_its_place_is_never_judged(
    judge: Judge, frame: Image, cause: str, reason: str
) -> None:
    found = inspect(judge, frame)
    decision = found.part.decision
    assert (decision.verdict.value, decision.cause, decision.scored) == ("NO_DECISION", cause, None)
    assert reason in decision.reason
    assert found.event is None
    assert found.part.light is not None
    assert judge.look.findings() == {f'findings_total{{camera="top",finding="{cause}"}}': 1}


def test_an_empty_belt_is_no_lamp_that_has_changed(workshop: Any, bundle: Any) -> None:
    limits = learn_limits([measure(scene(number % 3)) for number in range(24)], place=False)
    workshop.calibrate(bundle, quality=limits)
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    judge = Judge(Desk(ready, Look(ready, cameras=["top"]), Identity("st1"), Counters(), timeout_ms=TIMEOUT_MS))
    dim = np.asarray(scene() * 0.6, np.uint8)
    empty, elsewhere = np.full_like(dim, 60), np.asarray(scene(SHIFT + 5) * 0.6, np.uint8)
    for frame, cause in ((empty, "absent"), (dim, "light_drift"), (elsewhere, "light_drift")):
        decision = inspect(judge, frame).part.decision
        assert decision.cause == cause
        assert "too dark: light" in decision.reason
    assert sorted(judge.look.findings().values()) == [1, 2]  # each frame counts once


def test_a_bundle_without_a_view_looks_at_the_whole_frame(workshop: Any) -> None:
    workshop.ready()
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    judge = Judge(Desk(ready, Look(ready, cameras=["top"]), Identity("st1"), Counters(), timeout_ms=TIMEOUT_MS))
    assert inspect(judge, scene()).part.decision.verdict.value == "NG"


def test_a_view_that_cannot_be_used_keeps_the_station_from_judging(workshop: Any) -> None:
    workshop.calibrate(workshop.install(workshop.bundle(reference=png(scene(1)), view=VIEW)))
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    assert ready.engine is None
    assert "reference.png is not the picture that the view was drawn on" in ready.fault


def fit(workshop: Any, folder: Path) -> Any:
    options = ["fit", "--good", folder, "--state", workshop.folder.root, "--trust", workshop.public_key]
    return CliRunner().invoke(calibrate, [str(o) for o in (*options, "--by", "Aiko")])


def test_calibration_scores_through_the_view(workshop: Any, bundle: Any, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    frames = [scene(number % 2, label=80 + number) for number in range(24)]
    for number, frame in enumerate(frames):
        (tmp_path / "good" / f"{number:02}.png").write_bytes(png(frame))
    without_view = learn_limits([measure(frame) for frame in frames])
    assert without_view is not None
    assert without_view.reference
    done = fit(workshop, tmp_path / "good")
    assert done.exit_code == 0, done.output + repr(done.exception)
    key = PublicKey.load(workshop.folder.public_key)
    record = load_records(workshop.folder.records, key)[-1]
    assert set(record.good.values()) == {90.0}  # the label of the reference picture, whatever they carry
    assert record.quality is not None
    assert record.quality.reference == ""  # the view follows the part: the gate asks for no place of its own
    (tmp_path / "good" / "23.png").write_bytes(png(scene(SHIFT + 5)))
    refused = fit(workshop, tmp_path / "good").exception
    assert isinstance(refused, OutOfView)
    assert refused.where == str(tmp_path / "good" / "23.png")
