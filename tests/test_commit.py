from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kenpin import commit

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of somebody else's, with our module lying in it."""
    module = tmp_path / "commit.py"
    module.write_text("")
    (tmp_path / "theirs").write_text("")
    for words in (["init", "--quiet"], ["add", "theirs"], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*GIT, *words], check=True, cwd=tmp_path)
    monkeypatch.setattr(commit, "__file__", str(module))
    commit.git_commit.cache_clear()
    yield tmp_path
    commit.git_commit.cache_clear()


def test_the_commit_of_another_checkout_is_not_ours(checkout: Path) -> None:
    assert commit.git_commit() == ""


def test_local_changes_show(checkout: Path) -> None:
    for words in (["add", "."], ["commit", "--quiet", "-m", "ours"]):
        subprocess.run([*GIT, *words], check=True, cwd=checkout)
    clean = commit.git_commit()
    assert len(clean) == 12
    (checkout / "theirs").write_text("changed")
    commit.git_commit.cache_clear()
    assert commit.git_commit() == clean + "+"


def test_what_was_packed_counts_first(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = checkout / "commit.txt"
    packed.write_text("0123456789ab")
    monkeypatch.setattr(commit, "PACKED", packed)
    assert commit.git_commit() == "0123456789ab"
