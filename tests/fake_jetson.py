"""A station whose GPU is not there: fake TensorRT and fake device, around real bundles and commands."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kenpin.build_log import log_path
from kenpin.cli import cli
from kenpin.engine_passport import Passport
from kenpin.engine_store import PASSPORT
from tests.edge_runtime import fake_device
from tests.edge_runtime.conftest import Workshop
from tests.fake_tensorrt import FakeTensorrt, make_tensorrt


@dataclass
class FakeJetson:
    """The station, its TensorRT and its GPU."""

    workshop: Workshop
    trt: FakeTensorrt
    device: type[fake_device.Device]

    def kenpin(self, *words: object) -> Result:
        """Run a command in this process; its errors are raised."""
        return CliRunner().invoke(cli, [str(w) for w in words], standalone_mode=False, catch_exceptions=False)

    def build(self, *words: object) -> Result:
        """Build an engine of the active bundle."""
        trust = ("--trust", self.workshop.public_key)
        return self.kenpin("build-engine", "--state", self.workshop.folder.root, *trust, *words)

    @property
    def engine(self) -> Path:
        """The folder of the one engine."""
        (place,) = (path for path in self.workshop.folder.engines.iterdir() if path.is_dir())
        return place

    @property
    def plan(self) -> Path:
        """Its plan."""
        (plan,) = self.engine.glob("*.plan")
        return plan

    @property
    def passport(self) -> Passport:
        """Its passport."""
        return Passport.model_validate(json.loads((self.engine / PASSPORT).read_text())["passport"])

    def build_steps(self) -> list[dict[str, Any]]:
        """The lines of the last build."""
        return [json.loads(line) for line in log_path(self.workshop.folder).read_text().splitlines()]


def make_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> FakeJetson:
    """A station with a bundle, calibrated, without an engine."""
    workshop = Workshop(tmp_path)
    workshop.public_key.write_text(workshop.signer.public.dumps())
    workshop.ready()
    trt = make_tensorrt(version)
    device: Any = type("Device", (fake_device.Device,), {})
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr("kenpin.edge_runtime.device.Device", device)
    monkeypatch.setattr("kenpin.export.build_engine_cli.Device", device)
    monkeypatch.setattr(fake_device, "opened", [])
    return FakeJetson(workshop, trt, device)
