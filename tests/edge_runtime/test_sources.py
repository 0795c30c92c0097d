from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kenpin.edge_runtime import sources, synthetic_source
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.source import Fault, FrameSource, without_login
from kenpin.edge_runtime.sources import make_source, make_sources
from kenpin.errors import ConfigError, SourceError
from kenpin.frame import Frame
from kenpin.synthetic import draw_part
from tests.edge_runtime.conftest import Clock, grey_png
from tests.edge_runtime.taken import take


def drain(source: FrameSource) -> list[Frame | Fault]:
    source.open()
    items = take(source, 1000)
    source.close()
    return items


def test_an_unknown_source_is_answered_with_every_kind() -> None:
    with pytest.raises(ConfigError) as caught:
        make_source("webcam")
    assert [scheme for scheme in sources._MAKE if f"{scheme}:" not in caught.value.cure] == []


@pytest.mark.parametrize("word", ["CANARY", "CANARY/1", "CANARY?1", "1?CANARY", "1?CANARY=2", "1@CANARY"])
def test_a_login_in_the_address_of_a_camera_is_refused_and_not_shown(word: str) -> None:
    for url in (f"rtsp://boss:{word}@host/path", f"rtsp:boss:{word}@host/path", f"rtsps://boss:{word}@host"):
        with pytest.raises(ConfigError) as error:
            make_source(url)
        assert "CANARY" not in str(error.value)
        assert "CANARY" not in without_login(url)
    assert without_login("rtsp://host/path?user=boss") == "rtsp://host/path"
    assert make_source("rtsp://host/path?user=a@b&password_file=p").camera == "rtsp-host"


@pytest.mark.parametrize(
    ("url", "what", "cure"),
    [
        ("foldr:x", "unknown source 'foldr'", "did you mean folder?"),
        ("x", "unknown source 'x'", "synthetic:board"),
        ("folder:x?rat=3", "has no option 'rat'", "did you mean rate?"),
        ("folder:", "names nothing", "folder:DIR"),
        ("folder:x?rate=fast", "rate=fast is not usable", "0 to 1000"),
        ("synthetic:board?rate=0", "rate=0 is not usable", "0.1 to 1000"),
        ("synthetic:board?rate=nan", "rate=nan is not usable", "0.1 to 1000"),
        ("synthetic:bord", "bord", "board"),
        ("usb:front", "not a camera's number", "usb:0"),
        ("usb:0?width=0", "width=0 is not usable", "1 to"),
    ],
)
def test_a_wrong_address_says_what_is_wrong_and_the_cure(url: str, what: str, cure: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_source(url)
    assert what in error.value.what
    assert cure in error.value.cure


def test_each_camera_of_a_station_has_a_name_of_its_own() -> None:
    urls = ["rtsp://nvr/1", "rtsp://nvr/2", "folder:a/good", "folder:b/good", "folder:c/good-2", "usb:1"]
    names = [source.camera for source in make_sources(urls)]
    assert names == ["rtsp-nvr", "rtsp-nvr-2", "good", "good-2", "good-2-2", "usb1"]


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("folder:{tmp}/none", "does not exist"),
        ("folder:{tmp}", "holds no picture"),
        ("video:{tmp}/none.mp4", "does not exist"),
        ("video:{tmp}/text.mp4", "not a video"),
        ("usb:97", "does not open"),
    ],
)
def test_what_does_not_open_says_so(tmp_path: Path, url: str, what: str) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(SourceError, match=what) as error:
        make_source(url.format(tmp=tmp_path)).open()
    assert error.value.cure


def test_a_folder_gives_every_picture_and_a_fault_for_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.png").write_bytes(grey_png(5))
    (tmp_path / "a.png").write_bytes(grey_png(6)[:-20])
    (tmp_path / "c.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture")
    cut, good, empty = drain(make_source(f"folder:{tmp_path}"))
    assert isinstance(good, Frame)
    assert (good.part_id, good.camera, good.image[0, 0, 0]) == ("b/1.png", tmp_path.name, 5)
    assert isinstance(cut, Fault)
    assert isinstance(empty, Fault)
    assert (cut.part_id, cut.verdict, cut.reason) == (
        "a.png",
        Verdict.NO_DECISION,
        "the picture file is cut short",
    )
    assert empty.reason == "the picture file is empty"


