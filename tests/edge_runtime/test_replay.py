from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kenpin.edge_runtime import replay_source
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.replay_source import INDEX
from kenpin.edge_runtime.source import Fault, Lull
from kenpin.edge_runtime.sources import make_source
from kenpin.errors import SourceError
from kenpin.frame import Frame
from kenpin.synthetic import draw_part
from tests.edge_runtime.conftest import Clock


def record(source: str, out: Path, frames: int) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "kenpin",
        "record",
        "--source",
        source,
        "--out",
        out,
        "--frames",
        str(frames),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def play(root: Path, speed: float = 0) -> list[Frame | Fault]:
    source = make_source(f"replay:{root}?speed={speed}")
    source.open()
    items: list[Frame | Fault] = []
    while (item := source.next(time.monotonic() + 1)) is not Lull.END:
        if not isinstance(item, Lull):
            items.append(item)
    return items


def test_what_was_recorded_is_played_with_its_own_times(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = record("synthetic:cap?rate=5", tmp_path / "new one", 5)
    assert done.returncode == 0, done.stderr
    assert f"--source 'replay:{tmp_path / 'new one'}'" in done.stderr
    monkeypatch.setattr(replay_source, "time", clock)
    started_s = clock.now_s
    items = play(tmp_path / "new one", speed=1)
    assert clock.now_s - started_s == pytest.approx(0.8)
    for index, item in enumerate(items):
        assert isinstance(item, Frame)
        assert item.part_id == f"cap-1-{index:06d}"
        assert np.array_equal(item.image, draw_part("cap", seed=1, index=index, defect_share=0.2).image)
    assert record("synthetic:cap", tmp_path / "new one", 1).returncode == 2


def test_gaps_repeats_and_faults_can_be_written_by_hand(tmp_path: Path) -> None:
    record("synthetic:cap?rate=10", tmp_path / "new", 2)
    lines = [json.loads(line) for line in (tmp_path / "new" / INDEX).read_text().splitlines()]
    lines[0]["trigger_id"], lines[1]["trigger_id"] = 5, 8
    lines[1]["file"] = lines[0]["file"]
    lines.append({"part_id": "x", "trigger_id": 9, "after_ns": 0, "reason": "no frame came"})
    lines.append({"part_id": "y", "trigger_id": 10, "after_ns": 0, "file": "gone.png"})
    (tmp_path / "new" / INDEX).write_text("\n".join(json.dumps(line) for line in lines))
    first, second, fault, gone = play(tmp_path / "new")
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert np.array_equal(first.image, second.image)
    assert [item.trigger_id for item in (first, second, fault, gone)] == [5, 8, 9, 10]
    assert [item.reason for item in (fault, gone) if isinstance(item, Fault)] == [
        "no frame came",
        "cannot read the picture: No such file or directory",
    ]


def test_a_recording_that_is_killed_can_be_played(tmp_path: Path) -> None:
    out = tmp_path / "new"
    command = [sys.executable, "-m", "kenpin", "record", "--source", "synthetic:cap?rate=50", "--out", str(out)]
    with subprocess.Popen([*command, "--frames", "100000"], stderr=subprocess.DEVNULL) as process:
        by_s = time.monotonic() + 180
        while len(list(out.glob("*.png"))) < 5 and time.monotonic() < by_s:
            time.sleep(0.02)
        process.kill()
    assert len(play(out)) >= 4


def test_a_picture_that_could_not_be_used_is_played_as_such(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.png").write_bytes(b"no picture")
    record(f"folder:{tmp_path / 'parts'}", tmp_path / "new", 1)
    (fault,) = play(tmp_path / "new")
    assert isinstance(fault, Fault)
    assert fault.verdict is Verdict.NO_DECISION


@pytest.mark.parametrize("source", ["synthetic:cap?trigger=1", "aravis:1?trigger=software"])
def test_a_camera_that_nobody_would_trigger_is_not_recorded_for_ever(tmp_path: Path, source: str) -> None:
    done = record(source, tmp_path / "new", 1)
    assert done.returncode == 2
    assert "nobody triggers this camera here" in done.stderr
    assert not (tmp_path / "new").exists()


def test_an_empty_recording_is_no_line_without_parts(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("")
    with pytest.raises(SourceError, match="holds no frame"):
        make_source(f"replay:{tmp_path}").open()


@pytest.mark.parametrize("line", ["{}", "x", '{"part_id": "a", "after_ns": 0, "file": "../a.png"}'])
def test_a_damaged_recording_is_said_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / INDEX).write_text(f"{line}\n")
    with pytest.raises(SourceError, match="recording is damaged") as error:
        make_source(f"replay:{tmp_path}").open()
    assert "line 1" in error.value.where


def test_one_that_was_mended_meanwhile_is_played_once(tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"part_id": f"p{n}", "after_ns": n, "reason": "gone"}) + "\r\n" for n in range(3)
    )
    (tmp_path / INDEX).write_bytes(
        b"\xef\xbb\xbf" + lines.encode() + b"{}\r\n"
    )  # as an editor of Windows saves it
    source = make_source(f"replay:{tmp_path}?speed=0")
    for _ in range(2):
        with pytest.raises(SourceError, match="recording is damaged"):
            source.open()
    (tmp_path / INDEX).write_bytes(b"\xef\xbb\xbf" + lines.encode())
    source.open()
    told = [source.next(time.monotonic() + 1) for _ in range(4)]
    assert [item.part_id for item in told if isinstance(item, Fault)] == ["p0", "p1", "p2"]
    assert told[-1] is Lull.END


def test_a_folder_without_a_recording_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read") as error:
        make_source(f"replay:{tmp_path}").open()
    assert "kenpin record" in error.value.cure
