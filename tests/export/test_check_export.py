"""scripts/check_export.py on a run that is there, and on one that the gate refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/check_export.py"


def check(run: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(run)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(run)}
    )


def test_a_run(run: Path) -> None:
    done = check(run)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "0 rules broken",
        "TensorRT-RTX",
        "stride 16",
        "returned to float",
        "90 wanted",
        "all in INT8",
        "did not choose",
    ):
        assert words in done.stdout


def test_a_run_that_is_refused_ends_with_1(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    data = json.loads((copy / "data.json").read_text())
    data["pictures"] = [row for row in data["pictures"] if row["role"] != "held_back"]
    (copy / "data.json").write_text(json.dumps(data))
    done = check(copy)
    assert done.returncode == 1
    assert "too few to know" in done.stdout