def test_a_file_name_that_is_not_utf8_can_be_stored(tmp_path: Path) -> None:
    Path(bytes(tmp_path).decode() + "/\udcff.png").write_bytes(grey_png(5))
    (item,) = drain(make_source(f"folder:{tmp_path}"))
    assert item.part_id.encode("utf-8") == b"\\udcff.png"


@pytest.mark.parametrize("scheme", ["folder", "replay", "video"])
def test_a_camera_named_after_a_file_or_folder_that_is_not_utf8_can_be_stored(
    scheme: str, tmp_path: Path
) -> None:
    assert make_source(f"{scheme}:{tmp_path}/M\udcfcll").camera == "M\\udcfcll"


def test_a_folder_keeps_its_rate_and_starts_over(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(grey_png(5))
    source = make_source(f"folder:{tmp_path}?rate=20&loop=1")
    source.open()
    start = time.monotonic()
    items = take(source, 5)
    assert time.monotonic() - start >= 0.2
    assert [item.part_id for item in items] == ["a.png", "b.png", "a.png", "b.png", "a.png"]


def test_every_frame_of_a_video_is_a_part(tmp_path: Path) -> None:
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for value in (0, 100, 200):
        writer.write(np.full((24, 32, 3), value, np.uint8))
    writer.release()
    items = drain(make_source(f"video:{path}"))
    assert [item.part_id for item in items] == ["line-000000", "line-000001", "line-000002"]
    assert isinstance(items[1], Frame)
    assert items[1].image.shape == (24, 32, 3)
    assert abs(int(items[1].image.mean()) - 100) < 5


def test_a_video_that_was_cut_short_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(10):
        writer.write(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    assert len(drain(make_source(f"video:{path}"))) == 10
    assert not caplog.messages
    path.write_bytes(path.read_bytes()[:18_000])
    given = len(drain(make_source(f"video:{path}")))
    assert 0 < given < 10
    assert caplog.messages == [
        f"{path} gave {given} pictures and says that it has 10: the rest cannot be read."
    ]


@pytest.fixture
def drawing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the drawn line."""
    monkeypatch.setattr(synthetic_source, "time", clock)
    monkeypatch.setattr(synthetic_source, "now_ms", lambda: round(clock.now_s * 1000))
    return clock


def test_drawn_parts_are_those_of_the_seed_and_come_in_time(drawing: Clock) -> None:
    source = make_source("synthetic:board?seed=3&rate=20&defects=1")
    start_s = drawing.now_s
    items = take(source, 4)
    assert source.drawn
    for index, item in enumerate(items):
        assert isinstance(item, Frame)
        assert item.part_id == f"board-3-{index:06d}"
        assert np.array_equal(item.image, draw_part("board", seed=3, index=index, defect_share=1).image)
        assert item.captured_ns / 1e9 - start_s == pytest.approx(index / 20)
    assert drawing.now_s - start_s == pytest.approx(0.15)


def test_parts_that_a_late_station_overran_are_missed_one_by_one(drawing: Clock) -> None:
    source = make_source("synthetic:cap?rate=40")
    (first,) = take(source, 1)
    assert isinstance(first, Frame)
    drawing.sleep(0.62)  # parts 1 to 24 became due, 8 frames wait, 1 to 16 were overrun
    missed, item = [], take(source, 1)[0]
    while isinstance(item, Fault):
        missed.append(item)
        item = take(source, 1)[0]
    assert len(missed) == 16
    assert [item.part_id for item in missed] == [f"cap-1-{k:06d}" for k in range(1, len(missed) + 1)]
    assert item.part_id == f"cap-1-{len(missed) + 1:06d}"
    assert all(item.verdict is Verdict.MISSED and "overrun" in item.reason for item in missed)
    assert missed[0].ts_ms == first.ts_ms + 25


def test_of_two_cameras_of_one_name_the_one_that_stands_still_is_found(workshop: Any, tmp_path: Path) -> None:
    folders = [tmp_path / "a/good", tmp_path / "b/good"]
    sources = make_sources([f"folder:{folder}" for folder in folders])
    look = Look(Readiness(), cameras=[s.camera for s in sources], live=[s.camera for s in sources])
    noise = np.random.default_rng(1)
    still = noise.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    found = []
    for number in range(20):
        for source in sources:
            moves = noise.integers(0, 255, (64, 64, 3)).astype(np.uint8)
            image = moves if source is sources[0] else still.copy()
            found.append(look.at(Frame(image, str(number), source.camera)).cause)
    assert "frozen" in found[1::2]
    assert "frozen" not in found[::2]
