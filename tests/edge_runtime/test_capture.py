"""The capture process, killed and stopped for real."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kenpin.edge_runtime.capture_wire import SILENCE_S
from kenpin.edge_runtime.captured_source import CapturedSource
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.frame_ring import RingReader, RingSize, RingWriter
from kenpin.edge_runtime.source import Fault, Lull, Trigger
from kenpin.edge_runtime.sources import make_source
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.frame import Frame
from kenpin.synthetic import draw_part
from tests.edge_runtime.conftest import grey_png
from tests.edge_runtime.taken import LIMIT_S, take

# How often a capture process is killed; a release run takes 200.
CYCLES = int(os.environ.get("KENPIN_CYCLES", "12"))
ROUND_S = 0.02

CHILD = """
import sys
from pathlib import Path
from kenpin.edge_runtime.capture import Capture
from kenpin.edge_runtime.roles import stop_signals
from kenpin.edge_runtime.sources import make_source
url, run, latest = sys.argv[1:]
with stop_signals() as stopping:
    Capture(make_source(url), Path(run), 0, latest=latest == "1").run(stopping)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str, *, latest: bool = False) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILD, url, str(tmp_path), str(int(latest))]
        started.append(subprocess.Popen(command))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], CapturedSource]]:
    """The station's end, once the process is there, however slow the machine is."""
    made: list[CapturedSource] = []

    def open_source(url: str) -> CapturedSource:
        made.append(CapturedSource(tmp_path, 0, make_source(url)))
        by_s = time.monotonic() + LIMIT_S
        while made[-1]._link is None and time.monotonic() < by_s:
            made[-1].open()
        return made[-1]

    yield open_source
    for source in made:
        source.close()


def test_frames_arrive_as_they_were_drawn(tmp_path: Path, start: Any, opened: Any) -> None:
    url = "synthetic:board?trigger=1"
    start(url)
    source = opened(url)
    for index in range(20):
        source.trigger(Trigger(index))
        (item,) = take(source, 1)
        assert isinstance(item, Frame)
        assert item.part_id == f"board-1-{index:06d}"
        assert item.frame_id == index + 1
        assert np.array_equal(item.image, draw_part("board", seed=1, index=index, defect_share=0.2).image)
        assert not item.image.flags.writeable


def test_a_slow_station_loses_no_picture_of_a_folder(tmp_path: Path, start: Any, opened: Any) -> None:
    for k in range(30):
        (tmp_path / f"{k:02d}.png").write_bytes(grey_png(k))
    url = f"folder:{tmp_path}"
    start(url)
    source = opened(url)
    seen = []
    while (item := source.next(time.monotonic() + 1)) is not Lull.END:
        if isinstance(item, Frame):
            seen.append(int(item.image[0, 0, 0]))
            time.sleep(0.01)
    assert seen == list(range(30))


def test_a_line_that_overruns_a_slow_station_misses_parts_one_by_one(
    tmp_path: Path, start: Any, opened: Any, wait_for: Any
) -> None:
    url = "synthetic:fabric?trigger=1"
    start(url)
    source = opened(url)
    for number in range(40):
        source.trigger(Trigger(number))
    (first,) = take(source, 1)
    overrun = 'dropped_total{stage="capture",reason="overrun",camera="synthetic-fabric"}'
    wait_for(lambda: read_vitals(tmp_path)["capture-0"].numbers[overrun] > 0, "an overrun")
    items = [first, *take(source, 39)]
    assert sorted(item.trigger_id or 0 for item in items) == list(range(40))
    missed = [item for item in items if isinstance(item, Fault)]
    assert missed
    assert all(item.verdict is Verdict.MISSED and "overrun" in item.reason for item in missed)


