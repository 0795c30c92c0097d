"""Payloads, read by protobuf with the description that pysparkplug brings: nobody here wrote either."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pysparkplug
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pysparkplug._protobuf import Payload

from kenpin.edge_runtime.sparkplug_payload import (
    BD_SEQ,
    REBIRTH,
    Command,
    DataType,
    Metric,
    Value,
    checked,
    decode_commands,
    encode_payload,
)
from kenpin.errors import BrokerError

TIMES = st.integers(0, 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
SCALARS: dict[DataType, st.SearchStrategy[Any]] = {
    DataType.INT32: st.integers(-(2**31), 2**31 - 1),
    DataType.INT64: st.integers(-(2**63), 2**63 - 1),
    DataType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    DataType.BOOLEAN: st.booleans(),
    DataType.STRING: TEXTS,
    DataType.DATETIME: st.integers(0, 253_402_300_799_999),  # to the end of the year 9999
}
VALUES = st.sampled_from(DataType).flatmap(lambda t: st.tuples(st.just(t), st.none() | SCALARS[t]))
METRICS = st.builds(Metric, TEXTS.filter(bool), VALUES, TIMES)
EXTREMES: list[Value] = [
    (DataType.INT32, -(2**31)),
    (DataType.INT32, -1),
    (DataType.INT32, 2**31 - 1),
    (DataType.INT64, -(2**63)),
    (DataType.INT64, -1),
    (DataType.INT64, 2**63 - 1),
]


@example([Metric("a", value, 1) for value in EXTREMES], 1, 0)
@given(st.lists(METRICS, max_size=5), TIMES, st.none() | st.integers(0, 255))
def test_protobuf_reads_what_is_written(metrics: list[Metric], sent_ms: int, seq: int | None) -> None:
    body = encode_payload(metrics, sent_ms=sent_ms, seq=seq)
    read = Payload.FromString(body)
    assert read.SerializeToString() == body
    assert read.timestamp == sent_ms
    assert (read.seq if read.HasField("seq") else None) == seq
    assert [_read(metric) for metric in read.metrics] == metrics


def _read(metric: Any) -> Metric:
    """By pysparkplug's own rules of signs."""
    datatype = DataType(metric.datatype)
    assert metric.HasField("is_null") != bool(metric.WhichOneof("value"))
    if metric.is_null:
        return Metric(metric.name, (datatype, None), metric.timestamp)
    theirs = pysparkplug.DataType(metric.datatype)
    assert metric.WhichOneof("value") == theirs.field
    value: Any = getattr(metric, theirs.field)
    if datatype is not DataType.DATETIME:
        value = theirs.decode(value)
    return Metric(metric.name, (datatype, value), metric.timestamp)


def test_tck_id_payloads_metric_datatype_value() -> None:
    assert all(pysparkplug.DataType[ours.name] == ours for ours in DataType)
    assert "UINT32" not in DataType.__members__  # hosts look for it in two different fields


def test_tck_id_payloads_alias_uniqueness() -> None:
    """There are none."""
    read = Payload.FromString(encode_payload([Metric("a", (DataType.INT64, 1), 2)], sent_ms=3, seq=0))
    assert not read.metrics[0].HasField("alias")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null(number: float) -> None:
    assert checked("score", (DataType.DOUBLE, number)) == (DataType.DOUBLE, None)


def test_text_that_is_no_unicode_is_sent_with_a_question_mark() -> None:
    body = encode_payload([Metric("a\udcff", (DataType.STRING, "b\udcff"), 2)], sent_ms=3, seq=0)
    read = Payload.FromString(body).metrics[0]
    assert (read.name, read.string_value) == ("a?", "b?")


@pytest.mark.parametrize(
    "value",
    [
        (DataType.INT32, 2**31),
        (DataType.INT32, -(2**31) - 1),
        (DataType.INT32, True),
        (DataType.INT32, 1.0),
        (DataType.INT64, 2**63),
        (DataType.DATETIME, -1),
        (DataType.DOUBLE, True),
        (DataType.DOUBLE, 10**400),
        (DataType.BOOLEAN, 1),
        (DataType.STRING, b"bytes"),
        (DataType.STRING, 1),
    ],
)
def test_a_value_that_is_not_of_its_data_type_is_refused(value: Value) -> None:
    with pytest.raises(BrokerError, match=f"no {value[0].name} of Sparkplug") as caught:
        checked("some metric", value)
    assert caught.value.where == "some metric"


@pytest.mark.parametrize("name", ["", BD_SEQ, REBIRTH])
def test_a_name_that_sparkplug_uses_itself_is_refused(name: str) -> None:
    with pytest.raises(BrokerError, match="cannot have the name"):
        checked(name, (DataType.BOOLEAN, True))


@given(VALUES)
def test_a_value_that_fits_stays_as_it_is(value: Value) -> None:
    assert checked("some metric", value) == value


def test_a_command_of_another_program_is_read() -> None:
    metrics = (
        pysparkplug.Metric(timestamp=1, name=REBIRTH, datatype=pysparkplug.DataType.BOOLEAN, value=True),
        pysparkplug.Metric(timestamp=1, name="off", datatype=pysparkplug.DataType.BOOLEAN, value=False),
        pysparkplug.Metric(timestamp=1, name="limit", datatype=pysparkplug.DataType.DOUBLE, value=0.5),
        pysparkplug.Metric(timestamp=1, name="rate", datatype=pysparkplug.DataType.FLOAT, value=0.5),
        pysparkplug.Metric(timestamp=1, name="recipe", datatype=pysparkplug.DataType.STRING, value="a"),
        pysparkplug.Metric(timestamp=1, name="count", datatype=pysparkplug.DataType.UINT32, value=7),
    )
    body = pysparkplug.NCmd(timestamp=5, metrics=metrics).encode(include_dtypes=True)
    assert decode_commands(body) == [
        Command(REBIRTH, value=True),
        Command("off", value=False),
        *(Command(name, value=None) for name in ("limit", "rate", "recipe", "count")),
    ]


def test_the_last_value_of_a_metric_counts() -> None:
    """As in every reader of Protocol Buffers: of the fields that exclude each other, the last one stays."""
    metric = b"\x0a\x01a" + b"\x70\x01" + b"\x50\x07"  # name, boolean_value, int_value
    assert decode_commands(b"\x12" + bytes([len(metric)]) + metric) == [Command("a", value=None)]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x12\x05\x0a", "cut off"),
        (b"\x12", "cut off"),
        (b"\x0b", "wire type 3"),
        (b"\x09\x01", "cut off"),
        (b"\x10\x01", "a number stands where"),
        (b"\x12\x02\x08\x01", "a number stands where"),
        (b"\x12\x03\x0a\x01\xff", "can't decode"),
        (b"\x80" * 11, "does not end"),
        (b'{"metrics": []}', "wire type"),
    ],
)
def test_what_is_no_payload_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(BrokerError, match=why) as caught:
        decode_commands(body)
    assert caught.value.where == body[:32].hex()


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with contextlib.suppress(BrokerError):
        decode_commands(body)


@given(st.lists(METRICS, max_size=3), st.data())
def test_a_damaged_payload_does_no_more_than_be_refused(metrics: list[Metric], data: Any) -> None:
    body = bytearray(encode_payload(metrics, sent_ms=1, seq=2))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        commands = decode_commands(bytes(body))
    except BrokerError:
        return
    assert all(isinstance(command, Command) for command in commands)
