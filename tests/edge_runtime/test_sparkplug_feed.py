"""What a Sparkplug host sees of a station that runs: real processes, a real broker, somebody else's decoder."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest
from pysparkplug._protobuf import Payload

from benchmarks.rig import Listener
from kenpin.audit import audit_file
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.audit_mirror import AuditMirror
from kenpin.edge_runtime.database import connect, open_database, transaction
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.series_name import series_name
from kenpin.edge_runtime.sparkplug_feed import SparkplugFeed, camera_values, cameras_down, node_values
from kenpin.edge_runtime.sparkplug_link import Heard as Message
from kenpin.edge_runtime.sparkplug_payload import DataType, Value
from kenpin.edge_runtime.sparkplug_session import NODE, EdgeNode, Session
from kenpin.edge_runtime.vitals import Vitals, read_vitals, write_vitals
from kenpin.ledger import lines_of


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


def test_a_station_that_is_dead_is_not_ready() -> None:
    ns = time.monotonic_ns() - 60_000_000_000
    vitals = Vitals(role="station", pid=1, written_ns=ns, numbers={"ready": 1.0})
    assert node_values(vitals, ("FAULT", ""))["Ready"] == (DataType.BOOLEAN, False)


def test_a_camera_shows_its_last_part() -> None:
    last = {"part_id": "7", "verdict": "NG", "score": 2.5, "threshold": 2.0, "ts_ms": 5}
    assert camera_values(last)["Verdict"] == (DataType.STRING, "NG")
    assert camera_values(last)["Time"] == (DataType.DATETIME, 5)


class Heard:
    """An edge node without a connection: notes what it would have sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._session = Session(EdgeNode("plant", "st1"))

    def start(self) -> None:
        self._session.begin(0)
        self.sent += [message.topic for message in self._session.birth(now_ms=1)]

    def tell(self, values: Mapping[str, Value], *, device: str = NODE) -> None:
        self.sent += [m.topic for m in self._session.tell(values, device=device, now_ms=1)]

    def lose(self, device: str) -> None:
        self.sent += [message.topic for message in self._session.lose(device, now_ms=1)]


def capture_says(folder: Any, *, up: bool, age_s: float = 0.0, camera: str = "cam") -> None:
    ns = time.monotonic_ns() - int(age_s * 1e9)
    numbers = {series_name("camera_up", camera=camera): up, 'frames_total{camera="cam"}': 9}
    write_vitals(folder.run, Vitals(role="capture-0", pid=1, written_ns=ns, numbers=numbers))


def test_a_camera_that_does_not_answer_dies_and_is_born_again_when_it_is_back(workshop: Any) -> None:
    workshop.folder.create()
    workshop.folder.run.mkdir(exist_ok=True)
    with closing(open_database(workshop.folder.database)) as connection:
        body = '{"camera": "cam", "part_id": "7", "verdict": "NG", "score": 2.5, "threshold": 2.0, "ts_ms": 5}'
        connection.execute("INSERT INTO state VALUES ('camera/cam/last', ?, 1)", (body,))
    node = Heard()
    feed = SparkplugFeed(node, workshop.folder)  # type: ignore[arg-type]

    def sent() -> list[str]:
        feed._due_s = 0.0
        node.sent.clear()
        feed.come_round(("RUNNING", ""))
        return [topic.removeprefix("spBv1.0/plant/") for topic in node.sent]

    capture_says(workshop.folder, up=True)
    assert sent() == ["NBIRTH/st1", "DBIRTH/st1/cam"]
    capture_says(workshop.folder, up=False)
    assert sent() == ["DDEATH/st1/cam"]
    assert sent() == []
    capture_says(workshop.folder, up=True)
    assert sent() == ["DBIRTH/st1/cam"]
    capture_says(workshop.folder, up=True, age_s=60)
    assert sent() == ["DDEATH/st1/cam"]
    capture_says(workshop.folder, up=True)
    assert sent() == ["DBIRTH/st1/cam"]
    with closing(connect(workshop.folder.database)) as connection, transaction(connection):
        Outbox(connection).keep_cameras([])  # the station is set up without it
    assert sent() == ["DDEATH/st1/cam"]
    assert cameras_down({}) == set()
    capture_says(workshop.folder, up=False, camera='12" disc')
    assert cameras_down(read_vitals(workshop.folder.run)) == {'12" disc'}


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE state",
        "UPDATE state SET body = '{'",
        "UPDATE state SET body = '[7]'",
        "UPDATE state SET body = replace(body, 'score', 'skore')",
        "UPDATE state SET body = replace(body, '2.5', '[]')",
        "UPDATE state SET body = replace(body, 'camera', 'kamera')",
        "UPDATE state SET body = replace(body, '\"cam\"', '\"c#m\"')",
    ],
)
def test_a_database_that_cannot_be_read_does_not_end_the_publisher(workshop: Any, damage: str) -> None:
    workshop.folder.create()
    workshop.folder.run.mkdir(exist_ok=True)
    body = '{"camera": "cam", "part_id": "7", "verdict": "NG", "score": 2.5, "threshold": 2.0, "ts_ms": 5}'
    with closing(open_database(workshop.folder.database)) as connection:
        connection.execute("INSERT INTO state VALUES ('camera/cam/last', ?, 1)", (body,))
    node = Heard()
    feed = SparkplugFeed(node, workshop.folder)  # type: ignore[arg-type]
    feed.come_round(("RUNNING", ""))
    with closing(connect(workshop.folder.database)) as connection:
        connection.execute(damage)
    feed._due_s = 0.0
    feed.come_round(("FAULT", "the store does not work"))
    assert node.sent[-1] == "spBv1.0/plant/NDATA/st1"  # and the camera stays what it was


