"""The edge node at a real broker: mosquitto's own subscriber listens, pysparkplug reads and commands."""

from __future__ import annotations

import gc
import json
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pysparkplug
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from pysparkplug._protobuf import Payload

from benchmarks.rig import Listener
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.sparkplug import Sparkplug
from kenpin.edge_runtime.sparkplug_link import Heard, SparkplugLink, Timing
from kenpin.edge_runtime.sparkplug_payload import REBIRTH, DataType
from kenpin.edge_runtime.sparkplug_refusal import Refusal, Refusals
from kenpin.edge_runtime.sparkplug_session import EdgeNode, Message
from kenpin.errors import BrokerError
from tests.edge_runtime.conftest import let_thread_die

FAST = Timing(reconnect_s=(0.1, 0.4), rebirth_s=0.1)
STATE = "spBv1.0/STATE/ignition"
NCMD = "spBv1.0/plant/NCMD/st-01"


@dataclass(frozen=True)
class Seen:
    """A message as the broker passed it on."""

    verb: str
    device: str
    qos: int
    retain: bool
    payload: Any

    @property
    def values(self) -> dict[str, Any]:
        return {m.name: getattr(m, m.WhichOneof("value")) for m in self.payload.metrics}

    @property
    def bd_seq(self) -> int:
        return int(self.values["bdSeq"])


class Host:
    """mosquitto_sub and mosquitto_pub as a host; it keeps its session while the broker is away."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[Seen] = []
        self._ready = threading.Event()
        lasting = ("-V", "5", "-i", "host", "-c", "-x", "3600", "-q", "2", "--retain-as-published")
        shown = ("-F", '{"topic": "%t", "qos": %q, "retain": %r, "hex": "%x"}')
        self._listener = Listener(port, self._hear, *lasting, "-t", "spBv1.0/#", "-t", "ready", *shown)

    def wait_until_ready(self, wait_for: Any) -> Host:
        self._ready.clear()
        wait_for(lambda: self.say("ready", b"-") or self._ready.is_set(), "the host's subscription")
        return self

    def say(self, topic: str, body: bytes, *options: str) -> None:
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-q", "1")
        subprocess.run(["mosquitto_pub", *address, "-t", topic, "-s", *options], input=body, check=True)

    def state(self, *, online: bool, time_ms: int) -> None:
        self.say(STATE, json.dumps({"online": online, "timestamp": time_ms}).encode(), "-r")

    def of(self, *verbs: str) -> list[Seen]:
        return [seen for seen in list(self.seen) if seen.verb in verbs]

    def close(self) -> None:
        self._listener.close()

    def _hear(self, line: str) -> None:
        message = json.loads(line)
        body = bytes.fromhex(message["hex"])
        levels = message["topic"].split("/")
        if levels == ["ready"]:
            self._ready.set()
        elif levels[1] == "plant" and not levels[2].endswith("CMD"):
            device = (*levels, "")[4]
            payload = Payload.FromString(body)
            self.seen.append(Seen(levels[2], device, message["qos"], bool(message["retain"]), payload))


@pytest.fixture
def make_host(wait_for: Any) -> Iterator[Callable[[int], Host]]:
    made: list[Host] = []

    def make(port: int) -> Host:
        made.append(Host(port))
        return made[-1].wait_until_ready(wait_for)

    yield make
    for host in made:
        host.close()


class Node:
    """Edge nodes that end with the test, and what they refused."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.made: list[Sparkplug] = []

    def start(
        self, port: int, *, primary_host: str = "", timing: Timing = FAST, report: Any = None
    ) -> Sparkplug:
        address = BrokerAddress("127.0.0.1", port, "st-01-sparkplug")
        node = EdgeNode("plant", "st-01", primary_host)
        self.made.append(Sparkplug(address, node, report or self.refusals.append, timing=timing))
        self.made[-1].tell({"parts": (DataType.INT64, 0)})
        self.made[-1].tell({"score": (DataType.DOUBLE, 0.5)}, device="cam")
        self.made[-1].start()
        return self.made[-1]


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    for sparkplug in made.made:
        sparkplug.stop()


