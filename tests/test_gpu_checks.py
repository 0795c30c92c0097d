"""scripts/gpu_checks.py walks all its ways on a CPU, in small, and says no where something does not hold."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import gpu_checks as checks
import gpu_engine_checks as engine_checks
import pytest
import torch
from click.testing import CliRunner
from torch.distributed.run import parse_args

from kenpin.train.training import Training
from tests.fake_jetson import make_jetson

DEVICE = {
    "device": None,
    "copies to the device and back": True,
    "kernel against to_input": True,
    "upload of a frame": None,
    "preprocess 160 x 90 to 32": None,
    "CUDA graph": True,
}


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return checks.drawn(6, 64)  # type: ignore[no-any-return]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_what_to_do() -> None:
    done = CliRunner().invoke(checks.main, [])
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith("error: no CUDA device is available")
    assert "--dry-run-on-cpu" in done.stderr
    assert done.stdout == ""


def test_a_dry_run_walks_every_way_and_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Has a test of its own, below, and takes longer than all the rest.
    monkeypatch.setattr(checks, "engine_parts", lambda *_: [checks.Finding("engine", {})])
    done = CliRunner().invoke(checks.main, ["--dry-run-on-cpu", "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["device"] == "CPU, dry run"
    holds = {finding["check"]: finding["holds"] for finding in told["findings"]}
    assert holds.items() >= (DEVICE if find_spec("pycuda") else {"a station's device": None}).items()
    assert {check: held for check, held in holds.items() if check not in {*DEVICE, "a station's device"}} == {
        "speed, batch 6, fp32": True,
        "speed, batch 6, bf16": True,
        "resume after an interruption": True,
        "CPU and GPU, the same scenes": True,
        "bf16 stays finite": True,
        "out of memory: the batch goes in parts": True,
        "several GPUs train one run": None,
        "engine": None,
    }
    found = {finding["check"]: finding["found"] for finding in told["findings"]}
    speed = found["speed, batch 6, fp32"]
    assert speed["views_per_s"] == pytest.approx(3 * speed["pictures_per_s"])
    assert found["resume after an interruption"]["most_apart"] == 0
    assert found["out of memory: the batch goes in parts"]["parts"] == 2


def test_what_was_found_is_kept_where_the_machine_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: object) -> None:
        raise SystemExit(137)

    monkeypatch.setattr(checks, "device_parts", lambda *_: [checks.Finding("device", {}, holds=True)])
    monkeypatch.setattr(checks, "engine_parts", lambda *_: [checks.Finding("engine", {}, holds=False)])
    monkeypatch.setattr(checks, "speeds", taken)
    done = CliRunner().invoke(checks.main, ["--dry-run-on-cpu", "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 137
    told = json.loads((tmp_path / "found.json").read_text())
    assert [finding["check"] for finding in told["findings"]] == ["device", "engine"]


def test_a_check_that_breaks_in_any_way_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise TypeError("no such overload")

    for name in (
        "device_parts",
        "engine_parts",
        "speeds",
        "resumes",
        "agrees_with_cpu",
        "stays_finite",
        "halves",
    ):
        monkeypatch.setattr(checks, name, breaks)
    done = CliRunner().invoke(checks.main, ["--dry-run-on-cpu", "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 1, done.output
    *broken, several = json.loads((tmp_path / "found.json").read_text())["findings"]
    assert {finding["found"]["error"] for finding in broken} == {"no such overload"}
    assert several["check"] == "several GPUs train one run"


def test_a_precision_that_breaks_stops_no_other_speed(
    pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = checks.train

    def breaks(plan: object, pictures: object, trial: checks.Trial, *more: object) -> checks.Tried:
        if trial.precision == "fp32":
            raise AttributeError("no such type")
        return right(plan, pictures, trial, *more)  # type: ignore[no-any-return]

    monkeypatch.setattr(checks, "train", breaks)
    findings = {finding.check: finding for finding in checks.speeds(checks.TINY, pictures)}
    assert findings["speed, batch 6, fp32"].found == {"error": "no such type"}
    assert findings["speed, batch 6, bf16"].holds


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "drawn", lambda *_: pytest.fail("it began"))
    done = CliRunner().invoke(checks.main, ["--dry-run-on-cpu", "--json", str(tmp_path / "none/found.json")])
    assert done.exit_code == 2
    assert "cannot be kept: No such file or directory" in done.stderr


def test_a_script_that_hangs_is_told(pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ENGINE_S", 0.01)
    (finding,) = checks.engine_parts(checks.TINY, pictures)
    assert (finding.holds, finding.found["error"]) == (False, "did not end within 0 s")


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"),
        ("time.sleep(60)", "did not end within 5 s"),
        ("os._exit(0)", None),
    ],
)
def test_what_a_script_found_outlives_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, told: str | None
) -> None:
    (tmp_path / "it.py").write_text(
        f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(checks.__file__).parent)!r})
from gpu_finding import Finding, attempt, tell
print("[TRT] [W] a library speaks, too")
print("12")
tell(Finding("first", {{"ms": 1.5}}, True))
tell(attempt("second", lambda: 1 / 0))
{ends}
"""
    )
    monkeypatch.setattr(checks, "__file__", str(tmp_path / "gpu_checks.py"))
    first, second, *rest = checks.ask(checks.TINY, "it.py", 5.0)
    assert (first.check, first.found, first.holds) == ("first", {"ms": 1.5}, True)
    assert (second.found["error"], second.holds) == ("division by zero", False)
    assert [(finding.found["error"], finding.holds) for finding in rest] == ([(told, False)] if told else [])


