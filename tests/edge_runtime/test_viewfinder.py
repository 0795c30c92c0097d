"""What a page shows of the last part; nothing is done while nobody looks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from kenpin.cutout import Cutout
from kenpin.edge_runtime import viewfinder
from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.inspection import Inspection
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.viewfinder import WATCHED_S, Viewfinder, paint, words
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from kenpin.view import Box


@pytest.fixture
def finder(tmp_path: Path) -> Iterator[Viewfinder]:
    made = Viewfinder(tmp_path)
    yield made
    made.close()


def picture(height: int = 60, width: int = 80, brightness: int = 90) -> Any:
    return np.full((height, width, 3), brightness, np.uint8)


def inspection(
    workshop: Any, *, hot: float = 0.0, cutout: Cutout | None = None, image: Any = None, **record: Any
) -> Inspection:
    """A part whose map is `hot` in its lower right quarter and 0 elsewhere."""
    heat = np.zeros((8, 8), np.float32)
    heat[4:, 4:] = hot
    scored = Scored(hot, (hot, hot, hot), heat)
    image = picture() if image is None else image
    part = Part(
        part_id="p1",
        camera="c",
        session_id="s",
        ts_ms=5,
        captured_ns=0,
        decision=Decision(Verdict.NG if hot >= 200 else Verdict.OK, scored=scored),
        infer_ms=1.0,
        model=Model("lamp-1", "a" * 64, "int8"),
        record=workshop.record(workshop.bundle(), **record),
    )
    height, width = image.shape[:2]
    return Inspection(part, image=image, cutout=cutout or Cutout.whole(picture(height, width)))


def test_nothing_is_written_while_nobody_looks(workshop: Any, tmp_path: Path, finder: Viewfinder) -> None:
    finder.offer(inspection(workshop))
    (tmp_path / "watched").touch()
    long_ago_s = time.time() - WATCHED_S - 1
    os.utime(tmp_path / "watched", (long_ago_s, long_ago_s))
    finder.offer(inspection(workshop))
    finder.close()
    assert not (tmp_path / "live.json").exists()


def test_who_looks_sees_the_part(workshop: Any, tmp_path: Path, finder: Viewfinder, wait_for: Any) -> None:
    (tmp_path / "watched").touch()
    finder.offer(inspection(workshop, hot=250.0))
    wait_for((tmp_path / "live.json").exists, "the words")
    told = json.loads((tmp_path / "live.json").read_text())
    assert (told["part_id"], told["verdict"], told["score"], told["t1"]) == ("p1", "NG", 250.0, 100.0)
    assert cv2.imread(str(tmp_path / "live.jpg")).shape == (60, 80, 3)


def test_the_memory_of_the_picture_may_be_used_again(workshop: Any, tmp_path: Path, finder: Viewfinder) -> None:
    (tmp_path / "watched").touch()
    image = picture()
    seen: list[Any] = []
    finder._write = lambda _name, data: seen.append(data)  # type: ignore[method-assign,assignment]
    finder._queue.put_nowait = lambda item: seen.append(item[1])  # type: ignore[method-assign]
    finder.offer(inspection(workshop, image=image))
    image[:] = 0
    assert (seen[0] == 90).all()


def test_not_more_than_four_times_a_second(
    workshop: Any, tmp_path: Path, finder: Viewfinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "watched").touch()
    finder.close()  # nothing is written: each part is seen where it is handed over
    now_s, shown = 1000.0, list[float]()
    clock = SimpleNamespace(monotonic=lambda: now_s, time=time.time)
    monkeypatch.setattr(viewfinder, "time", clock)
    finder._queue.put_nowait = lambda _item: shown.append(now_s)  # type: ignore[method-assign]
    part = inspection(workshop)
    for step in range(100):
        now_s = 1000.0 + step / 100
        finder.offer(part)
    assert shown == [1000.0, 1000.25, 1000.5, 1000.75]


@pytest.mark.parametrize(("hot", "is_red"), [(250.0, True), (40.0, False), (19.0, False)])
def test_red_is_where_the_part_differs(workshop: Any, hot: float, is_red: bool) -> None:
    image = picture()
    shown = paint(inspection(workshop, hot=hot), image).astype(int)
    upper_left, lower_right = shown[10, 10], shown[50, 70]
    assert upper_left.tolist() == [90, 90, 90]
    assert bool(lower_right[2] - lower_right[0] > 50) is is_red
    assert (image == 90).all()  # the frame itself is what the evidence keeps


def test_the_map_lies_where_the_view_was(workshop: Any) -> None:
    shown = paint(
        inspection(workshop, hot=250.0, cutout=Cutout(Box(0, 0, 40, 30), (80, 60))), picture()
    ).astype(int)
    assert shown[25, 35][2] - shown[25, 35][0] > 50
    assert shown[50, 70].tolist() == [90, 90, 90]


def test_the_map_is_turned_with_the_part(workshop: Any) -> None:
    """Half a turn: what is hot in the lower right of the map lies in the upper left of the frame."""
    cutout = Cutout(Box(0, 0, 80, 60), (80, 60), turn_deg=180, pivot=(39.5, 29.5))
    shown = paint(inspection(workshop, hot=250.0, cutout=cutout), picture()).astype(int)
    assert shown[10, 10][2] - shown[10, 10][0] > 50
    assert shown[50, 70].tolist() == [90, 90, 90]


def test_a_large_frame_becomes_small(workshop: Any) -> None:
    large = picture(1080, 1920)
    assert paint(inspection(workshop, image=large), large).shape == (450, 800, 3)


def test_the_frame_is_compared_with_the_sign_off(workshop: Any) -> None:
    chance = np.random.default_rng(1)
    base = chance.integers(60, 120, (60, 80, 3))
    frames = [np.clip(base + chance.normal(0, 2, base.shape), 0, 255).astype(np.uint8) for _ in range(30)]
    limits = learn_limits([measure(frame) for frame in frames])
    usual = words(inspection(workshop, image=frames[0], quality=limits), frames[0])
    darker = (frames[0] * 0.5).astype(np.uint8)
    dark = words(inspection(workshop, image=darker, quality=limits), darker)
    assert usual["light"] == pytest.approx(1.0, abs=0.05)
    assert dark["light"] == pytest.approx(0.5, abs=0.05)
    assert usual["match"] > 0.8  # type: ignore[operator]


def test_of_several_cameras_the_first_one_is_compared_whichever_decides(workshop: Any) -> None:
    first, side = picture(brightness=100), picture(brightness=30)
    limits = learn_limits([measure(first)] * 30)
    shown = replace(inspection(workshop, image=side, quality=limits), quality=measure(first))
    told = words(shown, side)
    assert (told["light"], told["light_abs"]) == (pytest.approx(1.0, abs=0.01), 100.0)


def test_a_disk_that_refuses_stops_nothing(
    workshop: Any, tmp_path: Path, finder: Viewfinder, caplog: pytest.LogCaptureFixture, wait_for: Any
) -> None:
    (tmp_path / "watched").touch()
    (tmp_path / ".live.jpg.part").mkdir()
    finder.offer(inspection(workshop))
    wait_for(lambda: "cannot be written" in caplog.text, "the warning")
    (tmp_path / ".live.jpg.part").rmdir()
    finder._due_s = 0.0
    (tmp_path / "watched").touch()
    finder.offer(inspection(workshop))
    wait_for((tmp_path / "live.json").exists, "the words")
