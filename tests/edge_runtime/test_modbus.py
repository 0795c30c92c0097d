from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient

from kenpin.config import DecideSection, OutputSection, SourceSection, StationConfig
from kenpin.edge_runtime import modbus_output
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.modbus_output import CODES, Bit, Coil, Holding, ModbusOutput, PlcTriggers, Register
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.outputs import make_outputs
from kenpin.errors import ConfigError
from tests.edge_runtime.conftest import Clock


class Plc:
    """A PLC: a Modbus client that shares no code with the station's output."""

    def __init__(self, port: int) -> None:
        self.client = ModbusTcpClient("127.0.0.1", port=port, timeout=60)
        assert self.client.connect()
        self.bits()  # only then has the server counted it

    def bits(self) -> list[bool]:
        return list(self.client.read_discrete_inputs(0, count=len(Bit), device_id=1).bits[: len(Bit)])

    def registers(self) -> list[int]:
        return list(self.client.read_input_registers(0, count=len(Register), device_id=1).registers)

    def trigger(self, number: int) -> None:
        assert not self.client.write_register(Holding.TRIGGER_ID, number, device_id=1).isError()

    def take(self) -> None:
        assert not self.client.write_coil(Coil.RESULT_TAKEN, True, device_id=1).isError()


@pytest.fixture(autouse=True)
def patient(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, and the server may be as slow as the machine is."""
    monkeypatch.setattr(modbus_output, "time", clock)
    monkeypatch.setattr(modbus_output, "_ANSWER_S", 60.0)


@pytest.fixture
def part_s() -> float:
    """So long a part may be in hand."""
    return 0.0


@pytest.fixture
def output(free_port: int, part_s: float) -> Iterator[ModbusOutput]:
    made = ModbusOutput(f"127.0.0.1:{free_port}", part_s=part_s)
    yield made
    made.close()


@pytest.fixture
def plc(output: ModbusOutput, free_port: int) -> Iterator[Plc]:
    made = Plc(free_port)
    yield made
    made.client.close()


def test_without_a_plc_nothing_can_be_told(output: ModbusOutput) -> None:
    with pytest.raises(ConnectionError, match="no PLC"):
        output.beat(ready=True)
    with pytest.raises(ConnectionError, match="no PLC"):
        output.result(Result("a", 1, Verdict.OK))


def test_a_plc_that_has_left_is_missed_at_once(output: ModbusOutput, plc: Plc, wait_for: Any) -> None:
    output.result(Result("a", 1, Verdict.OK))
    plc.client.close()

    def is_missed() -> bool:
        try:
            output.result(Result("b", 2, Verdict.OK))
        except ConnectionError as error:
            return "no PLC is connected" in str(error)
        return False

    wait_for(is_missed, "the end of the connection")


def test_a_connection_that_asks_for_nothing_is_no_plc(output: ModbusOutput, plc: Plc, clock: Clock) -> None:
    output.beat(ready=True)
    clock.now_s += modbus_output._POLL_S + 0.1  # its power has failed, which its connection does not show
    with pytest.raises(ConnectionError, match="asked for anything"):
        output.beat(ready=False)
    with pytest.raises(ConnectionError, match="asked for anything"):
        output.result(Result("a", 1, Verdict.OK))
    assert not plc.bits()[Bit.READY]
    output.beat(ready=True)


def test_requests_for_another_unit_do_nothing_and_are_told_once(
    output: ModbusOutput, free_port: int, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    client = ModbusTcpClient("127.0.0.1", port=free_port, timeout=60)
    assert client.connect()
    for number in range(3):
        assert client.write_register(Holding.TRIGGER_ID, number, device_id=5).isError()
    with pytest.raises(ConnectionError, match="asked for anything"):
        output.beat(ready=True)
    assert output.triggers.wait(clock.now_s) is None
    told = [r.message for r in caplog.records if r.levelname != "DEBUG"]
    assert told == ["Somebody asks by Modbus for unit 5; the station is 1."]
    client.close()


def test_a_crowd_takes_no_room_from_the_station(output: ModbusOutput, plc: Plc, free_port: int) -> None:
    crowd = [socket.create_connection(("127.0.0.1", free_port), timeout=180) for _ in range(40)]
    assert [client.recv(1) for client in crowd[32:]] == [b""] * 8
    plc.bits()
    for client in crowd:
        client.close()


def test_connections_of_a_plc_whose_power_has_failed_are_given_up(output: ModbusOutput, plc: Plc) -> None:
    """As the kernel is told: each of them would take the place of a new one, 32 times."""
    assert output._server is not None
    (accepted,) = [c.transport.get_extra_info("socket") for c in output._server.active_connections.values()]
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


def test_ready_and_the_heartbeat_follow_the_decision_loop(
    output: ModbusOutput, plc: Plc, wait_for: Any
) -> None:
    assert plc.bits() == [False] * len(Bit)
    output.beat(ready=True)
    first = plc.bits()
    output.beat(ready=True)
    second = plc.bits()
    assert first[Bit.READY]
    assert second[Bit.READY]
    assert first[Bit.HEARTBEAT] != second[Bit.HEARTBEAT]
    output.beat(ready=False)
    assert not plc.bits()[Bit.READY]
    assert plc.bits()[Bit.HEARTBEAT] == second[Bit.HEARTBEAT]


def test_ready_goes_away_when_the_decision_loop_hangs(
    output: ModbusOutput, plc: Plc, clock: Clock, wait_for: Any
) -> None:
    output.beat(ready=True)
    clock.now_s += 0.5
    time.sleep(2 * modbus_output._SILENCE_S / 5)  # the server looks after it so often
    assert plc.bits()[Bit.READY]
    clock.now_s += 0.1
    wait_for(lambda: not plc.bits()[Bit.READY], "READY off")


def look(clock: Clock, seconds: float) -> None:
    """Time goes on, and the server looks after READY."""
    clock.now_s += seconds
    time.sleep(2 * modbus_output._SILENCE_S / 5)


def test_ready_stays_while_a_slow_engine_has_a_part(free_port: int, tmp_path: Path, clock: Clock) -> None:
    config = StationConfig(
        source=SourceSection(url="synthetic:cap"),
        decide=DecideSection(timeout_ms=2000),
        output=OutputSection(modbus=f"127.0.0.1:{free_port}"),
    )
    with closing(make_outputs(config, tmp_path, None)) as outputs, closing(Plc(free_port).client) as client:
        for _ in range(2):
            outputs.beat(ready=True)
            outputs.busy(busy=True)
            look(clock, 1.9)
            assert client.read_discrete_inputs(Bit.READY, count=1, device_id=1).bits[0]
            outputs.busy(busy=False)
            look(clock, 0.4)  # until the loop comes round
            assert client.read_discrete_inputs(Bit.READY, count=1, device_id=1).bits[0]


@pytest.mark.parametrize(("part_s", "longest_s"), [(0.1, 0.5), (1.0, 1.0), (60.0, 10.0)])
def test_ready_goes_away_when_the_engine_hangs(
    output: ModbusOutput, plc: Plc, clock: Clock, longest_s: float, wait_for: Any
) -> None:
    output.beat(ready=True)
    output.busy(busy=True)
    look(clock, longest_s)
    assert plc.bits()[Bit.READY]
    clock.now_s += 0.1
    wait_for(lambda: not plc.bits()[Bit.READY], "READY off")


@pytest.mark.parametrize("part_s", [1.0])
def test_without_a_part_a_slow_station_is_not_waited_for(
    output: ModbusOutput, plc: Plc, clock: Clock, wait_for: Any
) -> None:
    output.beat(ready=True)
    output.busy(busy=True)
    output.busy(busy=False)
    clock.now_s += 0.6
    wait_for(lambda: not plc.bits()[Bit.READY], "READY off")


def test_a_result_stands_until_it_is_taken(output: ModbusOutput, plc: Plc, wait_for: Any) -> None:
    output.result(Result("a", 70_000, Verdict.OK))
    bits, registers = plc.bits(), plc.registers()
    assert bits[Bit.RESULT_VALID]
    assert bits[Bit.PASS]
    assert registers[Register.TRIGGER_ID_HIGH] * 65536 + registers[Register.TRIGGER_ID_LOW] == 70_000
    assert registers[Register.VERDICT] == CODES[Verdict.OK]
    plc.take()
    wait_for(lambda: not plc.bits()[Bit.RESULT_VALID], "the result to be withdrawn")
    assert not plc.bits()[Bit.PASS]
    assert plc.registers()[Register.NOT_TAKEN] == 0


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.OK])
def test_only_ok_passes(output: ModbusOutput, plc: Plc, verdict: Verdict) -> None:
    output.result(Result("a", 1, Verdict.OK))
    output.result(Result("b", 2, verdict))
    assert plc.bits()[Bit.RESULT_VALID]
    assert not plc.bits()[Bit.PASS]
    registers = plc.registers()
    assert registers[Register.TRIGGER_ID_LOW] == 2
    assert registers[Register.VERDICT] == CODES[verdict]
    assert registers[Register.NOT_TAKEN] == 1


def test_one_request_has_all_of_one_moment(output: ModbusOutput, plc: Plc, wait_for: Any) -> None:
    """Discrete inputs have not: a part that is released by the PASS of the one before it."""
    output.beat(ready=True)
    output.result(Result("a", 41, Verdict.OK))
    torn = plc.bits()
    output.result(Result("b", 42, Verdict.NG))
    registers = plc.registers()
    assert (torn[Bit.PASS], registers[Register.TRIGGER_ID_LOW]) == (True, 42)
    flags = [bool(registers[Register.FLAGS] >> bit & 1) for bit in Bit]
    assert flags == plc.bits()
    assert flags[Bit.READY]
    assert flags[Bit.RESULT_VALID]
    assert not flags[Bit.PASS]
    plc.take()
    wait_for(lambda: not plc.registers()[Register.FLAGS] >> Bit.RESULT_VALID & 1, "the withdrawal")


def test_an_ok_that_could_not_be_told_in_time_is_never_told(
    output: ModbusOutput, plc: Plc, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    output._loop.call_soon_threadsafe(go_on.wait, 60)
    with monkeypatch.context() as impatient:
        impatient.setattr(modbus_output, "_ANSWER_S", 0.1)
        with pytest.raises(TimeoutError, match="does not answer"):
            output.result(Result("a", 41, Verdict.OK))
    go_on.set()
    assert plc.registers()[Register.TRIGGER_ID_LOW] == 0
    assert not plc.bits()[Bit.PASS]
    output.result(Result("a", 41, Verdict.NO_DECISION))
    assert plc.registers()[Register.VERDICT] == CODES[Verdict.NO_DECISION]


def test_an_ok_that_the_server_is_about_to_tell_is_not_booked_as_not_told(
    output: ModbusOutput, plc: Plc, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = output._publish

    async def slowly() -> None:
        time.sleep(0.3)
        await publish()

    monkeypatch.setattr(output, "_publish", slowly)
    monkeypatch.setattr(modbus_output, "_ANSWER_S", 0.05)
    output.result(Result("a", 41, Verdict.OK))
    assert plc.bits()[Bit.PASS]


def test_each_new_number_is_a_trigger(output: ModbusOutput, plc: Plc, clock: Clock) -> None:
    for number in (7, 7, 8, 8, 65535, 0):
        plc.trigger(number)
    found = [output.triggers.wait(clock.now_s + 0.2) for _ in range(4)]
    # The number that stands there at the start is no part: the PLC may have been counting before.
    assert [t.trigger_id if t else None for t in found] == [8, 65535, 0, None]


def test_a_plc_may_write_by_the_functions_for_several(
    output: ModbusOutput, plc: Plc, clock: Clock, wait_for: Any
) -> None:
    for number in (7, 8):
        assert not plc.client.write_registers(Holding.TRIGGER_ID, [number], device_id=1).isError()
    trigger = output.triggers.wait(clock.now_s)
    assert trigger is not None
    assert trigger.trigger_id == 8
    output.result(Result("a", 8, Verdict.OK))
    assert not plc.client.write_coils(Coil.RESULT_TAKEN, [False], device_id=1).isError()
    assert plc.bits()[Bit.PASS]
    assert not plc.client.write_coils(Coil.RESULT_TAKEN, [True], device_id=1).isError()
    wait_for(lambda: not plc.bits()[Bit.PASS], "the result to be withdrawn")


def test_triggers_that_nobody_fetches_do_not_hold_the_server_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modbus_output, "_TRIGGERS", 2)
    triggers = PlcTriggers()
    see = threading.Thread(target=lambda: [triggers.see(number) for number in range(9)], daemon=True)
    see.start()
    see.join(60)
    assert not see.is_alive()


def test_a_part_in_hand_is_shown(output: ModbusOutput, plc: Plc) -> None:
    output.busy(busy=True)
    assert plc.bits()[Bit.BUSY]
    output.busy(busy=False)
    assert not plc.bits()[Bit.BUSY]


def test_counters_begin_again_where_a_register_ends(output: ModbusOutput, plc: Plc) -> None:
    output._registers[Register.BEATS] = output._registers[Register.NOT_TAKEN] = 65535
    output.beat(ready=True)
    for number in (2**32 + 65536, None):
        output.result(Result("a", number, Verdict.NG))
        assert plc.registers()[:2] == [bool(number), 0]
    assert [plc.registers()[Register.BEATS], plc.registers()[Register.NOT_TAKEN]] == [0, 0]


def test_an_address_in_use_is_said(output: ModbusOutput, free_port: int) -> None:
    with pytest.raises(ConfigError, match="Modbus cannot be offered") as error:
        ModbusOutput(f"127.0.0.1:{free_port}")
    assert "free HOST:PORT" in error.value.cure
    assert "below 1024" in error.value.what  # 502 is Modbus' own, and what a PLC asks for by itself
    output.close()
    assert not output._thread.is_alive()
    for host in ("127.0.0.1", "[::1]"):
        ModbusOutput(f"{host}:{free_port}").close()
