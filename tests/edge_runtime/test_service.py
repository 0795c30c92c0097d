from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kenpin.edge_runtime import service_cli

LIMIT = 25  # systemd-analyze's exposure times ten


def kenpin(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kenpin", "service", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def units(workshop: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "units"
    folder.mkdir()
    workshop.port = 1883
    done = kenpin("install", "--config", workshop.toml("usb:0"), "--user", "daemon", "--dir", folder)
    assert done.returncode == 0, done.stderr
    assert "systemctl enable --now kenpin.target" in done.stderr
    return folder


def test_units_are_written_for_a_user_who_is_there_and_owns_the_folder(workshop: Any, tmp_path: Path) -> None:
    fixed = ("install", "--config", workshop.toml("usb:0"), "--dir", tmp_path, "--user")
    stranger = kenpin(*fixed, "nobody-by-this-name")
    assert stranger.returncode == 2
    assert "there is no user nobody-by-this-name here" in stranger.stderr
    workshop.folder.root.mkdir()
    other = kenpin(*fixed, "daemon")
    assert other.returncode == 2
    assert f"the station's folder belongs to {workshop.folder.root.owner()}" in other.stderr
    assert not list(tmp_path.glob("kenpin*"))


def test_every_process_is_a_unit(units: Path) -> None:
    assert sorted(path.name for path in units.iterdir()) == [
        "kenpin-capture@.service",
        "kenpin-health.service",
        "kenpin-publisher.service",
        "kenpin-station.service",
        "kenpin-web.service",
        "kenpin.target",
    ]
    target = (units / "kenpin.target").read_text()
    assert "kenpin-capture@0.service" in target
    assert "kenpin-publisher.service" in target


def test_what_the_configuration_leaves_out_has_no_unit(workshop: Any, tmp_path: Path) -> None:
    config = workshop.toml("usb:0")
    config.write_text(config.read_text() + '[health]\nlisten = ""\n')
    assert kenpin("install", "--config", config, "--dir", tmp_path).returncode == 0
    target = (tmp_path / "kenpin.target").read_text()
    for role in ("health", "publisher"):
        assert role not in target
        assert not (tmp_path / f"kenpin-{role}.service").exists()


def test_no_unit_has_more_rights_than_it_should(units: Path, tmp_path: Path) -> None:
    for path in units.glob("*.service"):
        found = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", f"--threshold={LIMIT}", "--no-pager", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        overall = re.search(r"Overall exposure level for .*?: ([0-9.]+)", found.stdout)
        assert overall, found.stderr
        assert float(overall[1]) * 10 <= LIMIT, f"{path.name}: {found.stdout}"
        assert found.returncode == 0


def test_no_unit_is_ever_given_up(units: Path) -> None:
    for path in units.glob("*.service"):
        assert "\nStartLimitIntervalSec=0\n" in path.read_text()
        assert "\nRestart=always\nRestartSec=2\n" in path.read_text()


def test_systemd_understands_every_line(units: Path) -> None:
    names = [str(path) for path in sorted(units.iterdir()) if "@" not in path.name]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "kenpin" in line and "not found" not in line]
    assert ours == []


def test_the_nodes_that_cuda_opens_on_an_orin_are_allowed(tmp_path: Path) -> None:
    cuda = ("nvmap", "nvgpu/igpu0/ctrl", "nvgpu/igpu0/as", "host1x-fence", "dri/renderD128", "nvhost-ctrl-gpu")
    for name in (*cuda, "nvidia0", "video0", "sda", "mem"):
        node = tmp_path / name
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
    found = {Path(node).relative_to(tmp_path).as_posix() for node in service_cli.device_nodes(tmp_path)}
    assert found == {*cuda, "nvidia0", "video0"}


def test_a_capture_of_a_csi_camera_reaches_nvidias_daemon(workshop: Any, tmp_path: Path) -> None:
    """Its socket lies in /tmp."""
    assert kenpin("install", "--config", workshop.toml("csi:0"), "--dir", tmp_path).returncode == 0
    private = {
        path.name: re.findall("^PrivateTmp=(.*)$", path.read_text(), re.MULTILINE)[-1]
        for path in tmp_path.glob("kenpin-*.service")
    }
    assert private.pop("kenpin-capture@.service") == "no"
    assert set(private.values()) == {"yes"}
    test_no_unit_has_more_rights_than_it_should(tmp_path, tmp_path)