def rebirth(*, value: bool = True, name: str = REBIRTH) -> bytes:
    metric = pysparkplug.Metric(timestamp=1, name=name, datatype=pysparkplug.DataType.BOOLEAN, value=value)
    return pysparkplug.NCmd(timestamp=1, metrics=(metric,)).encode(include_dtypes=True)


def parts(sparkplug: Sparkplug, number: int) -> None:
    sparkplug.tell({"parts": (DataType.INT64, number)})


def test_tck_id_topics_nbirth_mqtt(mosquitto: Any, make_host: Any, node: Node, wait_for: Any) -> None:
    """Births, data and deaths in their order; all with QoS 0 and not retained, but an NDEATH with QoS 1."""
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port)
    wait_for(lambda: host.of("DBIRTH"), "the births")
    parts(sparkplug, 1)
    sparkplug.tell({"score": (DataType.DOUBLE, 0.75)}, device="cam")
    sparkplug.lose("cam")
    sparkplug.stop()
    wait_for(lambda: host.of("NDEATH"), "the goodbye")
    verbs = [seen.verb for seen in host.seen]
    assert verbs == ["NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH", "NDEATH"]
    assert [(seen.qos, seen.retain) for seen in host.seen] == [(0, False)] * 5 + [(1, False)]
    assert [seen.payload.seq for seen in host.seen[:5]] == [0, 1, 2, 3, 4]
    assert host.seen[0].values == {"parts": 0, REBIRTH: False, "bdSeq": 0}
    assert (host.seen[1].device, host.seen[1].values) == ("cam", {"score": 0.5})
    assert (host.seen[2].values, host.seen[3].values) == ({"parts": 1}, {"score": 0.75})


def test_tck_id_operational_behavior_edge_node_intentional_disconnect_ndeath(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any
) -> None:
    """One NDEATH: the node's own, after which the broker does not publish the last will."""
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port)
    wait_for(lambda: host.of("NBIRTH"), "the birth")
    sparkplug.stop()
    host.say("ready", b"-")
    node.start(mosquitto.port)
    wait_for(lambda: len(host.of("NBIRTH")) == 2, "the birth of the next process")
    assert [seen.bd_seq for seen in host.of("NDEATH")] == [0]


def test_tck_id_payloads_ndeath_will_message(mosquitto: Any, make_host: Any, node: Node, wait_for: Any) -> None:
    """A cut cable: the broker publishes the last will, with the number of the birth that it ends."""
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port)
    for number in range(3):
        wait_for(lambda number=number: len(host.of("NBIRTH")) == number + 1, "a birth")
        cut(sparkplug)
        wait_for(lambda number=number: len(host.of("NDEATH")) == number + 1, "the last will")
    wait_for(lambda: len(host.of("NBIRTH")) == 4, "the last birth")
    assert [seen.bd_seq for seen in host.of("NBIRTH")] == [0, 1, 2, 3]
    assert [(seen.bd_seq, seen.qos, seen.retain) for seen in host.of("NDEATH")] == [
        (number, 1, False) for number in range(3)
    ]


def cut(sparkplug: Sparkplug) -> None:
    connected = sparkplug._link._client.socket()
    assert isinstance(connected, socket.socket)
    connected.shutdown(socket.SHUT_RDWR)


