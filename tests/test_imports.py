"""What runs on a station must import where torch and onnx are not installed, nor TensorRT and pycuda."""

from __future__ import annotations

import subprocess
import sys

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
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    for needed in ("kenpin.bundle", "kenpin.record", "kenpin.edge_runtime.station", "kenpin.edge_runtime.cli"):
        assert needed in imported
    assert any(name.startswith("kenpin.calibration.") for name in imported)