def test_a_unit_of_somebody_else_is_left_alone(workshop: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "kenpin.target"
    theirs.write_text("[Unit]\n")
    done = kenpin("install", "--config", workshop.toml("usb:0"), "--dir", tmp_path)
    assert done.returncode == 2
    assert "somebody else" in done.stderr
    assert theirs.read_text() == "[Unit]\n"


def test_uninstall_removes_what_install_wrote(units: Path) -> None:
    (units / "kenpin-mine.service").write_text("[Unit]\n")
    (units / "kenpin-station.service.d").mkdir()  # of systemctl edit
    assert kenpin("uninstall", "--dir", units).returncode == 0
    assert sorted(path.name for path in units.iterdir()) == ["kenpin-mine.service", "kenpin-station.service.d"]


@pytest.mark.parametrize("name", ["a station.toml", "50%.toml", "a;b.toml"])
def test_a_path_that_systemd_reads_otherwise_is_refused(workshop: Any, tmp_path: Path, name: str) -> None:
    config = workshop.toml("usb:0").rename(tmp_path / name)
    done = kenpin("install", "--config", config, "--dir", tmp_path, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert str(config) in done.stderr


def test_a_dry_run_writes_nothing(workshop: Any, tmp_path: Path) -> None:
    done = kenpin("install", "--config", workshop.toml("usb:0"), "--dir", tmp_path / "none", "--dry-run")
    assert done.returncode == 0
    assert "==> kenpin-station.service" in done.stdout
    assert "run --role station" in done.stdout


def calls_of(unit: str) -> set[str]:
    """The system calls that a unit may make, as systemd takes its lines one after the other."""
    allowed: set[str] = set()
    for line in unit.splitlines():
        key, _, names = line.partition("=")
        if key == "SystemCallFilter":
            found = {call for name in names.removeprefix("~").split() for call in expanded(name)}
            allowed = allowed - found if names.startswith("~") else allowed | found
    return allowed - expanded("@clock") if "ProtectClock=yes" in unit else allowed


def expanded(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n", 1)[1]
    lines = [line.strip() for line in told.splitlines()]
    return {call for line in lines if line and line[0] != "#" for call in expanded(line)}


def test_every_process_may_ask_whether_the_clock_is_synchronised(units: Path) -> None:
    for path in units.glob("*.service"):
        allowed = calls_of(path.read_text())
        assert allowed >= {"adjtimex", "clock_adjtime"}, path.name
        assert "clock_settime" not in allowed


def test_the_page_may_step_back_for_the_station(units: Path) -> None:
    assert "sched_setscheduler" in calls_of((units / "kenpin-web.service").read_text())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[output]\nlog = "out.log"\n', "log of [output] is not an absolute path: out.log"),
        (
            '[mqtt]\nurl = "mqtt://127.0.0.1"\n[commands]\nkeys = "keys"\n',
            "keys of [commands] is not an absolute path: keys",
        ),
        ("", "a file of [source] is not an absolute path: cam.password"),
    ],
)
def test_a_path_that_is_not_whole_is_refused(workshop: Any, tmp_path: Path, more: str, said: str) -> None:
    config = workshop.toml("usb:0" if more else "rtsp://cam/1?user=bob&password_file=cam.password")
    config.write_text(config.read_text() + more)
    done = kenpin("install", "--config", config, "--dir", tmp_path, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_trusted_key_is_found_from_where_systemd_starts(workshop: Any, tmp_path: Path) -> None:
    config = workshop.toml("usb:0")
    config.write_text(config.read_text().replace(str(workshop.public_key), "signing.pub"))
    done = kenpin("install", "--config", config, "--dir", tmp_path, "--dry-run")
    assert "trusted_keys is not an absolute path: signing.pub" in done.stderr


def test_the_station_may_write_the_log_of_its_output(workshop: Any, tmp_path: Path) -> None:
    config = workshop.toml("usb:0")
    config.write_text(config.read_text() + '[output]\nlog = "/var/log/kenpin/out.log"\n')
    done = kenpin("install", "--config", config, "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    line = "ReadWritePaths=/var/log/kenpin\n"
    assert line in (tmp_path / "kenpin-station.service").read_text()
    assert line not in (tmp_path / "kenpin-web.service").read_text()


def test_what_lies_in_a_home_folder_is_refused_as_units_do_not_see_it(workshop: Any, tmp_path: Path) -> None:
    config = workshop.toml("usb:0")
    config.write_text(config.read_text().replace(str(workshop.folder.root), "/home/jetson/station"))
    done = kenpin("install", "--config", config, "--dir", tmp_path, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/home/jetson/station" in done.stderr
    assert "units do not see" in done.stderr


def test_an_environment_in_a_home_folder_is_told(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_cli.shutil, "which", lambda *_a, **_k: "/home/jetson/kenpin/bin/kenpin")
    arguments = ["install", "--config", str(workshop.toml("usb:0")), "--dir", str(tmp_path)]
    done = CliRunner().invoke(service_cli.service, arguments)
    assert done.exit_code == 0, done.output
    assert "warning: /home/jetson/kenpin/bin/kenpin lies in a home folder" in done.output


@pytest.mark.parametrize(("host", "listens"), [("192.0.2.7", True), ("127.0.0.1", False), ("[::1]", False)])
def test_who_listens_on_the_network_waits_for_its_address(
    workshop: Any, tmp_path: Path, host: str, *, listens: bool
) -> None:
    config = workshop.toml("usb:0")
    config.write_text(config.read_text() + f'[output]\nmodbus = "{host}:1502"\n')
    assert kenpin("install", "--config", config, "--dir", tmp_path).returncode == 0
    waiting = [p.name for p in tmp_path.glob("*.service") if "After=network-online.target" in p.read_text()]
    assert waiting == ["kenpin-station.service"] * listens
    assert ("Wants=network-online.target" in (tmp_path / "kenpin-station.service").read_text()) == listens
