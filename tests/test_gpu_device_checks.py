"""scripts/gpu_device_checks.py on a driver in host memory: it walks its ways and says what does not hold."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/gpu_device_checks.py"
needs_pycuda = pytest.mark.skipif(
    find_spec("pycuda") is None, reason="scripts/install_pycuda.sh has not been run"
)

# Runs the script after a line that breaks something.
BROKEN = """
import sys; sys.argv = ["it", "--dry-run-on-cpu"]; sys.path.insert(0, {folder!r})
import runpy
import numpy as np
from kenpin.edge_runtime import cuda_graph, device, frame_kernel
from kenpin.errors import EngineError
{line}
runpy.run_path({script!r}, run_name="__main__")
"""


def run(*command: str) -> tuple[int, dict[str, bool | None]]:
    done = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)
    assert done.stdout, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert (told[0]["check"], told[0]["found"]["name"]) == ("device", "Fake Orin")
    return done.returncode, {finding["check"]: finding["holds"] for finding in told[1:]}


@needs_pycuda
def test_a_dry_run_walks_every_way() -> None:
    code, holds = run(str(SCRIPT), "--dry-run-on-cpu")
    assert code == 0
    assert holds == {
        "copies to the device and back": True,
        "kernel against to_input": True,
        "upload of a frame": None,
        "preprocess 160 x 90 to 32": None,
        "CUDA graph": True,
    }


@needs_pycuda
@pytest.mark.parametrize(
    ("line", "fails"),
    [
        (
            "device.Device.download = lambda *_: None",
            ["copies to the device and back", "kernel against to_input"],
        ),
        ("frame_kernel._SOURCE = frame_kernel._SOURCE.with_name('none.cu')", None),
        ("cuda_graph._BEGIN = 'cuNone'", ["CUDA graph"]),
        ("device.Device.record_graph = lambda *_: 1 / 0", ["records"]),
    ],
    ids=["no copies", "no kernel", "no graphs", "a mistake"],
)
def test_what_does_not_hold_is_found_and_the_rest_goes_on(line: str, fails: list[str] | None) -> None:
    code, holds = run("-c", BROKEN.format(line=line, folder=str(SCRIPT.parent), script=str(SCRIPT)))
    assert code == 1
    assert len(holds) == 5
    failed = [check for check, held in holds.items() if held is False]
    assert failed == (list(holds) if fails is None else fails)


def test_without_a_driver_it_says_so() -> None:
    done = subprocess.run([sys.executable, SCRIPT], check=False, capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no NVIDIA driver")
