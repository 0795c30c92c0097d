"""The demo: its pieces, and once the whole of it, small."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kenpin import demo_steps
from kenpin.config_file import load_config
from kenpin.demo import _make_line, demo
from kenpin.demo_data import Folders, draw_pictures, split_four, split_pictures
from kenpin.demo_result import StoredPart, Times, compare
from kenpin.demo_steps import Journal, Plan
from kenpin.errors import ConfigError, DataError
from kenpin.folder_names import GOOD
from kenpin.picture_files import list_pictures
from kenpin.pictures import Picture
from kenpin.signing import PublicKey, SecretKey
from kenpin.synthetic import draw_part

SMALL = ["--steps", "4", "--size", "64", "--parts", "30"]


def run_demo(folder: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "kenpin", "demo", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children_below(folder: Path) -> list[str]:
    """Command lines of processes that were started for a demo in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            here = str((entry / "cwd").readlink()).startswith(str(folder))
            if here and ("kenpin" in words or "mosquitto" in words[0]):
                found.append(" ".join(words))
    return found


@pytest.mark.slow
def test_the_whole_line(tmp_path: Path) -> None:
    process = run_demo(tmp_path, *SMALL, "--json")
    output, messages = process.communicate(timeout=600)
    assert process.returncode == 0, messages
    document = json.loads(output)
    line = document["line"]
    assert line["parts"] == 30
    assert line["events"]["agree"]
    assert line["events"]["written"] > 0
    assert sum(n for counts in line["verdicts"].values() for n in counts.values()) == 30
    assert line["verdicts"]["NO_DECISION"] == {"good": 0, "bad": 0}
    assert line["escapes"] == line["verdicts"]["OK"]["bad"]
    assert document["run"]["engine_precision"] == document["calibrate"]["record"]["precision"]
    assert (tmp_path / document["report"]).is_file()
    for command in ("train", "bundle keygen", "export", "bundle install", "calibrate fit", "run"):
        assert f"$ kenpin {command} " in messages
    assert "written" in messages
    assert children_below(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_training_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = run_demo(tmp_path, "--steps", "1000", "--size", "64")
    end = time.monotonic() + 300
    while not (tmp_path / "demo" / "run" / "metrics.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(number)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 130, messages
    assert "ending the step: train" in messages
    assert children_below(tmp_path) == []


def test_a_step_that_does_not_end_when_it_is_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_steps, "_END_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of a background shell it is ignored
    interrupt = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    started_s = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            demo_steps._run([sys.executable, "-c", deaf], "deaf")
    finally:
        interrupt.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started_s < 60


def test_a_failing_step_is_named_and_its_exit_code_kept(tmp_path: Path) -> None:
    process = run_demo(tmp_path, "--size", "63", "--json")
    output, messages = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "--size 63 cannot be used" in messages
    assert "FAILED at the step: train" in messages
    assert output == ""
    assert children_below(tmp_path) == []


def test_a_broker_that_is_away_is_said_before_the_work(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, ["--broker", "mqtt://127.0.0.1:1", "--out", str(tmp_path / "d")])
    assert "no broker answers" in str(result.exception)
    assert not (tmp_path / "d" / "pictures").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("words")
    result = CliRunner().invoke(demo, ["--out", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "not the folder of an earlier demo" in str(result.exception)
    assert (tmp_path / "thesis.tex").read_text() == "words"


def test_the_station_needs_no_port_and_what_can_be_made_before_the_training_is(tmp_path: Path) -> None:
    plan = Plan(tmp_path, None, "cap", 3, ())
    _make_line(plan, Journal(), "mqtt://127.0.0.1:1883")
    config = load_config(plan.config)
    assert config.health.listen == ""
    assert PublicKey.load(config.station.trusted_keys[0]) == SecretKey.load(plan.key).public


def test_drawn_pictures_and_the_truth_of_the_line(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    line = draw_pictures("metal", folders, parts=40)
    assert len(list_pictures(folders.training)) == 160
    assert len(list_pictures(folders.calibration)) == 60
    assert len(list_pictures(folders.masters)) == 12
    assert line.source.startswith("synthetic:metal?seed=4&rate=10&defects=0.2")
    assert len(line.truth) == 40
    for index in (0, 7, 39):
        part = draw_part("metal", seed=4, index=index, defect_share=0.2)
        assert line.truth[f"metal-4-{index:06d}"] == part.label


def pictures_of(labels: Sequence[str], *, per_group: int, prefix: str) -> list[Picture]:
    return [
        Picture(Path(f"{prefix}/{k}.png"), label, f"{prefix}{k // per_group}") for k, label in enumerate(labels)
    ]


@given(train=st.integers(20, 80), good=st.integers(0, 60), bad=st.integers(0, 60), per_group=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_no_part_is_on_two_sides(train: int, good: int, bad: int, per_group: int) -> None:
    learn = pictures_of([GOOD] * train, per_group=per_group, prefix="a")
    test = pictures_of([GOOD] * good + ["hole"] * bad, per_group=per_group, prefix="b")
    split = split_four(learn, test)
    sides = (split.training, split.calibration, split.masters, split.line)
    groups = [{p.group for p in side} for side in sides]
    for one in range(4):
        for other in range(one):
            assert not groups[one] & groups[other]
    assert {p.label for p in split.training} == {p.label for p in split.calibration} == {GOOD}
    assert GOOD not in {p.label for p in split.masters}
    assert {p.path for side in sides for p in side} <= {p.path for p in [*learn, *test]}
    assert len(split.calibration) >= (train + good) / 12
    assert len(groups[2]) <= 13


def test_a_third_of_the_good_ones_is_kept_from_training() -> None:
    split = split_four(pictures_of([GOOD] * 90, per_group=1, prefix="a"), [])
    assert (len(split.training), len(split.calibration), len(split.line)) == (60, 15, 15)
    assert split.masters == []


def test_too_few_parts() -> None:
    with pytest.raises(DataError, match="too few parts"):
        split_four(pictures_of([GOOD] * 6, per_group=6, prefix="a"), [])


@pytest.fixture
def own_pictures(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    rows = []
    for label, count, light in ((GOOD, 40, 0), ("dent", 8, 100)):
        (data / label).mkdir(parents=True)
        for k in range(count):
            cv2.imwrite(str(data / label / f"{k}.png"), np.full((8, 8, 3), light + k, np.uint8))
            rows.append((f"{label}/{k}.png", f"{label}{k // 2}"))
    with (data / "manifest.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("file", "group"), *rows])
    return data


def test_own_pictures_are_linked_with_their_groups(own_pictures: Path, tmp_path: Path) -> None:
    folders = Folders(tmp_path / "out")
    line = split_pictures(own_pictures, folders, parts=8)
    assert len(line.truth) == 8
    on_line = list_pictures(folders.line)
    assert {p.name for p in on_line} == set(line.truth)
    for path in on_line:
        assert line.truth[path.name] == path.resolve().parent.name
    groups: dict[str, set[str]] = {}
    for side in (folders.training, folders.calibration, folders.masters, folders.line):
        with (side / "manifest.csv").open() as manifest:
            groups[side.name] = {row["group"] for row in csv.DictReader(manifest)}
        assert len(list_pictures(side)) > 0
    assert len(set().union(*groups.values())) == sum(len(g) for g in groups.values())


def stored(part_id: str, verdict: str, event: str = "", *, acked: bool = True) -> StoredPart:
    return StoredPart(part_id, verdict, 5.0, 1_000_000_000, event, acked)


TRUTH = {"a": GOOD, "b": GOOD, "c": "hole", "d": "hole", "e": "stain", "f": GOOD}
PARTS = [
    stored("a", "OK"),
    stored("b", "REVIEW", "e1"),
    stored("c", "OK"),
    stored("d", "NG", "e2"),
    stored("e", "NO_DECISION"),
    stored("f", "MISSED"),
]


def test_verdicts_against_the_truth() -> None:
    result = compare(PARTS, TRUTH, {"e1": 1_002_000_000, "e2": 1_004_000_000})
    assert (result.escapes, result.false_calls) == (1, 1)
    assert result.kinds == {"hole": (1, 2), "stain": (1, 1)}
    assert (result.count(good=True), result.count(good=False)) == (3, 3)
    assert result.events_agree
    assert result.to_subscriber == Times(3.0, 3.98)
    assert json.loads(json.dumps(result.to_json()))["verdicts"]["MISSED"] == {"good": 1, "bad": 0}


@pytest.mark.parametrize(
    ("received", "acked"), [({"e1": 1}, True), ({"e1": 1, "e2": 1, "e3": 1}, True), ({"e1": 1, "e2": 1}, False)]
)
def test_events_that_do_not_agree(received: dict[str, int], acked: bool) -> None:
    parts = [stored("b", "NG", "e1"), stored("d", "NG", "e2", acked=acked)]
    assert not compare(parts, TRUTH, received).events_agree


def test_nothing_timed() -> None:
    assert Times.of([]) == Times(0.0, 0.0)
