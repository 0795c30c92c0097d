"""The rule of continuous integration, KENPIN_STRICT=1: what is skipped was not tested."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def _pytest(folder: Path, test: str, *, strict: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one test file in a folder of its own, with the hooks of this one."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (folder / "test_it.py").write_text(f"import pytest\n{test}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    env = {**os.environ, "KENPIN_STRICT": strict}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=env)


@pytest.mark.parametrize(
    "test",
    [
        "def test_it():\n    pytest.skip('no broker')",
        "@pytest.mark.skip(reason='no broker')\ndef test_it():\n    pass",
        "pytest.importorskip('no_such_package')",
    ],
    ids=["in the test", "marked", "the whole module"],
)
def test_a_skipped_test_has_failed_in_a_strict_run(tmp_path: Path, test: str) -> None:
    done = _pytest(tmp_path, test, strict="1")
    assert done.returncode != 0
    assert "skipped in a strict run" in done.stdout


@pytest.mark.parametrize(
    ("test", "strict"),
    [
        ("def test_it():\n    pytest.skip('no broker')", "0"),
        ("@pytest.mark.gpu\ndef test_it():\n    pytest.skip('no GPU')", "1"),
    ],
    ids=["not strict", "gpu"],
)
def test_other_skips_are_fine(tmp_path: Path, test: str, strict: str) -> None:
    done = _pytest(tmp_path, test, strict=strict)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