def test_tck_id_message_flow_edge_node_birth_publish_will_message_payload_bdseq(
    make_mosquitto: Any, make_host: Any, node: Node, wait_for: Any
) -> None:
    """`bdSeq` counts CONNECT packets, not attempts; what was told meanwhile is in the birth."""
    broker = make_mosquitto()
    sparkplug = node.start(broker.port)
    time.sleep(0.5)  # some attempts at a broker that is not there
    broker.start()
    host = make_host(broker.port)
    for number in (1, 2, 3):
        wait_for(lambda: sparkplug.is_born, "the birth")
        broker.kill()
        wait_for(lambda: not sparkplug.is_born, "the loss")
        parts(sparkplug, number)
        time.sleep(0.3)
        broker.start()
    wait_for(lambda: sparkplug.is_born, "the birth after the outage")
    host.wait_until_ready(wait_for)
    host.say(NCMD, rebirth())
    wait_for(lambda: any(seen.values["parts"] == 3 for seen in host.of("NBIRTH")), "the rebirth")
    assert host.of("NBIRTH")[-1].bd_seq == 3


class RawBroker:
    """Takes a connection and shows the bytes of CONNECT."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]

    def connect_packet(self) -> bytes:
        connection, _ = self._server.accept()
        with connection:
            return connection.recv(4096)

    def refuse_all_topics(self) -> str:
        """What came after the answer to SUBSCRIBE, which refuses both of its topics."""
        connection, _ = self._server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"\x20\x02\x00\x00")
            subscribe = connection.recv(4096)
            assert subscribe[0] == 0x82
            connection.sendall(b"\x90\x04" + subscribe[2:4] + b"\x80\x80")
            return connection.recv(4096).decode(errors="replace")

    def close(self) -> None:
        self._server.close()


def test_tck_id_message_flow_edge_node_birth_publish_will_message(node: Node, closed: Any) -> None:
    """The CONNECT packet of MQTT 3.1.1, byte by byte: clean session, will with QoS 1, not retained."""
    broker = closed(RawBroker())
    node.start(broker.port)
    packets = [broker.connect_packet() for _ in range(2)]
    for bd_seq, packet in enumerate(packets):
        assert packet[0] == 0x10
        protocol = packet.index(b"\x00\x04MQTT\x04")
        flags = packet[protocol + 7]
        assert flags & 0x02  # clean session
        assert flags & 0x04  # a will
        assert flags >> 3 & 0x03 == 1  # its QoS
        assert not flags & 0x20  # not retained
        topic = b"spBv1.0/plant/NDEATH/st-01"
        will = packet[packet.index(topic) + len(topic) + 2 :]
        payload = Payload.FromString(will)
        assert (payload.HasField("seq"), payload.metrics[0].name) == (False, "bdSeq")
        assert payload.metrics[0].long_value == bd_seq


def test_tck_id_operational_behavior_data_commands_rebirth_action_2(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any
) -> None:
    """All births again, with the same `bdSeq`; then data goes on."""
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port)
    wait_for(lambda: host.of("DBIRTH"), "the births")
    host.say(NCMD, rebirth())
    wait_for(lambda: len(host.of("DBIRTH")) == 2, "the rebirth")
    parts(sparkplug, 1)
    wait_for(lambda: host.of("NDATA"), "data")
    assert [(seen.verb, seen.payload.seq) for seen in host.seen] == [
        *[("NBIRTH", 0), ("DBIRTH", 1)] * 2,
        ("NDATA", 2),
    ]
    assert [seen.bd_seq for seen in host.of("NBIRTH")] == [0, 0]
    assert (sparkplug.refused, node.refusals) == (0, [])


def test_many_who_ask_for_a_rebirth_get_one(mosquitto: Any, make_host: Any, node: Node, wait_for: Any) -> None:
    """A host cannot make the station repeat itself without end; meanwhile no data is sent."""
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port, timing=Timing(rebirth_s=3600))
    wait_for(lambda: host.of("DBIRTH"), "the births")
    for _ in range(3):
        host.say(NCMD, rebirth())
    wait_for(lambda: not sparkplug.is_born, "the wish")
    parts(sparkplug, 1)
    host.wait_until_ready(wait_for)
    assert [seen.verb for seen in host.seen] == ["NBIRTH", "DBIRTH"]
    assert sparkplug._rebirth_s is not None
    sparkplug._rebirth_s = 0.0  # the hour is over
    wait_for(lambda: len(host.of("DBIRTH")) == 2, "one rebirth")
    assert [seen.values["parts"] for seen in host.of("NBIRTH")] == [0, 1]


def test_every_other_command_is_refused_and_reported(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any
) -> None:
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port)
    wait_for(lambda: host.of("DBIRTH"), "the births")
    dcmd = "spBv1.0/plant/DCMD/st-01/cam"
    for number, (topic, body, why) in enumerate(
        [
            (NCMD, rebirth(name="Node Control/Reboot"), "the command 'Node Control/Reboot'"),
            (NCMD, rebirth(value=False), f"the command '{REBIRTH}'"),
            (dcmd, rebirth(), f"the command '{REBIRTH}'"),
            (NCMD, b"{}", "the command is no payload"),
            (dcmd, b"xx", "a payload without a command"),  # a field that nobody knows
        ],
        start=1,
    ):
        host.say(topic, body)
        wait_for(lambda number=number: len(node.refusals) == number, "the report")
        assert node.refusals[-1].topic == topic
        assert node.refusals[-1].why.startswith(why)
        sparkplug._refusals._due_s = 0.0  # the pause is over
    host.say(NCMD, rebirth(), "-r")  # obeyed now, but not by one who connects later and gets it as retained
    wait_for(lambda: len(host.of("NBIRTH")) == 2, "the rebirth")
    cut(sparkplug)
    wait_for(lambda: len(node.refusals) == 6, "the report")
    assert "retained" in node.refusals[-1].why
    assert sparkplug.refused == 6
    wait_for(lambda: len(host.of("NBIRTH")) == 3, "the birth after the cut")


def test_a_flood_of_commands_is_one_report() -> None:
    reports: list[Refusal] = []
    refusals = Refusals(reports.append)
    for _ in range(50):
        refusals.note(NCMD, "a command")
        refusals.tell()
    assert reports == [Refusal(NCMD, "a command", times=1)]
    refusals._due_s = 0.0  # the second is over
    refusals.tell()
    refusals.tell()
    assert reports[1:] == [Refusal(NCMD, "a command", times=49)]
    assert refusals.total == 50


def test_a_day_of_forged_commands_is_some_reports_and_each_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reported goes into the audit, of which nothing is ever deleted."""
    reports: list[Refusal] = []
    refusals = Refusals(reports.append)
    for second in range(86_400):
        monkeypatch.setattr("kenpin.edge_runtime.sparkplug_refusal.time.monotonic", lambda now=second: now)
        refusals.note(NCMD, "a command")
        refusals.tell()
    assert 24 < len(reports) < 40
    assert 86_400 - 3600 <= sum(report.times for report in reports) <= 86_400


