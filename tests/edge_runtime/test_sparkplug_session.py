"""The rules of a Sparkplug session, each named after its assertion in the specification."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysparkplug._protobuf import Payload

from kenpin.edge_runtime.sparkplug_host import PrimaryHost
from kenpin.edge_runtime.sparkplug_payload import DataType, Value
from kenpin.edge_runtime.sparkplug_session import (
    NODE,
    EdgeNode,
    Message,
    Session,
    check_device,
    encode_death,
    next_bd_seq,
)
from kenpin.errors import BrokerError, ConfigError

STATION = EdgeNode("plant", "st-01")


def number(value: int) -> Value:
    return DataType.INT64, value


def read(message: Message) -> Any:
    return Payload.FromString(message.body)


def told(message: Message) -> dict[str, Any]:
    return {m.name: None if m.is_null else getattr(m, m.WhichOneof("value")) for m in read(message).metrics}


def born(bd_seq: int = 0) -> Session:
    """A session with a value of the node and of two cameras."""
    session = Session(STATION)
    session.tell({"parts": number(1)}, now_ms=10)
    session.tell({"score": (DataType.DOUBLE, 0.5)}, device="cam1", now_ms=11)
    session.tell({"score": (DataType.DOUBLE, None)}, device="cam2", now_ms=12)
    session.begin(bd_seq)
    assert [m.topic for m in session.birth(now_ms=20)] == [
        "spBv1.0/plant/NBIRTH/st-01",
        "spBv1.0/plant/DBIRTH/st-01/cam1",
        "spBv1.0/plant/DBIRTH/st-01/cam2",
    ]
    return session


def births(session: Session, now_ms: int = 30) -> list[Message]:
    return session.birth(now_ms=now_ms)


def test_tck_id_topics_nbirth_topic() -> None:
    session = born()
    assert births(session)[0].topic == "spBv1.0/plant/NBIRTH/st-01"
    assert births(session)[1].topic == "spBv1.0/plant/DBIRTH/st-01/cam1"
    assert session.tell({"parts": number(2)}, now_ms=1)[0].topic == "spBv1.0/plant/NDATA/st-01"
    data = session.tell({"score": (DataType.DOUBLE, 1.0)}, device="cam1", now_ms=1)
    assert data[0].topic == "spBv1.0/plant/DDATA/st-01/cam1"
    assert session.lose("cam1", now_ms=1)[0].topic == "spBv1.0/plant/DDEATH/st-01/cam1"
    assert session.death(now_ms=1).topic == "spBv1.0/plant/NDEATH/st-01"


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "a\x00"])
def test_tck_id_topic_structure_namespace_valid_group_id(name: str) -> None:
    with pytest.raises(ConfigError, match="no id of Sparkplug"):
        EdgeNode(name, "st-01")
    with pytest.raises(ConfigError, match="no id of Sparkplug"):
        EdgeNode("plant", name)
    with pytest.raises(BrokerError, match="no device of Sparkplug"):
        check_device(name)
    if name:
        with pytest.raises(ConfigError, match="no id of Sparkplug"):
            EdgeNode("plant", "st-01", name)


def test_tck_id_topics_nbirth_metric_reqs() -> None:
    """All that was ever told, with its data type, its value and the time when it was taken."""
    session = born()
    session.tell({"state": (DataType.STRING, "RUNNING")}, now_ms=25)
    session.tell({"parts": number(7)}, now_ms=26)
    metrics = {m.name: m for m in read(births(session)[0]).metrics}
    assert set(metrics) == {"parts", "state", "Node Control/Rebirth", "bdSeq"}
    assert (metrics["parts"].long_value, metrics["parts"].datatype, metrics["parts"].timestamp) == (7, 4, 26)
    assert (metrics["state"].string_value, metrics["state"].datatype) == ("RUNNING", 12)


def test_tck_id_operational_behavior_data_publish_nbirth_order() -> None:
    session = born()
    for name, now_ms in (("a", 23), ("b", 21), ("c", 22)):
        session.tell({name: number(1)}, now_ms=now_ms)
        session.tell({name: number(1)}, device="cam1", now_ms=now_ms)
    for message in births(session):
        times = [m.timestamp for m in read(message).metrics]
        assert times == sorted(times)


def test_tck_id_operational_behavior_data_publish_dbirth_values() -> None:
    """A value that is not known is null, and not left out."""
    metric = read(births(born())[2]).metrics[0]
    assert metric.is_null
    assert metric.WhichOneof("value") is None


def test_tck_id_payloads_nbirth_bdseq() -> None:
    metric = {m.name: m for m in read(births(born(bd_seq=7))[0]).metrics}["bdSeq"]
    assert (metric.datatype, metric.long_value) == (DataType.INT64, 7)


def test_tck_id_payloads_ndeath_bdseq() -> None:
    session = born(bd_seq=7)
    assert told(session.death(now_ms=1)) == {"bdSeq": 7}
    assert session.death(now_ms=1).body == encode_death(7, now_ms=1)


def test_tck_id_payloads_ndeath_seq() -> None:
    assert not read(born().death(now_ms=1)).HasField("seq")


def test_tck_id_topics_nbirth_bdseq_increment() -> None:
    numbers = [0]
    for _ in range(256):
        numbers.append(next_bd_seq(numbers[-1]))
    assert numbers == [*range(256), 0]


def test_tck_id_payloads_nbirth_rebirth_req() -> None:
    metric = {m.name: m for m in read(births(born())[0]).metrics}["Node Control/Rebirth"]
    assert (metric.datatype, metric.boolean_value, metric.HasField("alias")) == (DataType.BOOLEAN, False, False)
    assert metric.HasField("boolean_value")


def test_tck_id_operational_behavior_data_commands_rebirth_action_3() -> None:
    """A rebirth is no connection: `bdSeq` stays, `seq` starts over, and data follows."""
    session = born(bd_seq=3)
    session.tell({"parts": number(2)}, now_ms=21)
    again = births(session)
    assert told(again[0])["bdSeq"] == 3
    assert [read(m).seq for m in again] == [0, 1, 2]
    assert read(session.tell({"parts": number(3)}, now_ms=31)[0]).seq == 3


def test_tck_id_operational_behavior_data_commands_rebirth_action_1() -> None:
    """Between the wish for a rebirth and the births no data is sent, nor lost."""
    session = born()
    session.end()
    assert session.tell({"parts": number(9)}, now_ms=21) == []
    assert session.lose("cam2", now_ms=21) == []
    again = births(session)
    assert told(again[0])["parts"] == 9
    assert [m.topic.rsplit("/")[-1] for m in again] == ["st-01", "cam1"]


def test_tck_id_payloads_sequence_num_incrementing() -> None:
    session = born()
    births(session)
    seqs = [read(session.tell({"parts": number(n)}, now_ms=n)[0]).seq for n in range(100, 700)]
    assert seqs == [n % 256 for n in range(3, 603)]


def test_tck_id_payloads_ddeath_seq() -> None:
    session = born()
    births(session)
    (death,) = session.lose("cam1", now_ms=40)
    assert (read(death).seq, read(death).timestamp, len(read(death).metrics)) == (3, 40, 0)
    assert session.lose("cam1", now_ms=41) == []  # once
    assert session.lose("cam9", now_ms=41) == []  # nobody was told of it


def test_tck_id_message_flow_device_birth_publish_dbirth_payload_seq() -> None:
    """A device that comes back is born again, also where nothing of it has changed."""
    session = born()
    session.lose("cam1", now_ms=40)
    (birth,) = session.tell({"score": (DataType.DOUBLE, 0.5)}, device="cam1", now_ms=41)
    assert birth.topic == "spBv1.0/plant/DBIRTH/st-01/cam1"
    assert (read(birth).seq, told(birth)) == (4, {"score": 0.5})
    assert session.tell({"score": (DataType.DOUBLE, 0.5)}, device="cam1", now_ms=42) == []


def test_tck_id_payloads_ndata_order() -> None:
    """No data before the births of the session."""
    session = Session(STATION)
    assert session.tell({"parts": number(1)}, now_ms=1) == []
    session.begin(0)
    assert session.tell({"parts": number(2)}, now_ms=2) == []
    assert told(births(session)[0])["parts"] == 2


def test_tck_id_message_flow_edge_node_birth_publish_nbirth_payload_seq() -> None:
    """A new connection needs births before data, with its own `bdSeq`, and `seq` starts over."""
    session = born(bd_seq=1)
    session.tell({"parts": number(5)}, now_ms=21)
    session.begin(2)
    assert not session.is_born
    assert session.tell({"parts": number(6)}, now_ms=22) == []
    again = births(session)
    assert (read(again[0]).seq, told(again[0])["bdSeq"]) == (0, 2)


def test_tck_id_operational_behavior_data_publish_nbirth_change() -> None:
    session = born()
    assert session.tell({"parts": number(1)}, now_ms=21) == []
    session.tell({"ng": number(0)}, now_ms=22)
    (data,) = session.tell({"parts": number(2), "ng": number(0)}, now_ms=23)
    assert told(data) == {"parts": 2}
    assert read(data).metrics[0].timestamp == 23


def test_tck_id_payloads_name_birth_data_requirement() -> None:
    session = born()
    data = session.tell({"parts": number(2)}, now_ms=23)
    for message in (*births(session), *data, session.death(now_ms=31)):
        assert read(message).timestamp
        assert all(m.name and m.timestamp for m in read(message).metrics)


def test_tck_id_topics_dbirth_metric_reqs() -> None:
    """What no birth has told of cannot come as data: the device is born again, or all of it for the node."""
    session = born()
    (birth,) = session.tell({"level": number(1)}, device="cam1", now_ms=21)
    assert (birth.topic, set(told(birth))) == ("spBv1.0/plant/DBIRTH/st-01/cam1", {"score", "level"})
    (birth,) = session.tell({"level": (DataType.STRING, "fine")}, device="cam1", now_ms=22)
    assert birth.topic == "spBv1.0/plant/DBIRTH/st-01/cam1"  # another data type
    (birth,) = session.tell({}, device="cam3", now_ms=23)
    assert birth.topic == "spBv1.0/plant/DBIRTH/st-01/cam3"
    assert len(session.tell({"new": number(1)}, device=NODE, now_ms=24)) == 4  # the node and three cameras


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from("xy"), st.integers(0, 2)), max_size=600)
)
def test_a_host_that_follows_the_numbers_knows_every_value(steps: list[tuple[str, str, int]]) -> None:
    session = born()
    messages = births(session)
    wanted: dict[tuple[str, str], int] = {}
    for at, (device, name, value) in enumerate(steps):
        messages += session.tell({name: number(value)}, device=device, now_ms=100 + at)
        wanted[device, name] = value
    seen: dict[tuple[str, str], int] = {}
    following = 0
    for message in messages:
        _, _, verb, _, *device = message.topic.split("/")
        following = 0 if verb == "NBIRTH" else following
        assert read(message).seq == following
        following = (following + 1) % 256
        names = {(*device, name)[-1]: value for name, value in told(message).items()}
        if "DATA" in verb:
            assert all(("".join(device), name) in seen for name in names)
        seen.update({("".join(device), name): value for name, value in names.items()})
    assert wanted.items() <= seen.items()


HOST = "spBv1.0/STATE/ignition"
OLD_HOST = "STATE/ignition"


def online(time_ms: int) -> bytes:
    return b'{"online": true, "timestamp": %d}' % time_ms


def offline(time_ms: int) -> bytes:
    return b'{"online": false, "timestamp": %d}' % time_ms


def test_tck_id_message_flow_edge_node_birth_publish_phid_wait() -> None:
    host = PrimaryHost("ignition")
    assert not host.is_online
    assert host.take(HOST, online(5))
    assert host.is_online
    assert PrimaryHost().is_online  # none is waited for
    assert PrimaryHost().topics == ()


def test_tck_id_message_flow_edge_node_birth_publish_phid_wait_id() -> None:
    host = PrimaryHost("ignition")
    assert host.topics == (HOST, OLD_HOST)
    assert not host.take("spBv1.0/STATE/another", online(5))
    assert not host.take("STATE/another", b"ONLINE")
    assert not host.is_online


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ONLINE",
        b"[]",
        b"\xff",
        pytest.param(b"[" * 99999, id="deep"),
        b'{"online": 1, "timestamp": 5}',
        b'{"online": true}',
        b'{"online": true, "timestamp": "5"}',
        b'{"online": true, "timestamp": true}',
    ],
)
def test_tck_id_message_flow_edge_node_birth_publish_phid_wait_online(body: bytes) -> None:
    host = PrimaryHost("ignition")
    assert not host.take(HOST, body)
    assert not host.is_online


def test_tck_id_operational_behavior_edge_node_termination_host_offline_timestamp() -> None:
    host = PrimaryHost("ignition")
    host.take(HOST, online(5))
    assert host.take(HOST, offline(4))
    assert host.is_online  # it is older than what is known
    host.take(HOST, offline(5))
    assert not host.is_online
    host.take(HOST, online(4))
    assert not host.is_online


def test_tck_id_operational_behavior_edge_node_birth_sequence_wait() -> None:
    """What was heard on another connection says nothing about this one, but its time does."""
    host = PrimaryHost("ignition")
    host.take(HOST, online(5))
    host.begin()
    assert not host.is_online
    host.take(HOST, online(4))
    assert not host.is_online
    host.take(HOST, online(5))
    assert host.is_online


def test_a_host_of_sparkplug_2_2_is_understood() -> None:
    host = PrimaryHost("ignition")
    assert host.take(OLD_HOST, b"ONLINE")
    assert host.is_online
    assert host.take(OLD_HOST, b"OFFLINE")
    assert not host.is_online
    assert not host.take(OLD_HOST, b"online")


def test_what_a_host_says_in_3_0_counts_more() -> None:
    host = PrimaryHost("ignition")
    host.take(OLD_HOST, b"OFFLINE")
    host.take(HOST, online(5))
    assert host.take(OLD_HOST, b"OFFLINE")
    assert host.is_online
    host.begin()
    host.take(OLD_HOST, b"ONLINE")
    assert host.is_online
