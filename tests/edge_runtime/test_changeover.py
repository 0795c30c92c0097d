"""From one bundle to the next while parts come, and back by itself; no part is lost on the way."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from kenpin.activation import Activation, change_activation, read_activation
from kenpin.audit import audit_file, read_audit
from kenpin.bundle import Bundle, install_bundle
from kenpin.bundle_cli import bundle as bundle_command
from kenpin.calibrating import begin_calibrating, end_calibrating
from kenpin.edge_runtime import changeover, trial
from kenpin.edge_runtime.candidate import Proof
from kenpin.edge_runtime.changeover import begin
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.file_stamp import file_stamp
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.readiness import HOLDS, Readiness
from kenpin.edge_runtime.shadow import Shadow
from kenpin.edge_runtime.site import Site, in_this_process
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Settings, Trigger
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.errors import BundleError, CalibrationError
from kenpin.frame import Frame
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from tests.edge_runtime.conftest import brightness_model

LIMIT_S = 180.0


class Belt:
    """Brings grey parts until it is stopped."""

    camera = "belt"
    drawn = False
    waits = True
    live = False
    down_reason = ""
    settings: Settings = NO_SETTINGS

    def __init__(self, brightness: int = 40) -> None:
        self.brightness = brightness
        self.is_over = False
        self.fails = False
        self.number = 0
        self._by_s = time.monotonic() + LIMIT_S

    def open(self) -> None:
        pass

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        assert time.monotonic() < self._by_s, "the belt ran for too long"
        if self.is_over:
            return Lull.END
        self.number += 1
        image = np.full((32, 32, 3), self.brightness, np.uint8)
        image[0, 0] = self.number % 2  # never the same picture twice in a row
        name = str(self.number)
        if self.fails:
            return Fault(name, self.camera, Verdict.NO_DECISION, "torn")
        return Frame(image, name, self.camera, frame_id=self.number)

    def trigger(self, trigger: Trigger) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


@pytest.fixture
def belt() -> Belt:
    return Belt()


def run(workshop: Any, belt: Belt, on_part: Callable[[Part], None]) -> list[dict[str, Any]]:
    """Let the parts of a belt be judged until it is over; all records."""
    site = Site(lambda _config, _folder: [belt], in_this_process().news)
    config = workshop.config("synthetic:fabric")
    evidence = config.evidence.model_copy(update={"keep": "none"})
    config = config.model_copy(update={"evidence": evidence})
    with Station(config, site=site, on_part=on_part) as station:
        station.run()
    connection = sqlite3.connect(workshop.folder.database)
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute("SELECT * FROM part ORDER BY seq")]
    connection.close()
    return rows


def follow_up(workshop: Any, *, version: str = "2.0", **model_is: Any) -> Bundle:
    """Another bundle, installed and calibrated beside the active one."""
    made: Bundle = workshop.bundle(model=brightness_model(**model_is), version=version)
    install_bundle(made, workshop.folder.bundles)
    workshop.calibrate(made, rev=2)
    return made


def want(workshop: Any, sha256: str, task: Any = "activate") -> None:
    change_activation(workshop.folder, lambda was: was.wanting(sha256, task))


def put_on_trial(workshop: Any, bundle: Bundle) -> Activation:
    return change_activation(
        workshop.folder, lambda was: was.running(bundle.sha256, bundle.manifest, on_trial=True)
    )


def until(belt: Belt, condition: Callable[[], bool], *, more: int = 3) -> Callable[[Part], None]:
    """Let the belt go on until something holds, and some parts more."""
    left = [more]

    def on_part(_part: Part) -> None:
        time.sleep(0.005)
        if condition():
            left[0] -= 1
        belt.is_over = left[0] <= 0

    return on_part


def test_the_change_comes_between_two_parts(workshop: Any, belt: Belt) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    go_on = until(belt, lambda: workshop.folder.installed().name == new.sha256)

    def on_part(part: Part) -> None:
        if part.part_id == "1":  # on a busy machine the change would come before the first part
            want(workshop, new.sha256)
        go_on(part)

    rows = run(workshop, belt, on_part)

    bundles = [row["bundle_sha256"] for row in rows]
    assert set(bundles) == {old.sha256, new.sha256}
    assert bundles == sorted(bundles, key=[old.sha256, new.sha256].index), "it changed more than once"
    assert [row["part_id"] for row in rows] == [str(n + 1) for n in range(belt.number)]
    assert {row["verdict"] for row in rows} == {"OK"}
    assert read_activation(workshop.folder).state == "trial"
    assert read_activation(workshop.folder).starts == 0  # it ended on purpose


def test_the_trial_ends_well(workshop: Any, belt: Belt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TRIAL_PARTS", 5)
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    want(workshop, new.sha256)
    run(workshop, belt, until(belt, lambda: workshop.folder.installed().name == new.sha256, more=8))
    now = read_activation(workshop.folder)
    assert (now.current, now.state, now.newest) == (new.sha256, "good", {"lamp": "2.0"})


def test_one_that_fails_is_given_up(workshop: Any, belt: Belt, caplog: pytest.LogCaptureFixture) -> None:
    old = workshop.calibrated(t1=253.0, t2=254.0)
    new = follow_up(workshop, breaks_at=250.0)  # the noise that it may be proven with is darker
    want(workshop, new.sha256)

    def on_part(part: Part) -> None:
        time.sleep(0.005)
        if part.model is not None and part.model.bundle_sha256 == new.sha256:
            belt.brightness = 252  # what the golden frames did not show
        belt.is_over = bool(read_activation(workshop.folder).left) and part.decision.verdict is Verdict.OK

    rows = run(workshop, belt, on_part)
    by_new = [row for row in rows if row["bundle_sha256"] == new.sha256]
    failed = [row for row in by_new if row["verdict"] == "NO_DECISION"]
    assert len(failed) == trial.FAULTS
    assert {row["cause"] for row in failed} == {"engine"}
    assert rows[-1]["bundle_sha256"] == old.sha256
    assert rows[-1]["verdict"] == "OK"
    assert [row["part_id"] for row in rows] == [str(n + 1) for n in range(belt.number)]
    now = read_activation(workshop.folder)
    assert (now.current, now.left, now.state) == (old.sha256, new.sha256, "good")
    assert workshop.folder.installed().name == old.sha256
    assert "was given up: 3 parts got no decision" in caplog.text
    taken, given_up = audit(workshop)
    assert (taken[0], taken[1]) == (f"{old.sha256[:16]} good", f"{new.sha256[:16]} trial")
    assert given_up[1] == f"{old.sha256[:16]} good"
    assert given_up[2].startswith(f"{new.sha256[:16]} was given up: 3 parts")


@pytest.mark.parametrize("restarted", [False, True])
def test_the_one_before_is_taken_back_at_once_where_a_person_wants_it(
    workshop: Any, belt: Belt, *, restarted: bool
) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    want(workshop, new.sha256)
    if restarted:
        run(workshop, belt, until(belt, lambda: read_activation(workshop.folder).state == "trial"))
        belt.is_over = False

    def on_part(_part: Part) -> None:
        time.sleep(0.005)
        now = read_activation(workshop.folder)
        if now.state == "trial" and not now.candidate:
            want(workshop, old.sha256)
        belt.is_over = bool(now.left) or belt.number > trial.TRIAL_PARTS

    run(workshop, belt, on_part)
    now = read_activation(workshop.folder)
    assert belt.number < trial.TRIAL_PARTS
    assert (now.current, now.left, now.state, now.candidate) == (old.sha256, new.sha256, "good", "")
    assert audit(workshop)[-1][2] == f"{new.sha256[:16]} was given up: the one before was wanted again"


def test_faults_of_the_camera_are_not_blamed_on_the_bundle(workshop: Any, belt: Belt) -> None:
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    want(workshop, new.sha256)

    def on_part(part: Part) -> None:
        time.sleep(0.005)
        belt.fails = part.model is not None and part.model.bundle_sha256 == new.sha256
        missed.append(part.decision.verdict is Verdict.NO_DECISION)
        belt.is_over = sum(missed) > trial.FAULTS

    missed: list[bool] = []
    rows = run(workshop, belt, on_part)
    assert {row["cause"] for row in rows if row["verdict"] == "NO_DECISION"} == {"source"}
    assert read_activation(workshop.folder).current == new.sha256


@pytest.mark.parametrize(
    ("model_is", "why"),
    [
        ({"scale": 2.0}, "scores a known frame 80 instead of 40"),
        ({"breaks_at": 10.0}, "gave a number that is not finite"),
    ],
)
def test_one_that_is_not_what_was_exported_is_refused(
    workshop: Any, belt: Belt, model_is: dict[str, float], why: str
) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, **model_is)
    want(workshop, new.sha256)
    rows = run(workshop, belt, until(belt, lambda: bool(read_activation(workshop.folder).left)))
    assert {row["bundle_sha256"] for row in rows} == {old.sha256}
    now = read_activation(workshop.folder)
    assert (now.current, now.left, now.candidate) == (old.sha256, new.sha256, "")
    assert why in now.reason


def test_one_that_is_too_slow_is_refused(workshop: Any, wait_for: Callable[..., None]) -> None:
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    candidate = changeover.Candidate(new.sha256, Proof(workshop.folder, [workshop.public_key], limit_ms=1e-6))
    wait_for(lambda: candidate.ready is not None, "the candidate")
    assert candidate.ready is not None
    assert "a verdict may take 1e-06 ms" in candidate.unfit
    candidate.close()


def test_one_whose_engine_may_not_run_is_refused_though_it_could_judge(
    workshop: Any, belt: Belt, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    monkeypatch.setattr(changeover.Candidate, "_test", lambda *_: "it is too slow")
    want(workshop, new.sha256)
    rows = run(workshop, belt, until(belt, lambda: bool(read_activation(workshop.folder).left)))
    assert {row["bundle_sha256"] for row in rows} == {old.sha256}
    now = read_activation(workshop.folder)
    assert (now.current, now.left, now.reason) == (old.sha256, new.sha256, "it is too slow")


def test_one_without_a_calibration_is_refused(workshop: Any, belt: Belt) -> None:
    old = workshop.calibrated()
    new = workshop.bundle(model=brightness_model(breaks_at=1e6), version="2.0")
    install_bundle(new, workshop.folder.bundles)
    for times in (1, 2):  # each refusal is told, for the same reason, too
        belt.is_over = False
        want(workshop, new.sha256)
        run(workshop, belt, until(belt, lambda: bool(read_activation(workshop.folder).left)))
        now = read_activation(workshop.folder)
        assert now.current == old.sha256
        assert "calibrated for bundle" in now.reason
        assert [why.startswith(new.sha256[:16]) for *_, why in audit(workshop)] == [True] * times


def test_one_below_the_floor_is_refused_whoever_wants_it(workshop: Any, belt: Belt) -> None:
    old = workshop.calibrated()
    faulty = follow_up(workshop, breaks_at=1e6)
    change_activation(workshop.folder, lambda was: was.model_copy(update={"floors": {"lamp": "3.0"}}))
    want(workshop, faulty.sha256)  # as a signed command does
    rows = run(workshop, belt, until(belt, lambda: bool(read_activation(workshop.folder).left)))
    assert {row["bundle_sha256"] for row in rows} == {old.sha256}
    now = read_activation(workshop.folder)
    assert (now.current, now.left) == (old.sha256, faulty.sha256)
    assert "asks for 3.0 or newer" in now.reason


def test_one_with_which_the_station_keeps_ending_is_given_up(workshop: Any) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    put_on_trial(workshop, new)
    proof = Proof(workshop.folder, [workshop.public_key], 1000)
    starts = [begin(proof)[0] for _ in range(changeover.STARTS)]
    # The start at which it was taken counts too.
    assert [a.current == new.sha256 for a in starts] == [True, True, False]
    assert "the station ended 3 times in its trial" in starts[-1].reason
    assert workshop.folder.installed().name == old.sha256
    # Going back is the end of it: more starts change nothing.
    assert begin(proof)[0].current == old.sha256


def prove(workshop: Any, bundle: Bundle) -> Proof:
    put_on_trial(workshop, bundle)
    change_activation(workshop.folder, Activation.proven)
    return Proof(workshop.folder, [workshop.public_key], 1000)


def test_one_whose_trial_is_over_stays_however_often_the_station_starts(workshop: Any) -> None:
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    proof = prove(workshop, new)
    starts = [begin(proof)[0] for _ in range(changeover.STARTS + 2)]
    assert {(a.current, a.state, a.left) for a in starts} == {(new.sha256, "good", "")}


def test_one_that_is_damaged_after_its_trial_releases_nothing_and_no_other_takes_its_place(
    workshop: Any,
) -> None:
    """Which bundle judges changes by a person, or in a trial that fails; never behind everybody's back."""
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    proof = prove(workshop, new)
    model = workshop.folder.bundles / new.sha256 / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    activation, ready = begin(proof)
    assert (activation.current, activation.left) == (new.sha256, "")
    assert "model.onnx has" in ready.fault