def test_a_flood_of_commands_does_not_fill_the_memory() -> None:
    sparkplug = Sparkplug(BrokerAddress("127.0.0.1", 1, "x"), EdgeNode("plant", "st-01"), print)
    link = sparkplug._link

    def hear(topic: str, body: bytes) -> None:
        message = paho_message(topic, body)
        link._on_message(None, None, message)  # type: ignore[arg-type]

    hear(NCMD, b"x" * 1_000_000)
    for _ in range(1000):
        hear(NCMD, b"{}")
    assert sparkplug._signals.qsize() == 257
    assert sparkplug.refused == link.dropped == 744
    hear(STATE, b"{}")  # a host that goes offline is heard all the same
    assert sparkplug._signals.qsize() == 258
    first = sparkplug._signals.get()
    assert isinstance(first, Heard)
    assert len(first.body) == 4096


def paho_message(topic: str, body: bytes) -> MQTTMessage:
    message = MQTTMessage(topic=topic.encode())
    message.payload = body
    return message


def test_tck_id_message_flow_edge_node_birth_publish_phid_offline(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No birth before the host is online; an NDEATH, and a new connection, as soon as it is not."""
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port, primary_host="ignition")
    wait_for(lambda: any("before the host ignition is online" in r.message for r in caplog.records), "the wait")
    assert not sparkplug.is_born
    host.state(online=True, time_ms=10)
    wait_for(lambda: host.of("DBIRTH"), "the births")
    host.state(online=False, time_ms=9)  # older: nothing changes
    parts(sparkplug, 1)
    wait_for(lambda: host.of("NDATA"), "data")
    host.state(online=False, time_ms=11)
    wait_for(lambda: host.of("NDEATH"), "the NDEATH")
    wait_for(lambda: sparkplug._is_subscribed, "the new connection")
    parts(sparkplug, 2)
    host.state(online=True, time_ms=12)
    wait_for(lambda: len(host.of("DBIRTH")) == 2, "the births for the host that is back")
    assert [s.verb for s in host.seen] == ["NBIRTH", "DBIRTH", "NDATA", "NDEATH", "NBIRTH", "DBIRTH"]
    assert [s.bd_seq for s in host.of("NBIRTH", "NDEATH")] == [0, 0, 1]
    assert host.of("NBIRTH")[-1].values["parts"] == 2
    assert not any("No connection" in r.message for r in caplog.records)  # leaving is no loss


def test_a_host_of_sparkplug_2_2_is_waited_for(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any
) -> None:
    host = make_host(mosquitto.port)
    host.say("STATE/ignition", b"OFFLINE", "-r")
    sparkplug = node.start(mosquitto.port, primary_host="ignition")
    wait_for(lambda: sparkplug._is_subscribed, "the subscription")
    host.say("STATE/ignition", b"ONLINE", "-r")
    wait_for(lambda: host.of("NBIRTH"), "the birth")
    host.say("STATE/ignition", b"OFFLINE", "-r")
    wait_for(lambda: host.of("NDEATH"), "the NDEATH")
    host.say("STATE/ignition", b"perhaps", "-r")
    wait_for(lambda: node.refusals, "the report")
    assert node.refusals[0].why == "not a STATE message of Sparkplug"


def test_a_broker_that_refuses_the_commands_is_told_of(
    node: Node, closed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Data is better than nothing where a host may not command."""
    broker = closed(RawBroker())
    node.start(broker.port)
    assert "NBIRTH" in broker.refuse_all_topics()
    assert any("refuses 2 of the topics that plant/st-01" in r.message for r in caplog.records)


def test_a_broker_that_is_away_is_said_once(
    node: Node, free_port: int, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sparkplug = node.start(free_port)
    wait_for(lambda: any("No connection to 127.0.0.1" in r.message for r in caplog.records), "the word")
    time.sleep(0.5)
    assert len([r for r in caplog.records if "No connection" in r.message]) == 1
    parts(sparkplug, 1)  # does not wait
    sparkplug.stop()
    assert not sparkplug._thread.is_alive()


def test_of_two_nodes_with_one_id_one_gives_way(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any
) -> None:
    """As after copying a disk: else they would throw each other out for ever, a death and a birth each time."""
    host = make_host(mosquitto.port)
    for _ in range(2):
        parts(node.start(mosquitto.port, timing=Timing(reconnect_s=(0.1, 1000.0))), 1)
    wait_for(lambda: len(host.of("NBIRTH")) >= 6, "the fight")
    time.sleep(3.0)
    born = len(host.of("NBIRTH"))
    time.sleep(3.0)
    assert len(host.of("NBIRTH")) == born


def test_no_birth_goes_out_on_a_connection_with_another_will(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any
) -> None:
    """While the thread is busy, the connection breaks and comes back: what it knows is of the old one."""
    busy, go_on = threading.Event(), threading.Event()

    def audit(_: Refusal) -> None:
        busy.set()
        go_on.wait()

    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port, report=audit)
    wait_for(lambda: host.of("DBIRTH"), "the births")
    host.say(NCMD, b"{}")
    busy.wait()
    parts(sparkplug, 1)  # stands in the queue before the loss
    cut(sparkplug)
    wait_for(lambda: sparkplug._link.connection == 3, "the new connection")
    go_on.set()
    wait_for(lambda: len(host.of("DBIRTH")) == 2, "the births")
    assert [seen.verb for seen in host.seen] == ["NBIRTH", "DBIRTH", "NDEATH", "NBIRTH", "DBIRTH"]
    assert [seen.bd_seq for seen in host.of("NBIRTH")] == [0, 1]


def test_an_audit_that_fails_does_not_end_the_node(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What went wrong may have left something half said, so it is said anew."""

    def audit(_: Refusal) -> None:
        raise OSError("disk full")

    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port, report=audit)
    wait_for(lambda: host.of("DBIRTH"), "the births")
    host.say(NCMD, b"{}")
    wait_for(lambda: len(host.of("DBIRTH")) == 2, "the rebirth")
    assert any("stumbled" in r.message for r in caplog.records)
    parts(sparkplug, 1)
    wait_for(lambda: host.of("NDATA"), "data")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_network_thread_is_started_again(
    mosquitto: Any, make_host: Any, node: Node, wait_for: Any, caplog: pytest.LogCaptureFixture
) -> None:
    host = make_host(mosquitto.port)
    sparkplug = node.start(mosquitto.port)
    wait_for(lambda: host.of("DBIRTH"), "the births")

    pair = let_thread_die(sparkplug._link._client)
    host.say(NCMD, rebirth())
    wait_for(lambda: any("had died" in r.message for r in caplog.records), "the revival")
    parts(sparkplug, 1)
    wait_for(lambda: any(seen.values.get("parts") == 1 for seen in host.seen), "data")
    for forgotten in pair:
        forgotten.close()


def test_what_cannot_be_told_is_refused_at_once() -> None:
    sparkplug = Sparkplug(BrokerAddress("127.0.0.1", 1, "x"), EdgeNode("plant", "st-01"), print)
    with pytest.raises(BrokerError, match="no device of Sparkplug"):
        sparkplug.tell({}, device="a/b")
    with pytest.raises(BrokerError, match="no INT32 of Sparkplug"):
        sparkplug.tell({"parts": (DataType.INT32, 2**31)})
    assert sparkplug._signals.empty()


def test_a_connection_that_was_left_leaves_no_file_open(free_port: int) -> None:
    """A host that goes and comes again does not use up the station's file descriptors."""
    node, signals = EdgeNode("plant", "st-01"), queue.SimpleQueue[Any]()
    link = SparkplugLink(BrokerAddress("127.0.0.1", free_port, "x"), node, signals, FAST)
    before = len(list(Path("/proc/self/fd").iterdir()))
    gc.disable()
    for _ in range(5):
        link.open()
        signals.get(timeout=180)  # an attempt that failed
        link.leave(Message("a", b""))
    after = len(list(Path("/proc/self/fd").iterdir()))
    gc.enable()
    assert after == before


def test_data_that_finds_no_connection_ends_the_session() -> None:
    """paho would otherwise be handed data that hosts miss, while `seq` goes on."""
    sparkplug = Sparkplug(BrokerAddress("127.0.0.1", 1, "x"), EdgeNode("plant", "st-01"), print)
    sparkplug._link._client = Client(CallbackAPIVersion.VERSION2)
    sparkplug._is_subscribed = True
    sparkplug._birth()
    assert not sparkplug.is_born


def test_a_flood_of_commands_keeps_nothing_back(mosquitto: Any, node: Node, wait_for: Any) -> None:
    sparkplug, is_over = node.start(mosquitto.port), False

    def obey(heard: Heard) -> None:
        """While it looks at a command, the next one comes."""
        sparkplug._refusals.note(heard.topic, "of a flood")
        if not is_over:
            sparkplug._signals.put(heard)

    sparkplug._obey = obey  # type: ignore[method-assign]
    sparkplug._signals.put(Heard(NCMD, b"", is_retained=False))
    try:
        wait_for(lambda: node.refusals, "what is reported after each round")
    finally:
        is_over = True
