"""Every message of a station over MQTT 5, read by the CloudEvents SDK of npm. Not part of the default run:
`make interop`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kenpin.broker import demo_broker

READER = Path(__file__).with_name("cloudevents_reader.cjs")
TOPIC = "acme/plant1/weld/line2/sim"


def test_every_message_of_a_simulated_station_is_a_valid_cloud_event(tmp_path: Path) -> None:
    with demo_broker(None, tmp_path) as broker:
        command = ["node", str(READER), str(urlsplit(broker.url).port), f"{TOPIC}/#"]
        reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "listening\n"
        simulate = ("simulate", "--url", broker.url, "--topic", TOPIC, "--pause-s", "0")
        where = ("--state", str(tmp_path / "state"))
        subprocess.run([sys.executable, "-m", "kenpin", *simulate, *where], check=True, timeout=120)
        time.sleep(1)  # what is on its way
        said, _ = reader.communicate(timeout=20)
    messages = json.loads(said)
    assert [m for m in messages if "error" in m] == []
    kinds = {_check(m["topic"], m["event"]) for m in messages if m["topic"] != f"{TOPIC}/ready"}
    assert {"anomaly", "result", "alarm", "audit", "status", "kpi", "meta", "reply"} <= kinds
    assert len({m["event"]["id"] for m in messages}) == len(messages)


def _check(topic: str, event: dict[str, Any]) -> str:
    """The attributes say what the payload says; the kind of the event."""
    payload = json.loads(event["data"])
    assert event["specversion"] == "1.0"
    assert event["source"].endswith(TOPIC)
    assert event["type"] == payload["schema"]
    assert event["datacontenttype"] == "application/json"
    if "id" in payload:
        assert event["id"] == payload["id"]
    return str(payload["schema"].split(".")[1])