@pytest.mark.parametrize("cause", ["engine", "score", "not_ready", "deadline", "source", "store", "output"])
def test_only_what_a_bundle_answers_for_ends_its_trial(workshop: Any, cause: str) -> None:
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    put_on_trial(workshop, new)
    decision = Decision(Verdict.NO_DECISION, "for a reason", cause=cause)
    settled: Any = SimpleNamespace(part=SimpleNamespace(decision=decision))
    with Station(workshop.config("synthetic:fabric")) as station:
        for _ in range(trial.FAULTS):
            assert read_activation(workshop.folder).state == "trial"
            station._changeover.saw(Shot("p", 1, ()), settled)
    is_blamed = cause in ("engine", "score", "not_ready", "deadline")
    assert (read_activation(workshop.folder).left == new.sha256) == is_blamed


def test_one_that_is_damaged_on_the_disk_in_its_trial_is_given_up(workshop: Any) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    put_on_trial(workshop, new)
    model = workshop.folder.bundles / new.sha256 / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    activation, ready = begin(Proof(workshop.folder, [workshop.public_key], 1000))
    assert activation.current == old.sha256
    assert not ready.fault
    assert ready.model is not None
    assert ready.model.bundle_sha256 == old.sha256


def test_one_that_is_being_proven_ends_with_the_station(workshop: Any) -> None:
    """A build that went on would hold the GPU when the station starts again."""
    workshop.calibrated()
    ended = threading.Event()
    candidate: Any = SimpleNamespace(close=ended.set)
    with Station(workshop.config("synthetic:fabric")) as station:
        station._changeover._candidate = candidate
    assert ended.wait(10)


