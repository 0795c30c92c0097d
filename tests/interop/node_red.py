"""The flow of docs/scada in a real Node-RED, at a real mosquitto. Not part of the default run: `make interop`.

An outage of Node-RED for which the broker keeps too little: what the flow lets through must be all that the
station said, each event once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.rig import Broker, Listener, port_for
from kenpin.edge_runtime import commander
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.commander import Commander, Order
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.simulate_cli import simulate
from kenpin.events import Audit, now_ms
from kenpin.station_folder import StationFolder

FLOW = Path(__file__).parents[2] / "docs/scada/node-red-flow.json"
TOPIC = "acme/plant1/press/line2/sim-01"
KEY = "0123456789abcdef0123456789abcdef"
KEPT = 50  # messages that the broker keeps for a reader that is away
WAIT_S = 120.0

SETTINGS = """module.exports = {
  uiPort: %d, uiHost: "127.0.0.1", flowFile: "flows.json", credentialSecret: false,
  contextStorage: {default: {module: "localfilesystem", config: {flushInterval: 1}}},
  logging: {console: {level: "info"}},
};
"""


class NodeRed:
    """A Node-RED with its files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._port = port_for(self)
        (folder / "settings.js").write_text(SETTINGS % self._port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def start(self) -> None:
        program = Path(os.environ["NODE_PATH"]) / "node-red/red.js"
        files = ("-u", self._folder, "-s", self._folder / "settings.js")
        environment = {
            **os.environ,
            "KENPIN_KEY": KEY,
            "KENPIN_KID": "ops1",
            "NODE_RED_HOME": str(program.parent),
        }
        command = [os.environ.get("NODE", "node"), program, *files]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_for(self._answers, "Node-RED")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(WAIT_S)
            self._process = None

    def import_flow(self, nodes: list[dict[str, Any]]) -> None:
        self._ask("flows", {"flows": nodes})

    def missing(self) -> list[dict[str, int]]:
        """The holes that the flow remembers of the station."""
        stations = json.loads(self._ask("context/flow/kenpin-tab/stations")["msg"])
        return list(stations[TOPIC]["missing"])

    @property
    def version(self) -> str:
        return str(self._ask("settings")["version"])

    def _answers(self) -> bool:
        try:
            self._ask("settings")
        except OSError:
            return False
        return True

    def _ask(self, what: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json", "Node-RED-API-Version": "v2"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/{what}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


class Consumer:
    """What comes out of the flow, heard by mosquitto_sub."""

    def __init__(self, port: int) -> None:
        self.events: list[dict[str, Any]] = []
        self.screens: list[str] = []
        self._listener = Listener(port, self._hear, "-q", "1", "-t", "consumer/#", "-F", "%j")

    def numbers(self) -> list[int]:
        return sorted(event["seq"] for event in list(self.events))

    def close(self) -> None:
        self._listener.close()

    def _hear(self, line: str) -> None:
        message = json.loads(line)
        if message["topic"] == "consumer/event":
            self.events.append(json.loads(message["payload"]))
        else:
            self.screens.append(message["payload"] or "")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commander, "clock_is_synchronised", lambda: True)  # that of a test machine may not be


def wait_for(condition: Callable[[], object], what: str) -> None:
    by_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < by_s, f"{what} did not come in {WAIT_S:g} s"
        time.sleep(0.1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """The port of a mosquitto that keeps little for those who are away."""
    made = Broker(tmp_path / "broker", keeps=False, extra=f"max_queued_messages {KEPT}")
    made.start()
    yield made.port
    made.kill()


@pytest.fixture
def node_red(tmp_path: Path) -> Iterator[NodeRed]:
    made = NodeRed(tmp_path / "node-red")
    yield made
    made.stop()


@pytest.fixture
def consumer(broker: int) -> Iterator[Consumer]:
    made = Consumer(broker)
    yield made
    made.close()


def wired(port: int) -> list[dict[str, Any]]:
    """The flow at this broker, with a node of ours in the place of each debug node."""
    nodes: list[dict[str, Any]] = json.loads(FLOW.read_text())
    ours = {"kenpin-show-events": "consumer/event", "kenpin-show-alarms": "consumer/screen"}
    out = {"type": "mqtt out", "qos": "1", "retain": "false", "broker": "kenpin-broker", "wires": []}
    for node in nodes:
        if node["id"] == "kenpin-broker":
            node |= {"broker": "127.0.0.1", "port": str(port)}
        if node["id"] in ours:
            place = {name: node[name] for name in ("id", "z", "name", "x", "y")}
            node.clear()
            node |= {**place, **out, "topic": ours[place["id"]]}
    return nodes


def run_simulation(port: int, state: Path) -> int:
    """The number of its last event."""
    url = f"mqtt://127.0.0.1:{port}"
    arguments = ["--url", url, "--topic", TOPIC, "--pause-s", "0.02", "--state", str(state)]
    done = CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with closing(connect(state / "simulation.db")) as connection:
        return Outbox(connection).newest()


@contextmanager
def commanded(port: int, state: Path) -> Iterator[Publisher]:
    """The same station, with its stored events, taking commands."""
    folder, key = StationFolder(state), state / "ops1.key"
    (state / "simulation.db").rename(folder.database)
    folder.create()
    key.touch(0o600)
    key.write_text(KEY)
    identity = Identity("sim-01", test=True)
    order = Order(
        folder,
        identity,
        key,
        reach=None,
        look_back=lambda: made.look_back(),  # noqa: PLW0108 made below
        tell_again=lambda: made.tell_again(),  # noqa: PLW0108 made below
    )
    broker = BrokerAddress("127.0.0.1", port, "sim-01")
    made = Publisher(Desk(broker, TOPIC, identity, folder.database, Counters().snapshot, Commander(order)))
    made.start()
    try:
        yield made
    finally:
        made.stop(reason="shutdown", drain_s=5)


def note_something(state: Path) -> None:
    """A live event."""
    with closing(connect(StationFolder(state).database)) as connection, transaction(connection):
        common = Identity("sim-01", test=True).common(now_ms())
        Outbox(connection).put(Audit(**common, kind="config", actor="Sato", subject="light"))


def newest(state: Path) -> int:
    with closing(connect(StationFolder(state).database)) as connection:
        return Outbox(connection).newest()


def test_each_event_once_a_gap_is_seen_and_asked_for(
    broker: int, node_red: NodeRed, consumer: Consumer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    node_red.start()
    node_red.import_flow(wired(broker))
    wait_for(lambda: "Connected to broker" in node_red.log, "the connection")
    first = run_simulation(broker, state)
    wait_for(lambda: len(consumer.events) >= first, "the first events")
    assert consumer.numbers() == list(range(1, first + 1))

    node_red.stop()
    second = run_simulation(broker, state)
    assert second - first > 2 * KEPT
    node_red.start()
    wait_for(lambda: len(consumer.events) > first, "what the broker kept")
    with commanded(broker, state) as publisher:
        wait_for(lambda: publisher.traffic.connections, "the station")
        note_something(state)
        publisher.wake()
        wait_for(node_red.missing, "the gap")
        (gap,) = node_red.missing()
        assert (first < gap["first"], gap["last"]) == (True, second)
        wait_for(lambda: not node_red.missing(), "the missing events")
        wait_for(lambda: len(consumer.events) >= newest(state), "the answer to the command")
        assert consumer.numbers() == list(range(1, newest(state) + 1))
        asked = second - gap["first"] + 1
        late = {event["seq"] for event in consumer.events if event["late"]}
        assert late >= set(range(gap["first"], second + 1))

        acked = publisher.traffic.acked
        with closing(connect(StationFolder(state).database)) as connection, transaction(connection):
            Outbox(connection).send_again(since=1, count=10_000)
        publisher.look_back()
        wait_for(lambda: publisher.traffic.acked >= acked + newest(state), "everything a second time")
        note_something(state)
        publisher.wake()
        wait_for(lambda: newest(state) in consumer.numbers(), "the last event")
    assert consumer.numbers() == list(range(1, newest(state) + 1))
    assert all(event["test"] for event in consumer.events)
    assert any(line.startswith("4 engine_integrity UNACK: Keep parts back") for line in consumer.screens)
    assert not consumer.screens[-1]  # no alarm of the simulation stands at its end
    with capsys.disabled():
        sys.stdout.write(f"Node-RED {node_red.version}: {len(consumer.events)} events, {asked} asked for\n")
