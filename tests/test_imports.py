"""What runs on a station imports where torch, onnx, TensorRT and pycuda are missing, and each benchmark."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PROGRAM = """
import importlib, pkgutil, sys

poisoned = "torch onnx onnxscript lightning_fabric torchmetrics matplotlib pycuda tensorrt"
for name in poisoned.split():
    sys.modules[name] = None  # importing it now raises

import kenpin
import kenpin.calibration
import kenpin.edge_runtime

elsewhere = {"kenpin.train", "kenpin.export", "kenpin.demo", "kenpin.__main__"}
found = [m.name for m in pkgutil.iter_modules(kenpin.__path__, "kenpin.")]
for stage in (kenpin.edge_runtime, kenpin.calibration):
    found += [m.name for m in pkgutil.walk_packages(stage.__path__, stage.__name__ + ".")]
# export's one part that runs on a station
found.append("kenpin.export.build_engine_cli")
for name in sorted(set(found) - elsewhere):
    importlib.import_module(name)
    print(name)
"""


def test_station_modules_import_without_torch_and_onnx() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    for needed in ("kenpin.bundle", "kenpin.record", "kenpin.edge_runtime.station", "kenpin.edge_runtime.cli"):
        assert needed in imported
    assert any(name.startswith("kenpin.calibration.") for name in imported)


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("benchmarks/*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_what_is_there(path: Path) -> None:
    """Nothing else runs most of them, and what they measure is renamed now and then."""
    importlib.import_module(f"benchmarks.{path.stem}")
