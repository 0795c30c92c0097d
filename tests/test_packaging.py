"""The house as it is installed: what the wheel holds, and that a stranger's folder cannot break it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parent.parent
STAGES = ("calibration", "edge_runtime", "export", "train")
# Installs and builds what is here: no network, no other package.
OFFLINE = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
WHERE = "import kenpin, kenpin.train, kenpin.export; print(kenpin.train.__file__, kenpin.export.__file__)"


def _run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def _house(repository: Path) -> set[str]:
    """Every file of the packages, as it is installed."""
    places = {"kenpin": repository / "kenpin", **{f"kenpin/{s}": repository / s for s in STAGES}}
    page = ("calibration/web", "calibration/web/templates", "calibration/web/static")
    places |= {f"kenpin/{name}": repository / name for name in page}
    return {
        f"{place}/{path.name}"
        for place, folder in places.items()
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith(".pyc")
    }


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources, with its links, that a test may build in and break."""
    target = tmp_path / "copy"
    target.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("kenpin", *STAGES):
        shutil.copytree(REPOSITORY / name, target / name, symlinks=True, ignore=unwanted)
    for path in REPOSITORY.iterdir():
        # In a worktree .git is a file, by which git would take the copy for the repository itself.
        if path.is_file() and path.suffix in ("", ".in", ".md", ".py", ".toml", ".txt") and path.name != ".git":
            shutil.copy(path, target)
    return target


@pytest.fixture
def rogue(tmp_path: Path) -> Path:
    """A working folder with files named like our stages."""
    folder = tmp_path / "rogue"
    folder.mkdir()
    for stage in STAGES:
        (folder / f"{stage}.py").write_text("raise SystemExit('the rogue file was imported')\n")
    return folder


def test_sdist_to_wheel_holds_each_file_once_and_nothing_outside(
    copy: Path, tmp_path: Path, rogue: Path
) -> None:
    _run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", tmp_path, copy, cwd=tmp_path)
    with tarfile.open(next(tmp_path.glob("kenpin-*.tar.gz"))) as archive:
        assert not [member.name for member in archive if member.issym() or member.islnk()]
        names = {member.name.partition("/")[2] for member in archive}
        archive.extractall(tmp_path / "sdist", filter="data")
    assert {"LICENSE", "README.md", "pyproject.toml", "constraints.txt", "train/report.html.jinja"} <= names
    assert not [name for name in names if name.startswith(tuple(f"kenpin/{s}/" for s in STAGES))]

    sources = next((tmp_path / "sdist").iterdir())
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", tmp_path, sources, cwd=tmp_path)
    wheel = next(tmp_path.glob("kenpin-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        installed = archive.namelist()
    assert len(installed) == len(set(installed))
    packaged = {name for name in installed if not re.match(r"kenpin-[^/]+\.dist-info/", name)}
    assert packaged == _house(REPOSITORY)
    assert {"kenpin/py.typed", "kenpin/train/report.html.jinja"} <= packaged
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in installed)

    _run(sys.executable, "-m", "pip", "install", *OFFLINE, "--target", tmp_path / "lib", wheel, cwd=rogue)
    lib = {"PYTHONPATH": str(tmp_path / "lib")}
    assert _run(sys.executable, "-c", WHERE, cwd=rogue, env=lib).count(str(tmp_path / "lib")) == 2
    assert "kenpin" in _run(sys.executable, "-m", "kenpin", "--version", cwd=rogue, env=lib)


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_an_editable_install_follows_the_sources(copy: Path, tmp_path: Path, rogue: Path, mode: str) -> None:
    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    # The packages of this environment, but not its own editable install of kenpin.
    here = _run(sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    site = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    (Path(site.strip()) / "packages.pth").write_text(here)
    pip = (sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, "--ignore-installed")
    _run(*pip, "--config-settings", f"editable_mode={mode}", "-e", copy, cwd=rogue)
    (copy / "train/__init__.py").write_text("EDITED = True\n")
    assert _run(python, "-c", "from kenpin.train import EDITED; print(EDITED)", cwd=rogue) == "True\n"
    assert "Usage: kenpin" in _run(tmp_path / "venv/bin/kenpin", "--help", cwd=rogue)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_pip_installs_from_a_git_repository(copy: Path, tmp_path: Path, rogue: Path) -> None:
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        _run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments, cwd=copy)
    url = f"git+file://{copy}"
    _run(sys.executable, "-m", "pip", "install", *OFFLINE, "--target", tmp_path / "lib", url, cwd=rogue)
    lib = {"PYTHONPATH": str(tmp_path / "lib")}
    found = _run(sys.executable, "-c", WHERE, cwd=rogue, env=lib)
    assert found.count(str(tmp_path / "lib/kenpin")) == 2
    commit = _run("git", "rev-parse", "--short=12", "HEAD", cwd=copy).strip()
    assert f"({commit})" in _run(sys.executable, "-m", "kenpin", "--version", cwd=rogue, env=lib)


def test_a_bare_checkout_works_through_its_links(copy: Path, rogue: Path) -> None:
    found = _run(sys.executable, "-c", WHERE, cwd=rogue, env={"PYTHONPATH": str(copy)})
    assert found.count(str(copy / "kenpin")) == 2
    assert all((REPOSITORY / "kenpin" / stage).readlink() == Path("..", stage) for stage in STAGES)


def test_what_is_installed_first_is_what_constraints_pin() -> None:
    constraints = (REPOSITORY / "constraints.txt").read_text()
    pins = [line.partition("#")[0].strip() for line in constraints.splitlines()]
    pin = r"[a-z0-9.-]+==[0-9.]+(post[0-9]+)?(; python_version (<|>=) \"3\.11\")?"
    assert all(re.fullmatch(pin, p) for p in pins if p)
    (torch,) = [pin for pin in pins if pin.startswith("torch==")]
    for name in ("Makefile", "README.md", "CONTRIBUTING.md"):
        assert torch in (REPOSITORY / name).read_text(), f"{name} installs another torch"


def test_what_is_pinned_for_every_python_runs_on_the_oldest() -> None:
    """JetPack 6 and Ubuntu 22.04 have Python 3.10; one pin that it cannot have, and nothing is installed."""
    pins = re.findall(r"^([a-z0-9.-]+)==([0-9.]+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    installed = {d.name.lower().replace("_", "-"): d.metadata["Requires-Python"] for d in distributions()}
    asked = {name: installed[name] for name, _ in pins if name in installed}
    assert len(asked) > 80
    least = {
        name: max(map(int, re.findall(r">=? *3\.(\d+)", wants or "")), default=0)
        for name, wants in asked.items()
    }
    assert [name for name, minor in least.items() if minor > 10] == []


def test_every_direct_dependency_is_pinned_and_explained() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {re.split(r"[\[<>=;]", requirement)[0].lower() for requirement in wanted} - {"kenpin"}
    pinned = re.findall(r"^([a-z0-9.-]+)==", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    explained = (REPOSITORY / "docs/dependencies.md").read_text()
    assert names <= set(pinned)
    assert all(f"| {name} |" in explained for name in names)
