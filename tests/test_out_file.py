from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kenpin import cli
from kenpin.bundle import MANIFEST, write_bundle
from kenpin.errors import ConfigError
from kenpin.out_file import refuse_other
from kenpin.signing import SecretKey
from tests import specimens

# What writes one file, and one word more than it needs before it looks at the file.
WRITERS = {
    "export": ("export", "RUN", "--out"),
    "support": ("support", "--config", "station.toml", "--out"),
    "verify-engine": ("verify-engine", "--out"),
    "bench engine": ("bench", "engine", "--save"),
    "report": ("report", "compare", "RUN", "RUN2", "--out"),
}


def _writers(group: click.Group, *path: str) -> set[str]:
    """Commands with an option for a file to write; those that make a new folder, and never over one, apart."""
    found, context = set(), click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            found |= _writers(command, *path, name)
        elif command is not None:
            options = (p for p in command.params if isinstance(p, click.Option) and p.name in {"out", "save"})
            if any("older" not in (option.help or "folder") for option in options):
                found.add(" ".join((*path, name)))
    return found


def test_every_command_that_writes_a_file_is_looked_at() -> None:
    assert _writers(cli.cli) - {"bundle keygen"} == set(WRITERS)  # a key is never overwritten at all


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_file_that_the_command_did_not_write_is_not_replaced(tmp_path: Path, words: tuple[str, ...]) -> None:
    out = tmp_path / "station.toml"
    out.write_text("[station]\n")
    done = CliRunner().invoke(cli.cli, [*words, str(out)])
    assert isinstance(done.exception, ConfigError)
    assert "did not write" in done.exception.what
    assert f"give {words[-1]} another name" in done.exception.cure
    assert out.read_text() == "[station]\n"


def test_a_signature_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.minisig").write_text("trusted comment: somebody else's\n")
    done = CliRunner().invoke(cli.cli, ["verify-engine", "--out", str(tmp_path / "model")])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.where == str(tmp_path / "model.minisig")


def test_a_new_an_empty_and_an_own_file_may_be_written(tmp_path: Path) -> None:
    own, empty = tmp_path / "own.kenpin", tmp_path / "empty"
    fields = specimens.manifest(golden=[specimens.golden(1.0, (1, 2, 3))], score_stats={"mean": 0.5})
    write_bundle(own, manifest=fields, files={}, key=SecretKey.generate())
    empty.touch()
    for path in (own, empty, tmp_path / "new", tmp_path / "nowhere" / "new", tmp_path):
        refuse_other(path, MANIFEST)
