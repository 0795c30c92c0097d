from __future__ import annotations

import getpass
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kenpin.calibration.fit_cli import confirm
from kenpin.calibration.masters_cli import check, interval, show
from kenpin.calibration.place_cli import cost
from kenpin.errors import ConfigError
from kenpin.options import signer


def test_who_signs_is_who_is_named_or_called_sudo_or_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "sato")
    monkeypatch.setattr(getpass, "getuser", lambda: "kenpin")
    assert (signer("abe"), signer()) == ("abe", "sato")
    monkeypatch.delenv("SUDO_USER")
    assert signer() == "kenpin"


def test_nobody_signs_for_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("uid not found: 4711")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", nameless)
    with pytest.raises(ConfigError, match="no login name") as error:
        signer()
    assert "--by" in error.value.cure


def test_who_may_not_read_the_folder_is_told_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.F_OK)
    for user, cure in ((os.geteuid(), f"chmod u+rwx {tmp_path}"), (12345, f"sudo -u {getpass.getuser()} …")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        done = CliRunner().invoke(show, ["--state", str(tmp_path)])
        assert isinstance(done.exception, ConfigError)
        assert done.exception.what == "this user may not read the station's folder"
        assert done.exception.cure.endswith(cure)


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "station.toml").touch()
    error = CliRunner().invoke(show, ["--state", str(tmp_path / "station.toml")]).exception
    assert isinstance(error, ConfigError)
    assert error.what == "the station's folder is a file"


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(
    ("command", "given"),
    [
        (interval, "{} --why x"),
        (check, "--wait-s {}"),
        (confirm, "--scores fresh.csv --precision int8 --at-most {}"),
        (cost, "--false-call {} --escape 1 --review 1 --defect-rate 0.1"),
        (cost, "--false-call 1 --escape {} --review 1 --defect-rate 0.1"),
        (cost, "--false-call 1 --escape 1 --review {} --defect-rate 0.1"),
        (cost, "--false-call 1 --escape 1 --review 1 --defect-rate {}"),
    ],
)
def test_what_is_no_number_is_wrong_usage(
    tmp_path: Path, command: click.Command, given: str, value: str
) -> None:
    said = CliRunner().invoke(command, [*given.format(value).split(), "--state", str(tmp_path)])
    assert said.exit_code == 2
    assert "Invalid value for" in said.output