def test_what_is_refused_stands_in_the_audit_and_is_told(workshop: Any) -> None:
    workshop.ready()
    config = workshop.config("folder:parts", url="mqtt://127.0.0.1:1")
    feed = SparkplugFeed.from_config(config, workshop.folder)
    topic = "spBv1.0/kenpin/DCMD/st1/" + "x" * 60_000
    feed._node._hear(Message(topic, b"{}", is_retained=False))
    feed._node._refusals.tell()
    (line,) = lines_of(audit_file(workshop.folder))
    assert (line.row["what"], line.row["by"]) == ("sparkplug", "unknown")
    assert line.row["new"].startswith("refused: the command is no payload")
    assert f"1 since the last row, the last at {topic[:200]};" in line.row["why"]
    with closing(open_database(workshop.folder.database)) as connection:
        AuditMirror(workshop.folder, connection, Identity("st1")).come_round()
        (event,) = Outbox(connection).replay(since=0, limit=9)
        assert event.payload()["kind"] == "security"
    workshop.folder.key.unlink()
    feed._node._refusals._due_s = 0.0
    feed._node._hear(Message(topic, b"{}", is_retained=False))
    feed._node._refusals.tell()  # without an audit it goes on


class Host:
    """mosquitto_sub on the Sparkplug topics."""

    def __init__(self, port: int) -> None:
        self.births: dict[str, dict[str, Any]] = {}
        self._listener = Listener(port, self._hear, "-t", "spBv1.0/#", "-F", "%t %x")

    def close(self) -> None:
        self._listener.close()

    def _hear(self, line: str) -> None:
        topic, _, body = line.strip().partition(" ")
        payload = Payload.FromString(bytes.fromhex(body))
        found = self.births.setdefault(topic, {})
        found |= {m.name: m.string_value or m.long_value or m.boolean_value for m in payload.metrics}


def test_the_host_sees_node_and_camera(
    workshop: Any, mosquitto: Any, wait_for: Any, pytestconfig: pytest.Config
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
        wait_for(lambda: "spBv1.0/plant/DBIRTH/st1/parts" in host.births, "the birth of the camera")
        wait_for(lambda: "Parts/OK" in host.births.get("spBv1.0/plant/NDATA/st1", {}), "data")
    finally:
        station.terminate()
        station.wait(60)
    birth = host.births["spBv1.0/plant/NBIRTH/st1"]
    assert {"bdSeq", "Node Control/Rebirth", "State", "Parts/NG"} <= birth.keys()
    assert host.births["spBv1.0/plant/DBIRTH/st1/parts"]["Verdict"] in ("OK", "NG")
    wait_for(lambda: "spBv1.0/plant/NDEATH/st1" in host.births, "the death")
    host.close()