def test_a_resumed_run_that_differs_is_found(pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    load = checks.RunFolder.load_training

    def forgets_the_moments(folder: object, training: Training) -> None:
        load(folder, training)
        training.optimizer.state.clear()

    monkeypatch.setattr(checks.RunFolder, "load_training", forgets_the_moments)
    assert [finding.holds for finding in checks.resumes(checks.TINY, pictures)] == [False]


def test_a_device_that_computes_otherwise_is_found(
    pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = checks.fixed_losses("cpu", checks.TINY, pictures)
    answers = iter([right, [1.01 * loss for loss in right]])
    monkeypatch.setattr(checks, "fixed_losses", lambda *_: next(answers))
    assert [finding.holds for finding in checks.agrees_with_cpu(checks.TINY, pictures)] == [False]


def test_a_batch_that_is_not_halved_is_found(pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "play_little_memory", lambda _: None)
    assert [finding.holds for finding in checks.halves(checks.TINY, pictures)] == [False]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_the_device_script_says_is_told(pictures: torch.Tensor) -> None:
    if find_spec("pycuda") is None:
        (finding,) = checks.device_parts(checks.TINY, pictures)
        assert "scripts/install_pycuda.sh" in finding.found["told"]
    else:
        (finding,) = checks.device_parts(checks.Plan(), pictures)
        assert "there is no NVIDIA driver" in finding.found["error"]
        assert finding.holds is False


def test_a_dry_run_of_the_engine_goes_an_installers_way(pictures: torch.Tensor) -> None:
    findings = {finding.check: finding for finding in checks.engine_parts(checks.TINY, pictures)}
    assert {name: finding.holds for name, finding in findings.items()} == {
        "a model for the engine": None,
        "references in PyTorch": None,
        "golden frames": True,
        "speed of the engine": None,
    }
    assert findings["golden frames"].found["runtime"] == "onnxruntime"
    assert findings["references in PyTorch"].found["encoder_fp32_ms"] > 0
    assert findings["speed of the engine"].found["2 streams, per_s"] > 0


def test_the_engines_way_on_a_stand_in_for_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no dry run walks: it needs a GPU."""
    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    work = engine_checks.Workplace(tmp_path, replace(engine_checks.TINY, device="cuda"))
    work.state, work.trust = jetson.workshop.folder.root, jetson.workshop.public_key
    work.place = ("--state", work.state, "--trust", work.trust)
    monkeypatch.setattr(work, "kenpin", lambda *words, **_: (jetson.kenpin(*words).stdout, 1.0))
    monkeypatch.setattr(engine_checks, "Workplace", lambda *_: work)
    monkeypatch.setattr(work, "prepare", lambda: engine_checks.Finding("a model for the engine", {}))
    findings = {finding.check: finding for finding in engine_checks.run_checks(work.plan, tmp_path)}
    for precision in ("fp32", "int8"):
        built = findings[f"TensorRT builds {precision}"]
        assert (built.holds, built.found["tensorrt"], built.found["golden_worst"]) == (True, "10.3.0", 0)
        beside = findings[f"beside the bare engine, {precision}"].found
        assert beside["ratio"] == beside["ours_ms"] / beside["bare_ms"] > 0
    assert findings["golden frames"].found["runtime"] == "tensorrt"
    assert findings["speed of the engine"].found["runtime"] == "tensorrt"
    # There is no run here, and nothing else lacks it.
    assert [finding.check for finding in findings.values() if "error" in finding.found] == [
        "references in PyTorch"
    ]
    jetson.trt.fail_build = "no tactic"
    refused = list(engine_checks.build_engines(work, built_by_now := []))
    assert [finding.holds for finding in refused] == [False, False]
    assert "no tactic" in str(refused[0].found["error"])
    assert built_by_now == []


def pretend(monkeypatch: pytest.MonkeyPatch, root: Path, script: str) -> engine_checks.Workplace:
    """A workplace whose kenpin is a shell script, and whose time is over."""
    (root / "python").write_text(f"#!/bin/sh\n{script}\n")
    (root / "python").chmod(0o755)
    monkeypatch.setattr(engine_checks.sys, "executable", str(root / "python"))
    return engine_checks.Workplace(root, replace(engine_checks.TINY, limit_s=0))


def test_a_command_that_hangs_does_not_take_the_time_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = pretend(monkeypatch, tmp_path, "exec sleep 60")
    with pytest.raises(RuntimeError, match="kenpin build-engine: ended after 1 s, the time was over"):
        work.kenpin("build-engine")


def test_the_figures_of_golden_frames_that_do_not_pass_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "runtime": "tensorrt",
        "precision": "int8",
        "note": "",
        "fault": "",
        "tolerance": 0.1,
        "passed": False,
    }
    report = {**told, "frames": [{"score": 1.0, "expected": 1.0}, {"score": 2.5, "expected": 2.0}]}
    (tmp_path / "said").write_text(json.dumps({"report": report}))
    finding = engine_checks.golden_frames(pretend(monkeypatch, tmp_path, f"cat {tmp_path}/said; exit 1"))
    assert finding.holds is False
    assert (finding.found["worst"], finding.found["allowed"]) == (0.5, 0.1)


def test_utilisation_is_sampled_while_something_runs(tmp_path: Path) -> None:
    with checks.Utilisation((sys.executable, "-c", "print('37, 1024')")) as utilisation:
        while not utilisation.samples:
            pass
    assert utilisation.found == {"busy_percent": 37, "used_mib": 1024}
    for command in (str(tmp_path / "none"), sys.executable):
        with checks.Utilisation((command, "-c", "print('[N/A], 5')")) as unknown:
            pass
        assert unknown.found == {"busy_percent": None, "used_mib": None}


def test_many_pictures_are_all_different() -> None:
    many = checks.drawn(14, 32, kinds=3)
    assert many.shape == (14, 3, 32, 32)
    assert len({picture.numpy().tobytes() for picture in many}) == 14


def test_torchrun_takes_no_option_of_the_training_for_its_own(tmp_path: Path) -> None:
    command = checks.launch(checks.TINY, tmp_path, processes=2)
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    given = parse_args(command[3:])
    assert given.module
    assert given.training_script == "kenpin"
    assert given.training_script_args[:2] == ["train", "--good"]
    assert str(tmp_path / "run") in given.training_script_args


@pytest.mark.parametrize(("refused", "seed"), [(0, 0), (2, 2)])
def test_a_model_that_the_accuracy_gate_refuses_is_trained_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int, seed: int
) -> None:
    work = engine_checks.Workplace(tmp_path, engine_checks.TINY)
    exported: list[object] = []

    def kenpin(*words: object, **_: object) -> tuple[str, float]:
        if words[0] == "train":
            work.run.mkdir()
        if words[0] == "export":
            exported.append(words)
            if len(exported) <= refused:
                raise RuntimeError("kenpin export: error: INT8 does not keep the verdicts: 6 of 43 change")
        return "", 1.0

    monkeypatch.setattr(work, "kenpin", kenpin)
    assert work.prepare().found["seed"] == seed
    assert len(exported) == refused + 1
