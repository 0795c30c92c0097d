"""What a Sparkplug host sees of a station that runs: real processes, a real broker, somebody else's decoder."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pysparkplug._protobuf import Payload

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.sparkplug_feed import camera_values, node_values
from kenpin.edge_runtime.sparkplug_payload import DataType
from kenpin.edge_runtime.vitals import Vitals


def test_a_station_that_is_not_there_has_values_too() -> None:
    values = node_values(None, ("FAULT", "the station's process is not running"))
    assert values["State"] == (DataType.STRING, "FAULT")
    assert values["Ready"] == (DataType.BOOLEAN, False)
    assert {f"Parts/{verdict.value}" for verdict in Verdict} <= values.keys()


def test_counters_are_64_bits() -> None:
    vitals = Vitals(role="station", pid=1, numbers={'parts_total{verdict="NG"}': 3.0, "ready": 1.0})
    values = node_values(vitals, ("RUNNING", ""))
    assert values["Parts/NG"] == (DataType.INT64, 3)
    assert values["Ready"] == (DataType.BOOLEAN, True)


def test_a_camera_shows_its_last_part() -> None:
    last = {"part_id": "7", "verdict": "NG", "score": 2.5, "threshold": 2.0, "ts_ms": 5}
    assert camera_values(last)["Verdict"] == (DataType.STRING, "NG")
    assert camera_values(last)["Time"] == (DataType.DATETIME, 5)


class Host:
    """mosquitto_sub on the Sparkplug topics."""

    def __init__(self, port: int) -> None:
        self.births: dict[str, dict[str, Any]] = {}
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", "spBv1.0/#", "-F", "%t %x"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            topic, _, body = line.strip().partition(" ")
            payload = Payload.FromString(bytes.fromhex(body))
            found = self.births.setdefault(topic, {})
            found |= {m.name: m.string_value or m.long_value or m.boolean_value for m in payload.metrics}


def test_the_host_sees_node_and_camera(
    workshop: Any, mosquitto: Any, wait_for: Callable[..., None], pytestconfig: pytest.Config
) -> None:
    workshop.port = mosquitto.port
    workshop.ready()
    host = Host(mosquitto.port)
    path = workshop.toml(f"folder:{workshop.pictures(10, 250)}?rate=5&loop=1")
    path.write_text(
        path.read_text() + '[sparkplug]\nenabled = true\ngroup_id = "plant"\n[health]\nlisten = ""\n'
    )
    station = subprocess.Popen(
        [sys.executable, "-m", "kenpin", "run", "--config", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=pytestconfig.rootpath,
    )
    try:
        wait_for(lambda: "spBv1.0/plant/DBIRTH/st1/parts" in host.births, "the birth of the camera", 60.0)
        wait_for(lambda: "Parts/OK" in host.births.get("spBv1.0/plant/NDATA/st1", {}), "data", 60.0)
    finally:
        station.terminate()
        station.wait(60)
    birth = host.births["spBv1.0/plant/NBIRTH/st1"]
    assert {"bdSeq", "Node Control/Rebirth", "State", "Parts/NG"} <= birth.keys()
    assert host.births["spBv1.0/plant/DBIRTH/st1/parts"]["Verdict"] in ("OK", "NG")
    wait_for(lambda: "spBv1.0/plant/NDEATH/st1" in host.births, "the death")
    host.close()
