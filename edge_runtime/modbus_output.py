"""The output to a PLC over Modbus TCP: the station is the server, the PLC reads and writes (docs/plc.md).

A server of its own thread holds the registers. What belongs together is set in one step of its loop, so that a
PLC that reads it by one request never finds a verdict beside the number of another part. Discrete inputs and
registers take two requests, between which a result may come: so FLAGS has the bits among the registers.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import wait
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from kenpin.config import host_port
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.once import Once
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.source import Trigger
from kenpin.edge_runtime.watch import DECIDE_S
from kenpin.errors import ConfigError, reason_of

if TYPE_CHECKING:
    from pymodbus.server import ModbusTcpServer

_START_S = 60.0  # on a machine that starts everything at once, imports are slow
_ANSWER_S = 0.1  # a server thread that is slower counts as gone
_SILENCE_S = 0.5  # a decision loop that has not come round for so long is not ready, without a part in hand
_POLL_S = 5.0  # a PLC that asks for nothing for so long is gone, whatever connections stand
_CLIENTS = 32
# A PLC whose power fails says no goodbye, and its connections would take all the room: one on which nothing
# comes is probed after 30 s, and given up after three times 10 s. Linux hands this on to what a socket accepts.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_TRIGGERS = 1024
_DEVICE = 1
# Function codes of Modbus.
_DISCRETE_INPUTS, _INPUT_REGISTERS = 2, 4
_WRITE_COILS, _WRITE_REGISTERS = (5, 15), (6, 16)


class Bit(IntEnum):
    """Discrete inputs: what the PLC reads."""

    READY = 0
    BUSY = 1
    RESULT_VALID = 2
    PASS = 3
    HEARTBEAT = 4


class Register(IntEnum):
    """Input registers: what the PLC reads."""

    TRIGGER_ID_HIGH = 0
    TRIGGER_ID_LOW = 1
    VERDICT = 2
    BEATS = 3
    NOT_TAKEN = 4
    FLAGS = 5  # the discrete inputs, the first one as the lowest bit


class Coil(IntEnum):
    """What the PLC writes bit by bit."""

    RESULT_TAKEN = 0


class Holding(IntEnum):
    """What the PLC writes in words."""

    TRIGGER_ID = 0


CODES = {Verdict.OK: 1, Verdict.REVIEW: 2, Verdict.NG: 3, Verdict.MISSED: 4, Verdict.NO_DECISION: 5}


class PlcTriggers:
    """Triggers of the PLC: each new number in its register is one."""

    def __init__(self) -> None:
        self.refused = 0
        self.trouble = ""
        self._queue: queue.Queue[Trigger] = queue.Queue(_TRIGGERS)
        self._last: int | None = None

    def see(self, number: int) -> None:
        """Look at the register. What does not fit into the queue shows as a gap in the numbers."""
        if self._last is not None and number != self._last and not self._queue.full():
            self._queue.put(Trigger(number))
        self._last = number

    def wait(self, deadline_s: float) -> Trigger | None:
        """Wait for the next trigger."""
        try:
            return self._queue.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return None

    def close(self) -> None:
        """The output closes the server."""


class ModbusOutput:
    """The server.

    Args:
        listen: `HOST:PORT`, as `check_outputs` has looked at it.
        part_s: So long a part may be in hand; one that takes longer is not released anyway.

    Attributes:
        triggers: The PLC's triggers.

    Raises:
        ConfigError: The address is wrong or in use, or pymodbus is not installed.
    """

    def __init__(self, listen: str, *, part_s: float = 0.0) -> None:
        self.triggers = PlcTriggers()
        self._listen = listen
        self._asked_s = -_POLL_S
        self._part_s = min(part_s, DECIDE_S)
        self._alive_s = 0.0
        self._failure = ""
        self._once = Once()
        self._started = threading.Event()
        self._bits = [False] * len(Bit)
        self._registers = [0] * len(Register)
        self._loop = asyncio.new_event_loop()
        self._server: ModbusTcpServer | None = None
        self._thread = threading.Thread(target=self._run, name="modbus", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_S) or self._failure:
            raise ConfigError(
                f"Modbus cannot be offered: {self._failure or 'the server does not start'}",
                where=listen,
                cure="give a free HOST:PORT of this machine as modbus in [output], such as 0.0.0.0:1502",
            )

    def beat(self, *, ready: bool) -> None:
        """The decision loop is alive.

        Raises:
            ConnectionError: No PLC is connected, or it asks for nothing.
        """
        self._alive_s = time.monotonic()
        self._do(self._take_beat(ready=ready))
        self._need_plc()

    def busy(self, *, busy: bool) -> None:
        """A part is in hand, or not any more."""
        self._alive_s = time.monotonic()
        self._do(self._take_busy(busy=busy))

    def result(self, result: Result) -> None:
        """Show a result until the PLC has taken it, or the next one comes.

        Raises:
            ConnectionError: No PLC is connected, or it asks for nothing.
            TimeoutError: The server does not answer.
        """
        self._need_plc()
        self._do(self._show(result))

    def _need_plc(self) -> None:
        assert self._server is not None
        if not self._server.active_connections:
            raise ConnectionError("no PLC is connected by Modbus")
        if time.monotonic() - self._asked_s > _POLL_S:
            raise ConnectionError(f"no PLC has asked for anything by Modbus for {_POLL_S:g} s")

    def close(self) -> None:
        """Not ready any more; the connections end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._start())
        except ImportError:
            self._failure = "it needs the Python package pymodbus: pip install 'kenpin[modbus]'"
        except (OSError, RuntimeError, ValueError) as error:
            self._failure = reason_of(error)
        self._started.set()
        if not self._failure:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _start(self) -> None:
        from pymodbus.server import ModbusTcpServer  # noqa: PLC0415 - an extra
        from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415

        # Twenty lines for each request that it does not know, which a PLC may send 200 times a second.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

        def bits(count: int) -> list[SimData]:
            return [SimData(0, values=[False] * count, datatype=DataType.BITS)]

        def words(count: int) -> list[SimData]:
            return [SimData(0, values=[0] * count, datatype=DataType.REGISTERS)]

        blocks = (bits(len(Coil)), bits(len(Bit)), words(len(Holding)), words(len(Register)))
        self._server = ModbusTcpServer(
            SimDevice(_DEVICE, simdata=blocks),
            address=host_port(self._listen),
            trace_pdu=self._trace,
            trace_connect=self._limit,
        )
        if not await self._server.listen():
            # pymodbus does not say which of them it was.
            raise OSError("the address is in use or not of this machine, or a port below 1024, root's alone")
        transport: Any = self._server.transport
        for listening in transport.sockets:
            for option in _KEEPALIVE:
                listening.setsockopt(*option)
        self._watcher = self._loop.create_task(self._watch())

    async def _end(self) -> None:
        assert self._server is not None
        self._watcher.cancel()
        await self._server.shutdown()  # type: ignore[no-untyped-call]

    async def _watch(self) -> None:
        """Take READY away where the decision loop does not come round."""
        while True:
            longest_s = max(_SILENCE_S, self._part_s) if self._bits[Bit.BUSY] else _SILENCE_S
            if self._bits[Bit.READY] and time.monotonic() - self._alive_s > longest_s:
                self._bits[Bit.READY] = False
                await self._publish()
            await asyncio.sleep(_SILENCE_S / 5)

    def _do(self, step: Coroutine[Any, Any, None]) -> None:
        """Do a step in the server's loop, and wait for it.

        Raises:
            TimeoutError: It was not done, and will not be: an OK that is told later was booked as not told.
        """
        claim = threading.Lock()  # who has it first: the loop to begin, or this thread to give it up
        doing = asyncio.run_coroutine_threadsafe(_unless_given_up(step, claim), self._loop)
        done, _ = wait((doing,), _ANSWER_S)
        if not done and claim.acquire(blocking=False):
            raise TimeoutError("the Modbus server does not answer")
        doing.result()  # what the loop has begun is told, however slow it is

    async def _publish(self) -> None:
        """Show the PLC what stands here; nothing in it waits, so that no request comes between."""
        assert self._server is not None
        self._registers[Register.FLAGS] = sum(on << bit for bit, on in enumerate(self._bits))
        await self._server.async_setValues(_DEVICE, _INPUT_REGISTERS, 0, self._registers)
        await self._server.async_setValues(_DEVICE, _DISCRETE_INPUTS, 0, self._bits)

    async def _take_beat(self, *, ready: bool) -> None:
        self._registers[Register.BEATS] = (self._registers[Register.BEATS] + 1) % 65536
        self._bits[Bit.READY] = ready
        self._bits[Bit.HEARTBEAT] ^= ready
        await self._publish()

    async def _take_busy(self, *, busy: bool) -> None:
        self._bits[Bit.BUSY] = busy
        await self._publish()

    async def _show(self, result: Result) -> None:
        registers = self._registers
        if self._bits[Bit.RESULT_VALID]:
            registers[Register.NOT_TAKEN] = (registers[Register.NOT_TAKEN] + 1) % 65536
        number = (result.trigger_id or 0) % 2**32
        registers[Register.TRIGGER_ID_HIGH], registers[Register.TRIGGER_ID_LOW] = divmod(number, 65536)
        registers[Register.VERDICT] = CODES[result.verdict]
        self._bits[Bit.PASS] = result.verdict is Verdict.OK
        self._bits[Bit.RESULT_VALID] = True
        await self._publish()

    async def _take_back(self) -> None:
        self._bits[Bit.PASS] = self._bits[Bit.RESULT_VALID] = False
        await self._publish()

    def _trace(self, sending: bool, pdu: Any) -> Any:
        """Each request of the PLC: what does it write?"""
        if sending:
            return pdu
        if pdu.dev_id != _DEVICE:
            self._once.say("unit", f"Somebody asks by Modbus for unit {pdu.dev_id}; the station is {_DEVICE}.")
            return pdu
        self._asked_s = time.monotonic()
        if pdu.address == 0:
            if pdu.function_code in _WRITE_REGISTERS and pdu.registers:
                self.triggers.see(pdu.registers[Holding.TRIGGER_ID])
            if pdu.function_code in _WRITE_COILS and pdu.bits and pdu.bits[Coil.RESULT_TAKEN]:
                self._loop.create_task(self._take_back())
        return pdu

    def _limit(self, _connected: bool) -> None:
        """Drop the newest connections, where they would take the file descriptors of the station."""
        assert self._server is not None
        stand = [c.transport for c in self._server.active_connections.values() if c.transport is not None]
        for transport in stand[_CLIENTS:]:
            transport.close()


async def _unless_given_up(step: Coroutine[Any, Any, None], claim: threading.Lock) -> None:
    """Cancelling a future does not do: its coroutine runs before it hears of that."""
    if claim.acquire(blocking=False):
        await step
    else:
        step.close()
