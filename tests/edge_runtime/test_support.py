from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.support import without_secrets

CANARY = "c4n4ry-in-the-mine"


def support(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kenpin", "support", "--config", config, "--out", out]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_dump_holds_what_is_needed_and_no_secret(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.ready()
    with Station(workshop.config(f"folder:{workshop.pictures(10, 250)}")) as station:
        station.run()
    secrets = [tmp_path / name for name in ("password", "tls.key", "camera")]
    for path in [*secrets, workshop.folder.key, workshop.folder.engine_key]:
        path.write_text(CANARY)
        path.chmod(0o600)
    monkeypatch.setenv("MQTT_PASSWORD", CANARY)
    config = workshop.toml(f"rtsp://127.0.0.1:9/x?user=boss&password_file={tmp_path / 'camera'}")
    with config.open("a") as out:
        out.write(
            f'[mqtt]\nurl = "mqtt://127.0.0.1:9"\nusername = "u"\npassword_file = "{tmp_path / "password"}"\n'
        )
    done = support(config, tmp_path / "dump.zip")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "dump.zip") as archive:
        content = {name: archive.read(name).decode() for name in archive.namelist()}
    assert not any(CANARY in text for text in content.values())
    assert "boss" not in content["config.json"]
    assert len(content["parts.jsonl"].splitlines()) == 2
    assert len(content["events.jsonl"].splitlines()) == 1
    assert '"rev":1' in content["station/calibration.jsonl"]
    assert '"product":"lamp"' in content["station/active/manifest.json"]
    assert '"name": "bundle"' in content["doctor.json"]
    assert (tmp_path / "dump.zip").stat().st_mode & 0o077 == 0
    assert support(config, tmp_path / "dump.zip").returncode == 0, "its own file is replaced"


def test_a_login_in_the_address_of_a_camera_is_in_no_part_of_a_dump(workshop: Any, tmp_path: Path) -> None:
    workshop.ready()
    for number, url in enumerate(
        (
            f"rtsp://boss:{CANARY}@127.0.0.1:9/x",
            f"rtsp://boss:{CANARY}/1@127.0.0.1:9/x",
            f"rtsp://boss:{CANARY}?1@127.0.0.1:9/x",
            f"rtsp://boss:1?{CANARY}@127.0.0.1:9/x",
            f"rtsp:boss:{CANARY}@127.0.0.1:9/x",
            f"rtsp://127.0.0.1:9/x?user=boss&password={CANARY}",
        )
    ):
        done = support(workshop.toml(url), tmp_path / f"{number}.zip")
        assert done.returncode == 0, done.stderr
        with zipfile.ZipFile(tmp_path / f"{number}.zip") as archive:
            assert not [name for name in archive.namelist() if CANARY in archive.read(name).decode()]


def test_a_station_that_has_nothing_can_be_dumped(workshop: Any, tmp_path: Path) -> None:
    done = support(workshop.toml("folder:none"), tmp_path / "dump.zip")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "dump.zip") as archive:
        assert archive.read("parts.jsonl").startswith(b"not there: there is no station database")


def test_the_login_of_a_camera_is_left_out(workshop: Any) -> None:
    config = workshop.config("rtsp://user:word@host/path?user=boss")
    assert without_secrets(config)["source"]["url"] == "rtsp://host/path"
    assert without_secrets(workshop.config("folder:a?rate=5"))["source"]["url"] == "folder:a?rate=5"
