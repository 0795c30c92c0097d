"""Optional logging of a training to TensorBoard or MLflow. Their packages are imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from kenpin.errors import ConfigError

_MODULES = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}
KINDS = ("none", *_MODULES)


class Tracker(Protocol):
    """Takes the figures of a training, step by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of one step."""

    def close(self) -> None:
        """Write what is still in memory; nothing is logged after it."""


def open_tracker(kind: str, folder: Path) -> Tracker:
    """Start to log. Everything stays in the folder, nothing is sent anywhere.

    Args:
        kind: `none`, `tensorboard` (written to `tensorboard/`) or `mlflow` (written to `mlflow.db`).
        folder: The run folder.

    Raises:
        ConfigError: As `load_package`.
    """
    package = load_package(kind)
    if kind == "tensorboard":
        return _TensorBoard(package, folder)
    if kind == "mlflow":
        return _Mlflow(package, folder)
    return _Silence()


def load_package(kind: str) -> Any:
    """Import what a kind of logging needs; nothing is written.

    Raises:
        ConfigError: The kind is unknown, or its package is not installed.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no logging to {kind!r}", cure=f"give one of: {', '.join(KINDS)}")
    try:
        return importlib.import_module(_MODULES[kind]) if kind in _MODULES else None
    except ImportError as error:
        raise ConfigError(
            f"logging to {kind} needs a Python package that is not installed: {error}",
            where=f"--log {kind}",
            cure=f"pip install {kind}",
        ) from None


class _Silence:
    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class _TensorBoard:
    def __init__(self, tensorboard: Any, folder: Path) -> None:
        self._writer = tensorboard.SummaryWriter(log_dir=str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Mlflow:
    def __init__(self, mlflow: Any, folder: Path) -> None:
        root = folder.resolve()
        # A client of its own: mlflow.start_run would write to the store that the environment names. SQLite,
        # because MLflow 3 refuses its own folder store.
        self._client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
        known = self._client.get_experiment_by_name(root.name)
        experiment = (
            known.experiment_id
            if known
            else self._client.create_experiment(root.name, artifact_location=(root / "mlartifacts").as_uri())
        )
        self._run = self._client.create_run(experiment).info.run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)
