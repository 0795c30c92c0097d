"""What errors say: words of the system without its numbers, and commands that can be pasted into a shell."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kenpin.cli import cli
from kenpin.errors import KenpinError, private_again, reason_of
from kenpin.station_folder import StationFolder

ROOT = Path(__file__).parents[1]
STAGES = ("kenpin", "train", "export", "edge_runtime", "calibration")


@pytest.mark.parametrize(
    "command",
    [
        "calibrate msa --decisions PATH --state .",
        "mqtt issue --pki PATH --client st9",
        "bench engine --against PATH --state .",
        "record --source replay:PATH --out new",
    ],
)
def test_a_file_that_is_not_there_is_told_in_words(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(cli, shlex.split(command.replace("PATH", "gone"))).exception
    assert isinstance(error, KenpinError)
    assert error.what.endswith("No such file or directory")
    assert "gone" in error.where
    assert error.cure


def test_what_a_file_holds_instead_of_text_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "pin").write_bytes(b"\xff\xfe\x00")
    command = ["web", "user", "add", "ann", "--role", "viewer", "--pin-file", str(tmp_path / "pin")]
    error = CliRunner().invoke(cli, [*command, "--state", str(tmp_path)]).exception
    assert isinstance(error, KenpinError)
    assert error.what.endswith("it is not UTF-8 text")
    assert str(tmp_path / "pin") == error.where


def test_what_no_system_says_stays_as_it_is() -> None:
    assert reason_of(ValueError("line contains NUL")) == "line contains NUL"
    assert reason_of(KeyError("rows")) == "it lacks 'rows'"
    assert reason_of(OSError("timed out")) == "timed out"


def test_paths_with_spaces_can_be_pasted() -> None:
    assert private_again(Path("/a b/key"), "/c") == "chmod 600 '/a b/key' /c"
    assert StationFolder(Path("/line 1/kenpin")).as_option == "--state '/line 1/kenpin'"


def test_no_command_in_a_sentence_has_a_path_as_it_is() -> None:
    found = [f"{path.relative_to(ROOT)}:{line}" for path in _sources() for line in _unquoted(path)]
    assert not found


def _sources() -> list[Path]:
    found = (path for stage in STAGES for path in (ROOT / stage).rglob("*.py"))
    return sorted(path for path in found if not any(above.is_symlink() for above in path.parents))


def _unquoted(path: Path) -> Iterator[int]:
    """Lines of f-strings where an option or command that takes a path is followed by a value without quotes."""
    for text in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(text, ast.JoinedStr):
            for before, value in zip(text.values, text.values[1:], strict=False):
                is_command = isinstance(before, ast.Constant) and re.search(
                    r"(--state|--bundle|bundle install|chmod \S+|chown -R \S+|-c) $",
                    str(before.value),
                )
                if is_command and isinstance(value, ast.FormattedValue) and not _is_quoted(value.value):
                    yield text.lineno


def _is_quoted(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "quote"
