from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from kenpin.edge_runtime import run_socket, trigger_input
from kenpin.edge_runtime.mqtt_trigger import MqttTrigger
from kenpin.edge_runtime.run_socket import bind_in, send_in
from kenpin.edge_runtime.site import in_own_processes
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.trigger_input import SoftwareTrigger, make_trigger_input, send_trigger
from kenpin.edge_runtime.trigger_message import read_trigger
from kenpin.errors import ConfigError, SourceError
from tests.edge_runtime.conftest import let_thread_die


def soon() -> float:
    return time.monotonic() + 60


def test_a_program_triggers_through_the_socket(tmp_path: Path, closed: Any) -> None:
    trigger = closed(SoftwareTrigger(tmp_path))
    send_trigger(tmp_path, 7, "A-7")
    found = trigger.wait(soon())
    assert found is not None
    assert (found.trigger_id, found.part_id) == (7, "A-7")
    assert trigger.wait(time.monotonic()) is None
    assert (tmp_path / "trigger.sock").stat().st_mode & 0o777 == 0o600
    trigger.close()
    with pytest.raises(SourceError, match="no station takes triggers") as error:
        send_trigger(tmp_path, 8)
    assert "kenpin run" in error.value.cure


def test_a_socket_that_cannot_be_made_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(socket.socket):
        def bind(self, _address: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_socket.socket, "socket", Full)
    with pytest.raises(OSError, match="No space left") as error:
        bind_in(tmp_path, "trigger.sock", socket.SOCK_DGRAM)
    assert error.value.filename == str(tmp_path / "trigger.sock")


def test_a_trigger_by_a_user_who_may_not_reach_the_station(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger_input, "send_in", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(SourceError, match="this user may not trigger") as error:
        send_trigger(tmp_path, 1)
    assert "sudo -u" in error.value.cure


def test_a_station_that_has_no_room_for_a_trigger_is_not_taken_for_none(tmp_path: Path, closed: Any) -> None:
    closed(SoftwareTrigger(tmp_path))  # which does not come round
    with suppress(SourceError):
        for number in range(10_000):
            send_trigger(tmp_path, number)
    with pytest.raises(SourceError, match="not taken: too many wait") as error:
        send_trigger(tmp_path, 10_000)
    assert "send it again" in error.value.cure


def test_a_long_path_is_no_hindrance(tmp_path: Path, closed: Any) -> None:
    run = tmp_path / ("x" * 120)
    trigger = closed(SoftwareTrigger(run))
    send_trigger(run, 1)
    assert trigger.wait(soon()) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"{}",
        b"null",
        b"[1]",
        b"1.5",
        b"-1",
        b"true",
        b'{"trigger_id": true}',
        b'{"trigger_id": 1, "more": 2}',
        b'{"trigger_id": 1, "part_id": 2}',
        b'{"trigger_id": 1, "part_id": "a\\u0000b"}',
        b'{"trigger_id": 99999999999999999999}',
        b'{"trigger_id": 1, "part_id": "' + b"x" * 300 + b'"}',
        b"[" * 1000,
        b" " * 2000 + b"1",
    ],
)
def test_what_is_no_trigger_is_ignored_and_counted(tmp_path: Path, data: bytes, closed: Any) -> None:
    trigger = closed(SoftwareTrigger(tmp_path))
    send_in(tmp_path, "trigger.sock", data)
    send_trigger(tmp_path, 2)
    found = trigger.wait(soon())
    assert found is not None
    assert found.trigger_id == 2
    assert trigger.refused == 1


@given(st.binary(max_size=200))
def test_no_datagram_breaks_it(data: bytes) -> None:
    found = read_trigger(data)
    assert found is None or 0 <= found.trigger_id < 2**63


def test_a_socket_that_a_kill_left_is_replaced(tmp_path: Path, closed: Any) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(tmp_path / "trigger.sock"))
    left.close()
    trigger = closed(SoftwareTrigger(tmp_path))
    send_trigger(tmp_path, 1)
    assert trigger.wait(soon()) is not None


def publish(port: int, payload: str, *more: str) -> None:
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", "plc/part", "-m", payload, *more]
    subprocess.run(command, check=True)


