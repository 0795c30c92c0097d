from __future__ import annotations

import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner

from kenpin.audit import read_audit
from kenpin.calibration.web.app import create_app
from kenpin.calibration.web.users import Users
from kenpin.calibration.web_cli import web
from kenpin.config import WebSection
from kenpin.errors import ConfigError
from kenpin.events import now_ms
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PIN, MakeVisit, Visit


def run(folder: StationFolder, *args: str, pin: str = PIN) -> object:
    command = ["user", *args, "--state", str(folder.root)]
    result = CliRunner().invoke(web, command, input=f"{pin}\n{pin}\n", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_users_are_added_listed_and_removed(folder: StationFolder) -> None:
    run(folder, "add", "sato", "--role", "technician")
    run(folder, "add", "abe", "--role", "engineer", "--pin-file", "-")
    told = json.loads(str(run(folder, "list", "--json")))["users"]
    assert [(u["name"], u["role"]) for u in told] == [("abe", "engineer"), ("sato", "technician")]
    assert PIN not in json.dumps(told)
    run(folder, "remove", "abe")
    assert list(Users(folder).read()) == ["sato"]


def test_a_folder_that_is_not_there_is_no_station_without_users(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such station folder"):
        run(StationFolder(tmp_path / "typo"), "list")


def test_every_change_of_users_is_in_the_audit(folder: StationFolder) -> None:
    for command in (
        ("add", "sato", "--role", "viewer", "--by", "abe"),
        ("add", "sato", "--role", "technician", "--by", "abe"),
        ("remove", "sato", "--by", "abe"),
    ):
        run(folder, *command)
    rows = read_audit(folder, PublicKey.load(folder.public_key))
    assert [(r["what"], r["by"], r["old"], r["new"]) for r in rows] == [
        ("users", "abe", "", "sato: viewer"),
        ("users", "abe", "sato: viewer", "sato: technician"),
        ("users", "abe", "sato: technician", ""),
    ]


def test_users_that_are_added_at_once_are_all_there(folder: StationFolder) -> None:
    names = [f"user{number}" for number in range(4)]
    with ThreadPoolExecutor(len(names)) as pool:
        for added in [pool.submit(Users(folder).add, name, "viewer", PIN, by="root") for name in names]:
            added.result()
    assert sorted(Users(folder).read()) == names


def test_a_pin_is_kept_as_argon2id_in_a_file_of_the_owner(people: StationFolder) -> None:
    path = Users(people).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PIN not in path.read_text()
    for user in Users(people).read().values():
        assert re.match(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$", user.pin)


def test_a_file_that_others_can_read_is_refused(people: StationFolder) -> None:
    users = Users(people)
    users.path.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others") as error:
        users.read()
    assert "chmod 600" in error.value.cure


def test_a_damaged_file_is_refused(people: StationFolder) -> None:
    users = Users(people)
    users.path.write_text('{"users": {"sato": {"role": "king"}}}')
    with pytest.raises(ConfigError, match="damaged"):
        users.read()


@pytest.mark.parametrize("pin", ["", "12345", "000000", "123456", "987654", "7" * 65])
def test_a_weak_pin_is_refused(folder: StationFolder, pin: str) -> None:
    with pytest.raises(ConfigError, match="easy to guess"):
        Users(folder).add("sato", "technician", pin, by="test")
    assert not Users(folder).path.exists()


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 33, "<b>"])
def test_a_name_is_a_word(folder: StationFolder, name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a user"):
        run(folder, "add", name, "--role", "viewer")


def test_an_unknown_name_costs_a_hash_as_well(people: StationFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    users = Users(people)
    real = PasswordHasher.verify

    def verify(hasher: PasswordHasher, stored: str, pin: str) -> bool:
        hashed.append(stored)
        return real(hasher, stored, pin)

    monkeypatch.setattr("argon2.PasswordHasher.verify", verify)
    assert users.verify("nobody", PIN) is None
    assert users.verify("sato", "wrong-pin") is None
    assert users.verify("sato", PIN) is not None
    assert len(hashed) == 3
    assert all(stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$") for stored in hashed)


@pytest.mark.parametrize("change", ["add", "remove"])
def test_who_is_removed_or_changed_is_logged_out(visit: MakeVisit, people: StationFolder, change: str) -> None:
    browser = visit(open_view=False)
    assert browser.log_in("sato").status_code == 303
    assert browser.get("/log").status_code == 200
    if change == "add":
        Users(people).add("sato", "viewer", "another-pin", by="test")
    else:
        Users(people).remove("sato", by="test")
    assert browser.get("/log").status_code == 401


def test_a_clock_that_is_behind_keeps_nobody_out(
    visit: MakeVisit, people: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Jetson without a battery starts in the past, before the users were added."""
    monkeypatch.setattr("kenpin.calibration.web.session.now_ms", lambda: now_ms() - 86_400_000)
    browser = visit(open_view=False)
    assert browser.log_in("sato").status_code == 303
    assert browser.get("/log").status_code == 200


def test_without_users_the_page_says_how_to_add_one(folder: StationFolder) -> None:
    app = create_app(folder, WebSection(), station="L2-03")
    answer = Visit(app, base_url="https://127.0.0.1", client=("127.0.0.1", 1)).get("/login")
    assert f"kenpin web user add NAME --role technician --state {folder.root}" in answer.text