def test_a_shadow_decides_nothing_and_lists_where_it_disagrees(workshop: Any, belt: Belt) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    workshop.calibrate(new, rev=3, t1=30.0, t2=35.0)
    want(workshop, new.sha256, "shadow")
    listed = workshop.folder.shadow
    rows = run(workshop, belt, until(belt, lambda: listed.exists() and listed.read_text().count("\n") > 3))
    assert {row["verdict"] for row in rows} == {"OK"}
    assert {row["bundle_sha256"] for row in rows} == {old.sha256}
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {(line["active_verdict"], line["shadow_verdict"]) for line in lines} == {("OK", "NG")}
    assert {line["shadow_bundle"] for line in lines} == {new.sha256[:16]}
    assert {line["shadow_score"] for line in lines} == {40.0}
    assert {line["part_id"] for line in lines} <= {row["part_id"] for row in rows}
    assert read_activation(workshop.folder).current == old.sha256


def test_a_part_that_is_held_whatever_it_scores_is_no_disagreement(tmp_path: Path) -> None:
    """While masters are due each part would be one."""
    seen: list[str] = []

    def settled(part_id: str, verdict: Verdict, cause: str = "") -> Any:
        decision = Decision(verdict, cause=cause)
        return SimpleNamespace(part=SimpleNamespace(part_id=part_id, ts_ms=1, model=None, decision=decision))

    def decide(_shot: Shot) -> Decision:
        seen.append("judged")
        return Decision(Verdict.NG)

    judge: Any = SimpleNamespace(decide=decide, ready=Readiness())
    shadow = Shadow(judge, tmp_path / "shadow.jsonl")
    shot = Shot("p", None, (Frame(np.zeros((4, 4, 3), np.uint8), "p", "belt"),))
    for cause in HOLDS:
        shadow.offer(shot, settled(cause, Verdict.NO_DECISION, cause))
    shadow.offer(shot, settled("free", Verdict.OK))
    while shadow.disagreements == 0:
        time.sleep(0.01)
    shadow.close()
    assert (seen, shadow.parts, shadow.dropped) == (["judged"], 1, 0)
    assert json.loads((tmp_path / "shadow.jsonl").read_text())["part_id"] == "free"


