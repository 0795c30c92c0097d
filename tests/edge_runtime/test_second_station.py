"""A second station on a folder, of real processes: it is refused, and the first one loses nothing by it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime.folder_lock import sole_in_role
from kenpin.edge_runtime.run_socket import bind_in, connect_in
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.sole_use import sole_use

KENPIN = (sys.executable, "-m", "kenpin", "run", "--config")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    made: list[subprocess.Popen[str]] = []

    def popen(*arguments: object) -> subprocess.Popen[str]:
        made.append(subprocess.Popen([*KENPIN, *map(str, arguments)], stderr=subprocess.PIPE, text=True))
        return made[-1]

    yield popen
    for process in made:
        process.terminate()
        process.communicate(timeout=300)


def refused(*arguments: object) -> str:
    done = subprocess.run(
        [*KENPIN, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


def toml(workshop: Any, source: str = "synthetic:fabric?rate=20") -> Path:
    path: Path = workshop.toml(source)
    path.write_text(path.read_text() + '[health]\nlisten = ""\n')
    return path


def is_ready(workshop: Any, than: int = 0) -> bool:
    station = read_vitals(workshop.folder.run).get("station")
    return station is not None and station.is_alive and station.pid != than and bool(station.numbers["ready"])


def sockets(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in run.glob("*.sock")}


def test_it_is_refused_and_the_first_one_keeps_its_sockets_and_its_broker(
    workshop: Any, mosquitto: Any, make_subscriber: Any, wait_for: Any, start: Any
) -> None:
    workshop.port = mosquitto.port
    config = toml(workshop.ready())
    scada = make_subscriber(mosquitto.port)
    first = start(config)
    wait_for(lambda: is_ready(workshop), "the first station")
    wait_for(lambda: len(sockets(workshop.folder.run)) == 3 and scada.payloads("status"), "its publisher")
    before = sockets(workshop.folder.run)

    error = refused(config)
    assert error.startswith(f"error: another station runs on this folder (process {first.pid})\n"), error
    assert "give each station its own state_dir" in error
    for role in ("station", "publisher", "capture-0"):
        assert "runs" in refused(config, "--role", role)
    assert sockets(workshop.folder.run) == before

    pid = read_vitals(workshop.folder.run)["station"].pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_ready(workshop, than=pid), "the first station's return")
    assert all(status["online"] for status in scada.payloads("status"))


def test_beside_a_station_that_no_supervisor_started_it_is_refused_too(
    workshop: Any, wait_for: Any, start: Any
) -> None:
    config = toml(workshop.ready())
    capture, station = start(config, "--role", "capture-0"), start(config, "--role", "station")
    wait_for(lambda: is_ready(workshop), "the station")
    before = sockets(workshop.folder.run)
    assert f"another station runs on this folder (process {station.pid})" in refused(config)
    assert f"capture-0 of this station runs already (process {capture.pid})" in refused(
        config, "--role", "capture-0"
    )
    assert sockets(workshop.folder.run) == before


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_socket_that_somebody_has_is_not_replaced_and_one_that_was_left_is(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    with bind_in(tmp_path, "a.sock", kind) as held:
        if kind == socket.SOCK_SEQPACKET:
            held.listen(1)
        with pytest.raises(OSError, match="another process has this socket"):
            bind_in(tmp_path, "a.sock", kind)
        held.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked there to find that out
            held.accept() if kind == socket.SOCK_SEQPACKET else held.recv(1)
        connect_in(tmp_path, "a.sock", kind).close()
    bind_in(tmp_path, "a.sock", kind).close()


def test_a_folder_that_cannot_be_written_does_not_stop_a_role(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with sole_in_role(tmp_path / "file", "capture-0"):
        pass


def test_a_full_disk_does_not_stop_a_lock() -> None:
    with sole_use(Path("/dev/full")):  # every write to it fails as on a full disk
        pass
