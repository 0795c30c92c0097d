"""Which module may import which: the contracts in pyproject.toml are complete and catch what they should."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parent.parent
STAGES = ("calibration", "edge_runtime", "export", "train")
STATION_STAGES = ("calibration", "edge_runtime")
# What of export runs on a station: it builds the engine there.
STATION_EXPORT = {
    f"kenpin.export.{name}" for name in ("build_engine", "build_engine_cli", "build_progress", "model_header")
}
STATION_CONTRACT = "Nothing on a station needs torch or onnx"
SHARED_CONTRACT = "The shared package knows no stage"


def _sources(contract: str) -> set[str]:
    """The modules that a contract of this name watches."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    return {name for c in contracts if c["name"] == contract for name in c["source_modules"]}


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("stage", STAGES)
def test_ruff_forbids_the_short_import_of_a_stage(stage: str, tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(f"import {stage}\nfrom {stage} import cli\n")
    settings = REPOSITORY / "pyproject.toml"
    done = _run(sys.executable, "-m", "ruff", "check", "--no-cache", "--config", settings, ".", cwd=tmp_path)
    assert done.stdout.count("TID251") == 2
    assert f"write kenpin.{stage}" in done.stdout


def test_the_contracts_name_every_shared_module() -> None:
    modules = {f"kenpin.{path.stem}" for path in (REPOSITORY / "kenpin").glob("*.py")} - {"kenpin.__init__"}
    # The demo runs every stage, on a workstation.
    shared = {name for name in modules if not name.startswith("kenpin.demo")}
    stages = {f"kenpin.{stage}" for stage in STATION_STAGES}
    assert _sources(SHARED_CONTRACT) == shared
    assert _sources(STATION_CONTRACT) == shared | stages | STATION_EXPORT


@pytest.mark.parametrize(
    ("module", "imports", "contract"),
    [
        ("train/new.py", "kenpin.export", "export -> train, calibration -> edge_runtime"),
        ("edge_runtime/new.py", "kenpin.calibration", "export -> train, calibration -> edge_runtime"),
        ("export/new.py", "kenpin.edge_runtime", "The workstation meets the station"),
        ("calibration/new.py", "kenpin.train", "The station meets the workstation"),
        ("kenpin/errors.py", "kenpin.calibration", SHARED_CONTRACT),
        ("edge_runtime/new.py", "torch.nn", STATION_CONTRACT),
        ("export/build_engine_cli.py", "kenpin.export.quantize", STATION_CONTRACT),
        ("export/build_engine.py", "kenpin.edge_runtime.device", "The workstation meets the station"),
        ("kenpin/errors.py", "onnx", STATION_CONTRACT),
    ],
)
def test_each_contract_catches_what_it_should(tmp_path: Path, module: str, imports: str, contract: str) -> None:
    for name in ("kenpin", *STAGES):
        shutil.copytree(REPOSITORY / name, tmp_path / name, symlinks=True)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as source:
        source.write(f"\nimport {imports}\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = _run(linter, "--no-cache", "--no-logo", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(rf"^{re.escape(contract)}.* BROKEN", done.stdout, re.MULTILINE), done.stdout