def test_a_shadow_may_be_taken(workshop: Any, belt: Belt) -> None:
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    workshop.calibrate(new, rev=3, t1=30.0, t2=35.0)
    want(workshop, new.sha256, "shadow")
    wait = until(belt, lambda: workshop.folder.installed().name == new.sha256)

    def on_part(part: Part) -> None:
        if workshop.folder.shadow.exists() and read_activation(workshop.folder).task == "shadow":
            want(workshop, new.sha256)
        wait(part)

    rows = run(workshop, belt, on_part)
    assert rows[-1]["verdict"] == "NG"  # judged by the limits of its own record


@pytest.mark.parametrize("is_watched_on", [True, False])
def test_what_is_signed_for_a_bundle_that_waits_is_in_force_when_it_judges(
    workshop: Any, belt: Belt, *, is_watched_on: bool
) -> None:
    """A bundle may be watched for weeks, and its limits be lowered meanwhile for what it let pass."""
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    want(workshop, new.sha256, "shadow")
    folder, step = workshop.folder, ["load"]

    def on_part(part: Part) -> None:
        time.sleep(0.005)
        numbers = read_vitals(folder.run)["station"].numbers if step[0] == "load" else {}
        if numbers.get("shadow_parts_total"):
            step[0] = "wait"
            workshop.calibrate(new, rev=3, t1=30.0, t2=35.0)
            if not is_watched_on:
                want(workshop, new.sha256)
        listed = folder.shadow.exists() and "NG" in folder.shadow.read_text()
        taken = part.model is not None and part.model.bundle_sha256 == new.sha256
        belt.is_over = listed if is_watched_on else taken

    rows = run(workshop, belt, on_part)
    assert rows[-1]["verdict"] == ("OK" if is_watched_on else "NG")


def test_what_is_signed_in_a_trial_for_the_bundle_before_is_in_force_when_it_is_back(
    workshop: Any, belt: Belt
) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    step = ["before"]

    def on_part(part: Part) -> None:
        time.sleep(0.005)
        judges = part.model.bundle_sha256 if part.model else ""
        if step[0] == "before":
            step[0] = "trial"
            want(workshop, new.sha256)
        elif step[0] == "trial" and judges == new.sha256:
            step[0] = "back"
            workshop.calibrate(old, rev=3, t1=30.0, t2=35.0)
            want(workshop, old.sha256)
        belt.is_over = step[0] == "back" and judges == old.sha256

    rows = run(workshop, belt, on_part)
    assert (rows[-1]["verdict"], rows[-1]["bundle_sha256"]) == ("NG", old.sha256)