def test_messages_trigger_and_retained_ones_do_not(
    workshop: Any, mosquitto: Any, wait_for: Any, closed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publish(mosquitto.port, "5", "-r")
    workshop.port = mosquitto.port
    trigger = closed(MqttTrigger(workshop.config("usb:0"), "plc/part"))
    wait_for(lambda: trigger.refused == 1, "the retained message")
    publish(mosquitto.port, "6")
    publish(mosquitto.port, "nonsense")
    publish(mosquitto.port, '{"trigger_id": 7, "part_id": "A-7"}')
    found = [trigger.wait(soon()) for _ in range(2)]
    assert [(t.trigger_id, t.part_id) if t else None for t in found] == [(6, ""), (7, "A-7")]
    assert trigger.refused == 2
    assert "the broker kept it, and its part has passed" in caplog.text
    assert "nonsense" not in caplog.text


def test_a_trigger_that_cannot_be_heard_says_why(
    workshop: Any, mosquitto: Any, wait_for: Any, closed: Any
) -> None:
    workshop.port = mosquitto.port
    mosquitto.kill()  # or it may be there before anybody looks
    trigger = closed(MqttTrigger(workshop.config("usb:0"), "plc/part"))
    assert "not reached" in trigger.trouble
    mosquitto.start()
    wait_for(lambda: trigger.trouble == "", "the subscription")
    mosquitto.kill()
    wait_for(lambda: "lost" in trigger.trouble, "the loss")
    mosquitto.start()
    wait_for(lambda: trigger.trouble == "", "the subscription after it")
    refused = [ReasonCode(PacketTypes.SUBACK, "Not authorized")]
    trigger._subscribed(trigger._client, None, 1, refused, None)
    assert trigger.trouble == "the broker does not let the station read plc/part"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_network_thread_is_started_again(
    workshop: Any, mosquitto: Any, wait_for: Any, closed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.port = mosquitto.port
    trigger = closed(MqttTrigger(workshop.config("usb:0"), "plc/part"))
    wait_for(lambda: trigger.trouble == "", "the subscription")
    client = trigger._client
    thread, pair = client._thread, let_thread_die(client)
    publish(mosquitto.port, "5")
    wait_for(lambda: not thread.is_alive(), "the end of it")

    def hears() -> bool:
        publish(mosquitto.port, "6")
        return trigger.wait(time.monotonic() + 0.2) is not None

    wait_for(hears, "a trigger")
    assert "had died" in caplog.text
    for forgotten in pair:
        forgotten.close()


def test_a_broker_that_refuses_the_trigger_is_told(
    workshop: Any, make_mosquitto: Any, tmp_path: Path, wait_for: Any, closed: Any
) -> None:
    (tmp_path / "passwords").touch(mode=0o600)
    broker = make_mosquitto()
    broker._config.write_text(
        broker._config.read_text().replace("allow_anonymous true", "allow_anonymous false")
        + f"password_file {tmp_path}/passwords\n"
    )
    broker.start()
    workshop.port = broker.port
    trigger = closed(MqttTrigger(workshop.config("usb:0"), "plc/part"))
    wait_for(lambda: "refuses the station: Not authorized" in trigger.trouble, "the refusal")


def test_a_station_that_cannot_hear_its_triggers_is_not_ready(workshop: Any, free_port: int) -> None:
    workshop.ready()
    workshop.port = free_port  # where no broker is
    config = workshop.config("synthetic:fabric?trigger=1")
    source = config.source.model_copy(update={"trigger": "mqtt:plc/part"})
    with Station(config.model_copy(update={"source": source}), site=in_own_processes()) as station:
        assert not station._can_release()
        assert station._state()[1].startswith(("no trigger can be heard", "synthetic"))
        assert station._conditions()["line_lost"]


def test_triggers_that_nothing_can_deliver_are_said(workshop: Any, tmp_path: Path) -> None:
    config = workshop.config("synthetic:fabric?trigger=1")
    for kind, what in (("modbus", "Modbus output"), ("mqtt:plc/part", "a broker")):
        source = config.source.model_copy(update={"trigger": kind})
        with pytest.raises(ConfigError, match=what):
            make_trigger_input(config.model_copy(update={"source": source}), tmp_path, None)


LEADING = {"": "usb:1", "camera-line": "aravis:1?trigger=line2", "modbus": "aravis:1?trigger=software"}


def asked(workshop: Any, tmp_path: Path, trigger: str, **source: Any) -> None:
    """Have the trigger input made of cameras and triggers."""
    config = workshop.config("usb:0")
    source = {"trigger": trigger, **source}
    modbus: Any = object()
    config = config.model_copy(update={"source": config.source.model_copy(update=source)})
    assert make_trigger_input(config, tmp_path, modbus) is (modbus if trigger == "modbus" else None)


@pytest.mark.parametrize(
    ("trigger", "url"),
    [
        ("camera-line", "aravis:0?trigger=line1"),
        ("camera-line", "replay:recording"),
        ("modbus", "synthetic:fabric?trigger=1"),
        ("", "usb:0"),
        ("", "synthetic:fabric?trigger=0"),
    ],
)
def test_cameras_that_wait_for_the_triggers_that_the_station_has(
    workshop: Any, tmp_path: Path, trigger: str, url: str
) -> None:
    asked(workshop, tmp_path, trigger, url=url)
    asked(workshop, tmp_path, trigger, url=LEADING[trigger], views=(url,))


@pytest.mark.parametrize(
    ("trigger", "url", "cure"),
    [
        ("camera-line", "aravis:0?trigger=software", "add trigger=line1"),
        ("camera-line", "usb:0", "runs freely and cannot be triggered"),
        ("modbus", "pylon:0?trigger=line1", "add trigger=software"),
        ("modbus", "usb:0", "runs freely and cannot be triggered"),
        ("modbus", "synthetic:fabric?rate=5", "add trigger=1"),
        ("modbus", "replay:recording", "cannot be triggered"),
        ("camera-line", "synthetic:fabric?trigger=line1", "no cable leads to drawn parts"),
        ("", "synthetic:fabric?trigger=1", 'set [source] trigger, "software"'),
        ("", "aravis:0?trigger=line1", "camera-line"),
    ],
)
def test_cameras_that_would_miss_every_part_are_refused(
    workshop: Any, tmp_path: Path, trigger: str, url: str, cure: str
) -> None:
    for source in ({"url": url}, {"url": LEADING[trigger], "views": (url,)}):
        with pytest.raises(ConfigError, match="but this camera's is") as error:
            asked(workshop, tmp_path, trigger, **source)
        assert cure in error.value.cure
        assert error.value.where == url


def test_the_command_says_where_no_station_listens(workshop: Any) -> None:
    command = [
        sys.executable,
        "-m",
        "kenpin",
        "trigger",
        "--config",
        workshop.toml("usb:0"),
        "--trigger-id",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no station takes triggers here" in done.stderr
