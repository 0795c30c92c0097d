"""Logging to TensorBoard and MLflow: what they are told, and what is said where they are missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from kenpin.errors import ConfigError
from kenpin.train.cli import train
from kenpin.train.tracking import KINDS, open_tracker

Calls = list[tuple[Any, ...]]


class Writer:
    """Stands for SummaryWriter."""

    def __init__(self, calls: Calls, log_dir: str) -> None:
        self.calls = calls
        calls.append(("open", log_dir))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.calls.append((tag, value, step))

    def close(self) -> None:
        self.calls.append(("close",))


class Client:
    """Stands for MlflowClient, with or without an experiment of an earlier run."""

    def __init__(self, calls: Calls, tracking_uri: str, *, known: bool) -> None:
        self.calls, self.known = calls, known
        calls.append(("open", tracking_uri))

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id="7") if self.known else None

    def create_experiment(self, name: str, artifact_location: str) -> str:
        self.calls.append(("experiment", name, artifact_location))
        return "8"

    def create_run(self, experiment: str) -> SimpleNamespace:
        self.calls.append(("run", experiment))
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def log_metric(self, run: str, name: str, value: float, *, step: int) -> None:
        self.calls.append((run, name, value, step))

    def set_terminated(self, run: str) -> None:
        self.calls.append(("close", run))


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    fake = ModuleType(name)
    vars(fake).update(content)
    monkeypatch.setitem(sys.modules, name, fake)


def test_tensorboard_is_told_every_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: Calls = []
    module(monkeypatch, "torch.utils.tensorboard", SummaryWriter=lambda log_dir: Writer(calls, log_dir))
    tracker = open_tracker("tensorboard", tmp_path)
    tracker.log(3, {"loss": 1.5, "rate": 0.1})
    tracker.close()
    folder = str(tmp_path / "tensorboard")
    assert calls == [("open", folder), ("loss", 1.5, 3), ("rate", 0.1, 3), ("close",)]


@pytest.mark.parametrize("known", [False, True], ids=["first", "resumed"])
def test_mlflow_is_told_every_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, known: bool) -> None:
    calls: Calls = []
    module(monkeypatch, "mlflow", MlflowClient=lambda tracking_uri: Client(calls, tracking_uri, known=known))
    run = tmp_path / "my run"
    tracker = open_tracker("mlflow", run)
    tracker.log(3, {"loss": 1.5})
    tracker.close()
    created = [] if known else [("experiment", "my run", (run / "mlartifacts").as_uri())]
    assert calls == [
        ("open", f"sqlite:///{run / 'mlflow.db'}"),
        *created,
        ("run", "7" if known else "8"),
        ("r", "loss", 1.5, 3),
        ("close", "r"),
    ]


@pytest.mark.parametrize(("kind", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_missing_package_is_named_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="not installed") as refused:
        open_tracker(kind, tmp_path)
    assert refused.value.cure == f"pip install {package}"
    assert refused.value.where == f"--log {kind}"


def test_a_missing_package_is_told_before_there_is_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = tmp_path / "run"
    done = CliRunner().invoke(train, ["--good", str(tmp_path), "--run", str(run), "--log", "mlflow"])
    assert isinstance(done.exception, ConfigError)
    assert "mlflow" in str(done.exception)
    assert not run.exists()


def test_no_logging_writes_nothing(tmp_path: Path) -> None:
    tracker = open_tracker("none", tmp_path)
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wandb") as refused:
        open_tracker("wandb", tmp_path)
    assert all(kind in refused.value.cure for kind in KINDS)