def test_a_new_record_is_in_force_from_the_next_part_on(workshop: Any, belt: Belt) -> None:
    bundle = workshop.calibrated()

    def on_part(part: Part) -> None:
        if belt.number == 5:
            workshop.calibrate(bundle, rev=2, t1=10.0, t2=20.0)
        belt.is_over = belt.number == 10
        if belt.number > 5:
            assert part.record is not None
            assert part.record.rev == 2

    rows = run(workshop, belt, on_part)
    assert [row["verdict"] for row in rows] == ["OK"] * 5 + ["NG"] * 5


def test_a_record_that_was_altered_lets_nothing_pass(workshop: Any, belt: Belt) -> None:
    workshop.calibrated()

    def on_part(_part: Part) -> None:
        if belt.number == 5:
            records = workshop.folder.records
            records.write_text(records.read_text().replace('"t1":100.0', '"t1":150.0'))
        belt.is_over = belt.number == 10

    rows = run(workshop, belt, on_part)
    assert [row["verdict"] for row in rows] == ["OK"] * 5 + ["NO_DECISION"] * 5
    assert "does not fit" in rows[-1]["reason"] or "signature" in rows[-1]["reason"]


def test_a_record_for_the_float_model_brings_the_float_engine(workshop: Any, belt: Belt) -> None:
    bundle = workshop.calibrated()
    precisions: list[str] = []

    def on_part(part: Part) -> None:
        time.sleep(0.005)
        if belt.number == 5:
            workshop.calibrate(bundle, rev=2, precision="fp32")
        precisions.append(part.model.precision if part.model else "")
        belt.is_over = precisions.count("fp32") == 3

    rows = run(workshop, belt, on_part)
    assert (precisions[0], rows[0]["verdict"]) == ("int8", "OK")
    assert {row["verdict"] for row, p in zip(rows, precisions, strict=True) if p == "fp32"} == {"OK"}
    # Meanwhile the thresholds are those of another model: nothing is released by them.
    between = [r["verdict"] for r, p in zip(rows, precisions, strict=True) if p == "int8"][5:]
    assert set(between) <= {"NO_DECISION"}


def test_while_somebody_calibrates_nothing_is_released(workshop: Any, belt: Belt) -> None:
    workshop.calibrated()
    states: list[str] = []

    def on_part(_part: Part) -> None:
        if belt.number == 3:
            begin_calibrating(workshop.folder, "Sato")
        if belt.number == 6:
            end_calibrating(workshop.folder)
        station = read_vitals(workshop.folder.run).get("station")
        states.append(station.state if station else "")
        belt.is_over = belt.number == 9

    rows = run(workshop, belt, on_part)
    assert [row["verdict"] for row in rows] == ["OK"] * 3 + ["NO_DECISION"] * 3 + ["OK"] * 3
    assert {(r["cause"], r["reason"]) for r in rows[3:6]} == {("calibrating", "Sato calibrates this station")}
    # Their scores and pictures are what the thresholds are chosen from, whatever else is kept.
    assert all(row["score"] == 40.0 for row in rows[3:6])
    assert [bool(row["image_ref"]) for row in rows] == [False] * 3 + [True] * 3 + [False] * 3
    assert states[4] == "CALIBRATING"


def test_another_bundle_waits_while_somebody_calibrates_or_checks(workshop: Any, belt: Belt) -> None:
    """Else what is shown would be scored by two, and a check of the masters be lost or fail."""
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    begin_calibrating(workshop.folder, "Sato")
    want(workshop, new.sha256)
    ended_at = []

    def taken() -> bool:
        if belt.number == 200:
            ended_at.append(belt.number)
            end_calibrating(workshop.folder)
        return workshop.folder.installed().name == new.sha256

    rows = run(workshop, belt, until(belt, taken))
    scored_by = [row["bundle_sha256"] for row in rows]
    assert ended_at
    assert set(scored_by[:199]) == {old.sha256}
    assert scored_by[-1] == new.sha256


def test_while_somebody_calibrates_the_old_limits_of_light_do_not_count(workshop: Any, belt: Belt) -> None:
    chance = np.random.default_rng(1)
    usual = [np.clip(chance.normal(40, 3, (32, 32, 3)), 0, 255).astype(np.uint8) for _ in range(30)]
    bundle = workshop.install()
    workshop.calibrate(bundle, quality=learn_limits([measure(image) for image in usual]))
    belt.brightness = 80  # a new lamp

    def on_part(_part: Part) -> None:
        if belt.number == 3:
            begin_calibrating(workshop.folder, "Sato")
        belt.is_over = belt.number == 6

    rows = run(workshop, belt, on_part)
    assert [row["cause"] for row in rows] == ["light_drift"] * 3 + ["calibrating"] * 3
    assert [row["score"] for row in rows] == [None] * 3 + [80.0] * 3


