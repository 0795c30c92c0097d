"""A station whose processes are killed at any time, with a line that does not wait for it."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.history import History
from benchmarks.rig import Rig

# A release run takes 1,000.
KILLS = int(os.environ.get("KENPIN_KILLS", "100"))
# A release run takes 600 seconds.
OVERLOAD_S = float(os.environ.get("KENPIN_OVERLOAD_S", "5"))
ROLES = ("station", "capture-0", "capture-0", "publisher", "publisher", "health")
_log = logging.getLogger(__name__)  # shown by make soak


@pytest.mark.slow
def test_kill_nine_of_each_process_loses_and_invents_nothing(rig: Rig) -> None:
    rig.start()
    rig.line.start()
    chance = random.Random(3)
    back: list[float] = []

    def is_back() -> bool:
        """With more than 1000 parts in between, the line's counter would pass for one that was set anew."""
        passed = len(rig.line.triggers) - killed_at
        rig.line.rate = 20 if passed < 200 else 1
        return rig.is_ready()

    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 1.0))
        role = chance.choice(ROLES)
        killed_at = len(rig.line.triggers)
        rig.kill(role)
        if role == "station":
            back.append(rig.wait(is_back, "ready again"))
            rig.line.rate = 20
    rig.wait(rig.is_connected, "the publisher's return")  # else the last events wait for the next start
    rig.stop()
    history = rig.history()
    assert history.violations() == [], history.summary()
    assert len(back) > 1
    _log.info("%d kills; ready again after %.2f s (p50), %.2f s at the longest", KILLS, median(back), max(back))
    verdicts = {part["verdict"] for part in history.parts}
    assert {"OK", "NG", "REVIEW", "MISSED"} <= verdicts
    assert any(line["pass"] for line in history.outputs)


def test_a_database_that_somebody_removes_is_put_back_and_nothing_is_lost(rig: Rig) -> None:
    rig.start()
    rig.line.start()
    rig.wait(lambda: len(rig.line.triggers) > 20, "some parts")
    pid = rig.pid("station")
    for file in rig.folder.root.glob("station.db*"):
        file.unlink()
    rig.wait(lambda: rig.pid("station") not in (0, pid) and rig.is_ready(), "a new process")
    seen = len(rig.line.triggers)
    rig.wait(lambda: len(rig.line.triggers) > seen + 20, "more parts")
    rig.stop()
    history = rig.history()
    assert history.violations() == [], history.summary()
    assert {part["trigger_id"] for part in history.parts} >= set(range(1, seen))
    assert "was removed or replaced while the station runs" in rig.log()
    assert not list(rig.folder.root.glob("station.db.*"))


def test_a_lost_camera_is_noticed_and_back_again_though_no_part_comes(rig: Rig) -> None:
    rig.start()
    pid = rig.pid("capture-0")
    rig.kill("capture-0", signal.SIGSTOP)
    rig.wait(lambda: "down" in rig.reason(), "the loss")
    rig.kill("capture-0")
    rig.wait(lambda: rig.pid("capture-0") not in (0, pid), "a new process")
    rig.wait(rig.is_ready, "the camera's return")


@pytest.mark.slow
def test_a_line_that_is_far_too_fast_gets_one_answer_each(workshop: Any, tmp_path: Path) -> None:
    workshop.calibrated(t1=107.0, t2=109.0)
    rig = Rig(tmp_path / "rig", workshop.folder, workshop.public_key, rate=400)
    try:
        rig.start()
        rig.line.start()
        time.sleep(OVERLOAD_S)
        rig.stop()
        history = rig.history()
    finally:
        rig.close()
    assert history.violations() == [], history.summary()
    counts = Counter(row["verdict"] for row in history.parts)
    assert counts["MISSED"] > len(history.triggers) / 4
    assert counts["OK"] > 0


def part(**changes: Any) -> dict[str, Any]:
    good = {"seq": 1, "trigger_id": 1, "part_id": "a", "verdict": "OK", "released": 1, "frame_id": 1}
    return {**good, "bundle_sha256": "x", "threshold_rev": 1, "score": 1.0, "t1": 2.0, **changes}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, ""),
        ({"triggers": [1, 2]}, "trigger 2 has 0 records"),
        ({"parts": [part(), part(seq=2)]}, "trigger 1 has 2 records"),
        ({"triggers": []}, "which the line never sent"),
        ({"parts": [part(frame_id=None)]}, "OK without what an OK needs"),
        ({"parts": [part(score=3.0)]}, "OK without what an OK needs"),
        ({"parts": [part(verdict="NG")]}, "was released as NG"),
        ({"parts": [part(verdict="NG", released=0)]}, "whose record is NG"),
        ({"parts": [part(verdict="NG", released=0)], "outputs": []}, "do not agree"),
        ({"outputs": [{"trigger_id": 1, "part_id": "a", "pass": True}] * 2}, "told 2 times"),
        ({"outbox": [{"seq": 5, "part_seq": 1, "body": '{"id": "e"}'}]}, "event 5 never arrived"),
        ({"received": [{"seq": 5, "id": "e"}]}, "was never written like this"),
        ({"received": [{"seq": 5, "id": "e"}, {"seq": 4, "id": "e"}]}, "out of order"),
    ],
)
def test_the_checker_finds_what_must_not_be(changes: dict[str, Any], finding: str) -> None:
    good: dict[str, Any] = {"triggers": [1], "parts": [part()], "outbox": [], "received": []}
    good["outputs"] = [{"trigger_id": 1, "part_id": "a", "pass": True}]
    found = "\n".join(History(**{**good, **changes}).violations())
    assert finding in found
    assert bool(found) == bool(finding)
