from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kenpin.config import HealthSection, MqttSection, StationConfig
from kenpin.edge_runtime import health
from kenpin.edge_runtime.capture import Capture
from kenpin.edge_runtime.folder_source import FolderSource
from kenpin.edge_runtime.health import Health, serve_health
from kenpin.edge_runtime.series import SERIES, families
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.vitals import Vitals, read_vitals, write_vitals
from kenpin.errors import ConfigError


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def config(workshop: Any, free_port: int) -> StationConfig:
    made: StationConfig = workshop.ready().config(f"folder:{workshop.pictures(10)}")
    return made.model_copy(update={"health": HealthSection(listen=f"127.0.0.1:{free_port}")})


@pytest.fixture
def served(config: StationConfig, free_port: int, wait_for: Any) -> Iterator[int]:
    stop = threading.Event()
    thread = threading.Thread(target=serve_health, args=(config, stop.is_set))
    thread.start()
    try:
        wait_for(lambda: answers(free_port), "the server")
        yield free_port
    finally:
        stop.set()
        thread.join()


def tell(workshop: Any, role: str, **changes: Any) -> None:
    fields = {"role": role, "pid": 1, "numbers": {"ready": 1}, **changes}
    write_vitals(workshop.folder.run, Vitals(**fields))


def test_a_station_that_nobody_started_is_neither_alive_nor_ready(served: int) -> None:
    for path in ("/livez", "/readyz"):
        status, body = get(served, path)
        assert status == 503
        assert json.loads(body)["reasons"][0] == "station: it has not said how it is"


def test_alive_and_ready(workshop: Any, served: int) -> None:
    tell(workshop, "station")
    tell(workshop, "capture-0")
    assert get(served, "/livez") == (200, '{"ok": true, "reasons": []}')
    assert get(served, "/readyz")[0] == 200


def test_what_is_wrong_is_said_in_words(workshop: Any, served: int) -> None:
    old_ns = time.monotonic_ns() - 60_000_000_000
    tell(workshop, "station", numbers={"ready": 0}, state="FAULT", reason="not calibrated")
    tell(workshop, "capture-0", written_ns=old_ns)
    tell(workshop, "supervisor", reason="capture-0: it was ended by SIGKILL", state="DEGRADED")
    assert json.loads(get(served, "/livez")[1])["reasons"] == ["capture-0: no sign of life for 60 s"]
    status, body = get(served, "/readyz")
    assert status == 503
    assert json.loads(body)["reasons"] == [
        "capture-0: no sign of life for 60 s",
        "not calibrated",
        "capture-0: it was ended by SIGKILL",
    ]


def test_what_was_told_before_the_boot_tells_nothing(workshop: Any, served: int) -> None:
    told_ns = time.monotonic_ns() + 30 * 24 * 3600 * 10**9  # of a machine that ran for a month before
    for role in ("station", "capture-0"):
        tell(workshop, role, numbers={"ready": 1.0}, written_ns=told_ns)
    status, reasons = get(served, "/readyz")
    assert status == 503
    assert "station: it has not said how it is" in reasons
    assert "kenpin_ready 0.0" in get(served, "/metrics")[1]


def test_with_a_full_disk_processes_that_are_there_are_not_called_dead(workshop: Any, served: int) -> None:
    old_ns = time.monotonic_ns() - 60_000_000_000
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    tell(workshop, "station", pid=os.getpid(), written_ns=old_ns)
    tell(workshop, "capture-0", pid=os.getpid(), written_ns=old_ns)
    run = workshop.folder.run
    full = f"the disk of {run} is full: processes cannot tell how they are"

    def reasons(path: str) -> list[str]:
        (run / ".probe").symlink_to("/dev/full")  # what is written there fails as on a full disk
        found: list[str] = json.loads(get(served, path)[1])["reasons"]
        return found

    assert reasons("/livez") == []
    assert reasons("/readyz") == [full]
    tell(workshop, "capture-0", pid=ended.pid, written_ns=old_ns)
    assert reasons("/livez") == ["capture-0: no sign of life for 60 s"]
    assert reasons("/readyz") == ["capture-0: no sign of life for 60 s", full]


def test_metrics_are_those_of_the_table(workshop: Any, config: StationConfig, served: int) -> None:
    with Station(config) as station:
        station.run()
    last = read_vitals(workshop.folder.run)["station"]
    write_vitals(workshop.folder.run, last.model_copy(update={"state": "RUNNING"}))  # as if it had not ended
    found = {family.name: family for family in text_string_to_metric_families(get(served, "/metrics")[1])}
    parts = {s.labels["verdict"]: s.value for s in found["kenpin_parts"].samples}
    assert parts == {"OK": 1, "REVIEW": 0, "NG": 0, "MISSED": 0, "NO_DECISION": 0}
    for name in ("decision_seconds", "commit_seconds", "ready", "disk_free_bytes", "outbox_depth"):
        assert f"kenpin_{name}" in found
    (info,) = found["kenpin_bundle_info"].samples
    assert (info.labels["model"], info.labels["precision"]) == ("lamp-1.0", "int8")
    (unknown,) = found["kenpin_unknown_series"].samples
    assert unknown.value == 0
    documented = Path("docs/health.md").read_text()
    assert [name for name in SERIES if f"`kenpin_{name}`" not in documented] == []


def samples(port: int) -> dict[str, float]:
    """Value by series, with its labels; none stands there twice."""
    lines = [line for line in get(port, "/metrics")[1].splitlines() if not line.startswith("#")]
    found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
    assert len(found) == len(lines)
    return found