def test_a_camera_that_is_set_otherwise_than_at_the_sign_off_releases_nothing(
    workshop: Any, belt: Belt
) -> None:
    signed = {"exposure_us": 5000.0, "gain_db": 0.0}
    workshop.calibrated(cameras={"belt": signed})
    belt.settings = signed

    def on_part(_part: Part) -> None:
        if belt.number == 3:
            belt.settings = {**signed, "exposure_us": 8000.0}
        if belt.number == 6:
            belt.settings = dict(signed)
        belt.is_over = belt.number == 9

    rows = run(workshop, belt, on_part)
    assert [row["verdict"] for row in rows] == ["OK"] * 3 + ["NO_DECISION"] * 3 + ["OK"] * 3
    assert {row["cause"] for row in rows[3:6]} == {"camera_set"}
    assert "belt is set otherwise than at the sign-off: exposure_us 5000.0 -> 8000.0" in rows[3]["reason"]
    assert all(row["score"] == 40.0 for row in rows[3:6])


@pytest.mark.parametrize("now", [{}, {"exposure_us": 5000.0, "gain_db": 3.0}])
def test_a_camera_that_does_not_tell_the_same_is_not_taken_for_the_same(
    workshop: Any, belt: Belt, now: dict[str, float]
) -> None:
    workshop.calibrated(cameras={"belt": {"exposure_us": 5000.0}})
    belt.settings = now
    (row,) = run(workshop, belt, until(belt, lambda: True, more=0))
    assert (row["verdict"], row["cause"]) == ("NO_DECISION", "camera_set")


def test_one_that_could_not_judge_a_single_part_in_its_trial_is_given_up(
    workshop: Any, belt: Belt, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(1)
    bright = [np.clip(chance.normal(200, 3, (32, 32, 3)), 0, 255).astype(np.uint8) for _ in range(30)]
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    workshop.calibrate(new, rev=3, quality=learn_limits([measure(image) for image in bright]))
    want(workshop, new.sha256)
    monkeypatch.setattr(trial, "TRIAL_S", 0.2)
    rows = run(workshop, belt, until(belt, lambda: bool(read_activation(workshop.folder).left)))
    now = read_activation(workshop.folder)
    assert (now.current, now.left) == (old.sha256, new.sha256)
    assert "not one part could be judged, the last one because: " in now.reason
    assert rows[-1]["verdict"] == "OK"


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_damaged_note_releases_nothing_either(workshop: Any, belt: Belt, *, calibrated: bool) -> None:
    bundle = workshop.install()
    if calibrated:
        workshop.calibrate(bundle)
    workshop.folder.calibrating.write_text("{")
    rows = run(workshop, belt, until(belt, lambda: True))
    assert {row["cause"] for row in rows} == {"calibrating"}


def test_a_calibration_counts_neither_against_nor_for_a_bundle_on_trial(
    workshop: Any, belt: Belt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "TRIAL_PARTS", 6)
    monkeypatch.setattr(trial, "TRIAL_S", 0.0)
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    put_on_trial(workshop, new)
    begin_calibrating(workshop.folder, "Sato")
    run(workshop, belt, until(belt, lambda: True, more=8))
    now = read_activation(workshop.folder)
    assert (now.current, now.state) == (new.sha256, "trial")


def test_the_first_bundle_is_taken_by_a_station_that_runs(workshop: Any, belt: Belt) -> None:
    workshop.folder.create()

    def on_part(part: Part) -> None:
        time.sleep(0.005)
        if belt.number == 3:
            bundle = workshop.bundle()
            install_bundle(bundle, workshop.folder.bundles)
            change_activation(
                workshop.folder, lambda was: was.running(bundle.sha256, bundle.manifest, on_trial=False)
            )
            workshop.calibrate(bundle)
        belt.is_over = part.decision.verdict is Verdict.OK

    rows = run(workshop, belt, on_part)
    assert "no bundle is installed" in rows[0]["reason"]
    assert rows[-1]["verdict"] == "OK"


def test_a_bundle_in_place_of_one_that_was_never_calibrated_is_taken_by_a_station_that_runs(
    workshop: Any, belt: Belt
) -> None:
    workshop.install()
    new = workshop.bundle(model=brightness_model(breaks_at=1e6), version="2.0")

    def on_part(part: Part) -> None:
        time.sleep(0.005)
        if belt.number == 3:
            install_bundle(new, workshop.folder.bundles)
            change_activation(
                workshop.folder, lambda was: was.running(new.sha256, new.manifest, on_trial=False)
            )
        is_taken = part.model is not None and part.model.bundle_sha256 == new.sha256
        if is_taken and not workshop.folder.records.exists():
            workshop.calibrate(new)
        belt.is_over = part.decision.verdict is Verdict.OK

    rows = run(workshop, belt, on_part)
    assert "not calibrated" in rows[0]["reason"]
    assert (rows[-1]["verdict"], rows[-1]["bundle_sha256"]) == ("OK", new.sha256)


def audit(workshop: Any) -> list[tuple[str, str, str]]:
    rows = read_audit(workshop.folder, workshop.station_key.public)
    return [(row["old"], row["new"], row["why"]) for row in rows if row["what"] == "bundle"]


def test_an_audit_that_cannot_be_written_does_not_stop_the_way_back(
    workshop: Any, belt: Belt, caplog: pytest.LogCaptureFixture
) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=30.0)
    put_on_trial(workshop, new)
    audit_file(workshop.folder).mkdir()
    rows = run(workshop, belt, until(belt, lambda: workshop.folder.installed().name == old.sha256))
    assert rows[-1]["verdict"] == "OK"
    assert "not in the audit" in caplog.text