def test_of_a_camera_that_runs_freely_the_newest_picture_counts(
    tmp_path: Path, start: Any, opened: Any, wait_for: Any
) -> None:
    url = "synthetic:fabric?rate=15"
    start(url, latest=True)
    source = opened(url)
    told = 'dropped_total{stage="capture",reason="newer",camera="synthetic-fabric"}'

    def newest() -> int:
        while not isinstance(item := source.next(time.monotonic() + 1), Frame):
            assert item is not Lull.END
        assert item.frame_id is not None
        return item.frame_id

    first, first_ns = newest(), time.monotonic_ns()
    wait_for(lambda: read_vitals(tmp_path)["capture-0"].written_ns > first_ns, "a count of after it")
    before = read_vitals(tmp_path)["capture-0"].numbers[told]
    wait_for(lambda: read_vitals(tmp_path)["capture-0"].numbers[told] > before + 3, "newer ones")
    assert newest() - first > 3


def test_a_picture_that_was_damaged_on_the_way_is_no_frame() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    writer = RingWriter(RingSize.of(image, 2))
    reader = RingReader(os.dup(writer.handle), writer.size)
    writer.write(1, image)
    found = reader.read(1)
    assert found is not None
    assert np.array_equal(found, image)
    del found
    assert reader.read(0) is None  # never written
    assert reader.read(2) is None
    for at in (0, 8, 12, 20, 64, 64 + 8 * 90):
        writer._memory[writer.size.slot_bytes + at] ^= 1
        assert reader.read(1) is None, at
        writer._memory[writer.size.slot_bytes + at] ^= 1
        assert reader.read(1) is not None
    writer.close()


def test_a_larger_picture_gets_a_larger_ring(tmp_path: Path, start: Any, opened: Any) -> None:
    for k, size in enumerate((16, 300, 16, 900)):
        (tmp_path / f"{k}.png").write_bytes(grey_png(k, size))
    url = f"folder:{tmp_path}"
    start(url)
    source = opened(url)
    frames = take(source, 4)
    sizes = [f.image.shape[0] for f in frames if isinstance(f, Frame)]
    assert sizes == [16, 300, 16, 900]
    # A view of the first ring is still good memory.
    assert isinstance(frames[0], Frame)
    assert int(frames[0].image.sum()) == 0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def run_line(source: CapturedSource, stopped: threading.Event, sent: list[int]) -> None:
    while not stopped.is_set():
        sent.append(len(sent))
        source.trigger(Trigger(sent[-1]))
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_stopped_at_any_time_every_trigger_gets_one_answer(start: Any, opened: Any) -> None:
    url = "synthetic:fabric?trigger=1"
    process = start(url)
    source = opened(url)
    stopped, sent = threading.Event(), list[int]()
    line = threading.Thread(target=run_line, args=(source, stopped, sent))
    chance = random.Random(7)
    answers: list[int] = []

    def listen(seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """For how long nothing came, in seconds of rounds, of which a machine that is busy makes fewer."""
        by_s, silent_s = time.monotonic() + seconds, 0.0
        while time.monotonic() < by_s and not until():
            item = source.next(time.monotonic() + ROUND_S)
            if isinstance(item, Lull):
                silent_s += ROUND_S
                continue
            assert item.trigger_id is not None
            answers.append(item.trigger_id)
        return silent_s

    line.start()
    try:
        listen(LIMIT_S, until=lambda: bool(answers))
        threads, files = threading.active_count(), open_files()
        for cycle in range(CYCLES):
            listen(chance.uniform(0.02, 0.3))
            process.send_signal(signal.SIGSTOP if cycle % 4 == 3 else signal.SIGKILL)
            assert listen(LIMIT_S, until=lambda: bool(source.down_reason)) < SILENCE_S + 0.5
            assert source.down_reason
            process.kill()
            process.wait()
            process = start(url)
            listen(LIMIT_S, until=lambda: not source.down_reason)
            assert not source.down_reason
    finally:
        stopped.set()
        line.join()
    listen(LIMIT_S, until=lambda: len(answers) >= len(sent))
    assert sorted(answers) == sent
    assert threading.active_count() < threads  # the line has ended
    assert open_files() <= files
