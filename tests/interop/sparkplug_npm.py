"""The edge node with a host that is made of npm's packages. Not part of the default run: `make interop`."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kenpin.broker import demo_broker
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.sparkplug import Sparkplug
from kenpin.edge_runtime.sparkplug_payload import DataType
from kenpin.edge_runtime.sparkplug_session import EdgeNode

HOST = Path(__file__).with_name("sparkplug_host.cjs")


def test_a_host_of_npm_reads_commands_and_leaves(tmp_path: Path) -> None:
    with demo_broker(None, tmp_path) as broker:
        port = urlsplit(broker.url).port
        assert port is not None
        node = EdgeNode("plant", "st-01", primary_host="npm")
        sparkplug = Sparkplug(BrokerAddress("127.0.0.1", port, "st-01-sparkplug"), node, print)
        sparkplug.tell({"parts": (DataType.INT64, 2**40), "temperature": (DataType.INT32, -5)})
        sparkplug.tell({"started": (DataType.DATETIME, 1_795_475_112_169)})
        sparkplug.start()
        done = threading.Event()
        line = threading.Thread(target=_inspect, args=(sparkplug, done))
        line.start()
        command = ["node", str(HOST), str(port)]
        host = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        done.set()
        line.join()
        sparkplug.stop()
    assert host.returncode == 0, host.stderr
    _check(json.loads(host.stdout))


def _inspect(sparkplug: Sparkplug, done: threading.Event) -> None:
    number = 0
    while not done.wait(0.1):
        number += 1
        sparkplug.tell({"uptime_s": (DataType.DOUBLE, number / 10)})
        sparkplug.tell({"score": (DataType.DOUBLE, number / 4)}, device="cam")
        sparkplug.tell({"verdict": (DataType.STRING, "良品"), "note": (DataType.STRING, None)}, device="cam")


def _check(seen: list[dict[str, Any]]) -> None:
    births = [_values(message) for message in seen if message["verb"] == "NBIRTH"]
    assert len(births) == 2
    for birth in births:
        assert (birth["parts"], birth["temperature"]) == (2**40, -5)
        assert (birth["started"], birth["bdSeq"]) == (1_795_475_112_169, 0)
        assert birth["Node Control/Rebirth"] is False
    assert {message["verb"] for message in seen} == {"NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH"}
    _check_data(seen)
    device = [_values(message) for message in seen if message["verb"] == "DBIRTH"][-1]
    assert (device["verdict"], device["note"]) == ("良品", None)
    assert seen[-1]["verb"] == "NDEATH"
    assert _values(seen[-1]) == {"bdSeq": 0}


def _check_data(seen: list[dict[str, Any]]) -> None:
    """What changed, with its value and nothing else."""
    node = [_values(message) for message in seen if message["verb"] == "NDATA"]
    assert {name for values in node for name in values} == {"uptime_s"}
    scores = [values["score"] for m in seen if m["verb"] == "DDATA" and "score" in (values := _values(m))]
    assert scores == sorted(set(scores))
    assert all(float(4 * score).is_integer() for score in scores)  # JSON of 1.0 is 1


def _values(message: dict[str, Any]) -> dict[str, Any]:
    return {metric["name"]: metric["value"] for metric in message["metrics"]}