def test_a_disk_that_takes_nothing_does_not_stop_the_way_back(
    workshop: Any, belt: Belt, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = workshop.calibrated()
    new = follow_up(workshop, breaks_at=30.0)
    on_trial = put_on_trial(workshop, new)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("kenpin.activation.replace_synced", refuse)
    rows = run(workshop, belt, until(belt, lambda: True))
    assert {(row["verdict"], row["bundle_sha256"]) for row in rows} == {("OK", old.sha256)}
    assert "The activation cannot be written: No space left on device" in caplog.text
    assert read_activation(workshop.folder) == on_trial


@pytest.mark.parametrize("kind", ["no JSON", "another type", "another bundle", "a folder"])
def test_an_activation_that_cannot_be_read_lets_the_station_go_on_and_is_told(
    workshop: Any, belt: Belt, options: list[object], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    bundle = workshop.calibrated()
    file = workshop.folder.activation
    told: set[tuple[str, str]] = set()

    def damage() -> None:
        file.unlink(missing_ok=True)
        if kind == "a folder":
            file.mkdir()
        elif kind == "another bundle":  # by a flipped bit, say
            file.write_text(f'{{"current": "A{bundle.sha256[1:]}"}}')
        else:
            file.write_text("{" if kind == "no JSON" else '{"current": 1}')

    def tell(part: Part) -> None:
        if part.part_id == "2":
            damage()
        vitals = read_vitals(workshop.folder.run).get("station")
        told.update([(vitals.state, vitals.reason)] if vitals is not None else [])
        belt.is_over = any(state == "DEGRADED" for state, _ in told)

    assert {row["verdict"] for row in run(workshop, belt, tell)} == {"OK"}
    belt.is_over = False
    rows = run(workshop, belt, until(belt, lambda: True))  # the next start
    assert {(row["verdict"], row["bundle_sha256"]) for row in rows} == {("OK", bundle.sha256)}
    (reason,) = (reason for state, reason in told if state == "DEGRADED")
    assert reason.startswith(f"{file} ")
    assert reason in caplog.text

    first, _, cure = reason.partition("; ")[2].partition("kenpin bundle ")
    assert first == ("remove it, then: " if kind == "a folder" else "")
    if first:
        file.rmdir()
    assert invoke(*cure.split(), *options[2:]).exit_code == 0
    assert read_activation(workshop.folder).trouble == ""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(bundle_command, [str(a) for a in arguments])


def refused(*arguments: object) -> Exception:
    error = invoke(*arguments).exception
    assert isinstance(error, Exception)
    return error


@pytest.fixture
def options(workshop: Any) -> list[object]:
    return ["--state", workshop.folder.root, "--trust", workshop.public_key]


def test_a_second_bundle_waits_beside_the_first(workshop: Any, options: list[object], tmp_path: Path) -> None:
    old = workshop.bundle()
    assert "installed and active" in invoke("install", old.path, *options).stderr
    workshop.calibrate(old)
    new = workshop.bundle(model=brightness_model(breaks_at=1e6), version="2.0")
    assert "the active bundle stays" in invoke("install", new.path, *options).stderr
    assert workshop.folder.installed().name == old.sha256

    error = refused("activate", new.sha256[:12], *options)
    assert isinstance(error, CalibrationError)
    assert f"calibrate fit --bundle {workshop.folder.bundles / new.sha256}" in error.cure
    workshop.calibrate(new, rev=2)
    begin_calibrating(workshop.folder, "Aiko")  # what she shows is scored by one bundle
    assert isinstance(refused("activate", new.sha256[:12], *options), CalibrationError)
    assert read_activation(workshop.folder).task == ""
    end_calibrating(workshop.folder)
    assert invoke("activate", new.sha256[:12], *options).exit_code == 0
    assert audit(workshop)[-1][1].startswith("to be activated: lamp 2.0")
    assert read_activation(workshop.folder).candidate == new.sha256

    listed = json.loads(invoke("list", *options, "--json").stdout)
    roles = {line["version"]: (line["role"], line["calibrated"]) for line in listed["bundles"]}
    assert roles == {"1.0": ("active", "record 1, TRIAL"), "2.0": ("to activate", "record 2, TRIAL")}


def test_to_install_the_active_one_again_neither_ends_its_trial_nor_forgets_the_way_back(
    workshop: Any, options: list[object]
) -> None:
    """As whoever hands out bundles by a script does; the folder is mended, and nothing else changes."""
    old = workshop.bundle()
    invoke("install", old.path, *options)
    workshop.calibrate(old)
    new = workshop.bundle(model=brightness_model(breaks_at=1e6), version="2.0")
    invoke("install", new.path, *options)
    workshop.calibrate(new, rev=2)
    before = change_activation(
        workshop.folder,
        lambda was: was.running(new.sha256, new.manifest, on_trial=True).wanting(old.sha256, "shadow"),
    )
    rows = audit_file(workshop.folder).read_bytes()
    model = workshop.folder.bundles / new.sha256 / "card.md"
    model.write_bytes(b"damaged")
    assert "active already" in invoke("install", new.path, *options).stderr
    assert read_activation(workshop.folder) == before
    assert model.read_bytes() == b"# lamp"
    assert audit_file(workshop.folder).read_bytes() == rows


def test_where_nothing_is_calibrated_a_bundle_takes_its_place_at_once(
    workshop: Any, options: list[object]
) -> None:
    old = workshop.bundle()
    invoke("install", old.path, *options)
    new = workshop.bundle(model=brightness_model(breaks_at=1e6), version="2.0")
    begin_calibrating(workshop.folder, "Aiko")  # fifty parts scored by the first would be for nothing
    assert isinstance(refused("install", new.path, *options), CalibrationError)
    assert "active already" in invoke("install", workshop.folder.installed(), *options).stderr  # mended
    assert workshop.folder.installed().name == old.sha256
    end_calibrating(workshop.folder)
    assert "installed and active" in invoke("install", new.path, *options).stderr
    assert workshop.folder.installed().name == new.sha256


def test_an_older_file_is_refused_and_nothing_is_written(workshop: Any, options: list[object]) -> None:
    invoke("install", workshop.bundle(version="2.0").path, *options)
    old = workshop.bundle(version="1.0")
    assert isinstance(refused("install", old.path, *options), BundleError)
    assert not (workshop.folder.bundles / old.sha256).exists()


def test_names_that_fit_none_or_several_are_refused(workshop: Any, options: list[object]) -> None:
    workshop.ready()
    for name in ("ffff", "0" * 64, "", "abc"):
        assert isinstance(refused("activate", name, *options), BundleError)


def test_the_active_one_cannot_be_activated_again(workshop: Any, options: list[object]) -> None:
    bundle = workshop.calibrated()
    assert "active one already" in invoke("activate", bundle.sha256[:8], *options).stderr
    assert read_activation(workshop.folder).candidate == ""


def test_a_watched_bundle_is_watched_until_it_is_off(workshop: Any, options: list[object]) -> None:
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    assert invoke("shadow", new.sha256[:8], *options).exit_code == 0
    assert read_activation(workshop.folder).task == "shadow"
    listed = json.loads(invoke("list", *options, "--json").stdout)["bundles"]
    assert {line["sha256"]: line["role"] for line in listed}[new.sha256] == "watched"
    assert invoke("shadow", "--off", *options).exit_code == 0
    assert read_activation(workshop.folder).task == ""
    assert "give the bundle to watch" in str(refused("shadow", *options))


def test_the_active_one_cannot_be_watched(workshop: Any, options: list[object]) -> None:
    """The station would not do it, and the one that is watched would be watched no more."""
    running = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    assert invoke("shadow", new.sha256[:8], *options).exit_code == 0
    assert "decides already" in str(refused("shadow", running.sha256[:8], *options))
    assert read_activation(workshop.folder).candidate == new.sha256


def test_no_bundle_to_watch_is_not_no_bundle_to_activate(workshop: Any, options: list[object]) -> None:
    workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    assert invoke("activate", new.sha256[:8], *options).exit_code == 0
    assert invoke("shadow", "--off", *options).exit_code == 0
    now = read_activation(workshop.folder)
    assert (now.candidate, now.task) == (new.sha256, "activate")


def test_the_active_one_stays_where_that_is_wanted(workshop: Any, options: list[object]) -> None:
    running = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    assert invoke("activate", new.sha256[:8], *options).exit_code == 0
    told = invoke("activate", running.sha256[:8], *options).stderr
    assert "stays the active one" in told
    assert f"{new.sha256[:16]} is not activated" in told
    assert read_activation(workshop.folder).candidate == ""


def test_a_watched_one_does_not_take_the_place_of_one_to_activate(workshop: Any, options: list[object]) -> None:
    running = workshop.calibrated()
    new = follow_up(workshop, breaks_at=1e6)
    assert invoke("activate", new.sha256[:8], *options).exit_code == 0
    error = refused("shadow", new.sha256[:8], *options)
    assert running.sha256[:16] in error.cure
    now = read_activation(workshop.folder)
    assert (now.candidate, now.task) == (new.sha256, "activate")


def test_a_file_that_was_made_readable_is_looked_at_again(
    tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    (path := tmp_path / "activation.json").write_text("{}")
    before = file_stamp(path)

    def differs() -> bool:
        path.chmod(0o640)
        return file_stamp(path) != before

    wait_for(differs, "the file system's clock to tick", 5)