def test_of_a_process_that_is_silent_only_what_it_counted_is_shown(workshop: Any, served: int) -> None:
    assert samples(served)["kenpin_ready"] == 0  # nobody has started it
    numbers = {"ready": 1, "frame_age_seconds": 0.2, 'parts_total{verdict="OK"}': 7}
    up = {'camera_up{camera="cam"}': 1}
    tell(workshop, "station", numbers=numbers)
    tell(workshop, "capture-0", numbers=up)
    found = samples(served)
    assert (found["kenpin_ready"], found['kenpin_camera_up{camera="cam"}']) == (1, 1)
    assert found["kenpin_frame_age_seconds"] == 0.2
    old_ns = time.monotonic_ns() - 60_000_000_000
    tell(workshop, "station", numbers=numbers, written_ns=old_ns)
    tell(workshop, "capture-0", numbers=up, written_ns=old_ns)
    found = samples(served)
    assert (found["kenpin_ready"], found['kenpin_camera_up{camera="cam"}']) == (0, 0)
    assert "kenpin_frame_age_seconds" not in found
    assert found['kenpin_parts_total{verdict="OK"}'] == 7


def test_a_publisher_that_is_not_there_has_no_connection(workshop: Any, config: StationConfig) -> None:
    workshop.folder.run.mkdir()
    made = Health(config.model_copy(update={"mqtt": MqttSection(url="mqtt://127.0.0.1:1")}))

    def connected() -> list[str]:
        metrics = made.answer("/metrics")[2].decode().splitlines()
        return [line for line in metrics if line.startswith("kenpin_broker_connected")]

    assert connected() == ["kenpin_broker_connected 0.0"]  # nobody has started it
    tell(workshop, "publisher", numbers={"broker_connected": 1})
    assert connected() == ["kenpin_broker_connected 1.0"]
    tell(workshop, "publisher", numbers={"broker_connected": 1}, written_ns=time.monotonic_ns() - 6 * 10**9)
    assert connected() == ["kenpin_broker_connected 0.0"]


def test_a_camera_of_an_earlier_configuration_is_not_shown(workshop: Any, served: int) -> None:
    for number in (0, 1):
        tell(workshop, f"capture-{number}", numbers={f'camera_up{{camera="cam{number}"}}': 1})
    found = samples(served)
    assert 'kenpin_camera_up{camera="cam0"}' in found
    assert 'kenpin_camera_up{camera="cam1"}' not in found


def test_a_camera_may_be_called_whatever_a_folder_is_called(workshop: Any, served: int) -> None:
    odd = '12" disc\\new, {red}\n'
    source = FolderSource(workshop.pictures(2).rename(workshop.root / odd), period_s=0, loop=False)
    capture = Capture(source, workshop.folder.run, 0, latest=False)
    capture.run(lambda: True)
    write_vitals(workshop.folder.run, capture._vitals())
    found = {family.name: family for family in text_string_to_metric_families(get(served, "/metrics")[1])}
    for name in ("camera_up", "frames", "frame_faults", "dropped"):
        assert {s.labels["camera"] for s in found[f"kenpin_{name}"].samples} == {odd}
    (unknown,) = found["kenpin_unknown_series"].samples
    assert unknown.value == 0


def test_numbers_that_no_series_stands_for_are_counted() -> None:
    known, unknown = families([("ready", 1), ("redy", 1), ('ready{x="', 1), ("ready\n", 1)])
    assert [family.name for family in known] == ["kenpin_ready"]
    assert unknown == 3


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/livez", 405), ("GET", "/other", 404)])
def test_nothing_else_is_answered(served: int, method: str, path: str, status: int) -> None:
    assert get(served, path, method)[0] == status


def test_slow_clients_keep_nobody_waiting(workshop: Any, served: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CLIENT_S", 600.0)  # whoever waits for them waits for longer than `get` does
    tell(workshop, "station")
    tell(workshop, "capture-0")
    slow = [socket.create_connection(("127.0.0.1", served)) for _ in range(6)]
    for client in slow:
        client.sendall(b"GET /livez HT")
    assert get(served, "/livez")[0] == 200
    for client in slow:
        client.close()


def test_clients_that_drip_are_dropped(
    workshop: Any, served: int, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(workshop, "station")
    tell(workshop, "capture-0")
    monkeypatch.setattr(health, "_CLIENT_S", 1.0)
    drips = [socket.create_connection(("127.0.0.1", served)) for _ in range(20)]

    def is_answered() -> bool:
        for drip in drips:
            with contextlib.suppress(OSError):
                drip.sendall(b"G")
        try:
            return get(served, "/livez")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_for(is_answered, "an answer beside clients that drip")
    for drip in drips:
        drip.close()


def test_a_port_in_use_is_said(config: StationConfig, served: int) -> None:
    with pytest.raises(ConfigError, match="health cannot be offered") as error:
        serve_health(config, lambda: True)
    assert "its own port" in error.value.cure


def test_nowhere_is_said(config: StationConfig) -> None:
    nowhere = config.model_copy(update={"health": HealthSection(listen="")})
    with pytest.raises(ConfigError, match="offered nowhere"):
        serve_health(nowhere, lambda: True)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_the_other_loopback_is_offered_too(config: StationConfig, free_port: int) -> None:
    section = config.health.model_copy(update={"listen": f"[::1]:{free_port}"})
    answers: list[bool] = []

    def asked() -> bool:
        with socket.create_connection(("::1", free_port), 60):
            answers.append(True)
        return True

    serve_health(config.model_copy(update={"health": section}), asked)
    assert answers == [True]


def test_only_this_machine_may_ask() -> None:
    with pytest.raises(ValueError, match="loopback"):
        HealthSection(listen="0.0.0.0:9464")
