"""Writes the commit into a wheel: its version alone does not tell what runs on a station."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_COMMIT = Path(__file__).parent / "kenpin" / "commit.py"


class BuildWithCommit(build_py):
    """Copies the packages as usual."""

    def run(self) -> None:
        """Copy them, and write the commit beside them."""
        super().run()
        commit = runpy.run_path(str(_COMMIT))["git_commit"]()
        if commit and not self.editable_mode:
            (Path(self.build_lib) / "kenpin" / "commit.txt").write_text(commit, encoding="ascii")


setup(cmdclass={"build_py": BuildWithCommit})
