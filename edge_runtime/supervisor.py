"""The supervisor: starts the processes of a station, starts again what fails, and ends them in order."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kenpin.edge_runtime.child import Child, ChildSpec
from kenpin.edge_runtime.run_socket import listen_in
from kenpin.edge_runtime.vitals import EVERY_S, Vitals, write_vitals
from kenpin.errors import ConfigError

_ROUND_S = 0.2
_PR_SET_PDEATHSIG = 1
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_SOCKET = "supervisor.sock"
_LONGEST_ADDRESS = 107  # bytes

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs children until the first of them, the leading one, ends by itself, or SIGTERM or SIGINT comes.

    Args:
        specs: What to run, in the order in which they are started and ended. The first one leads.
        run: The station's `StationFolder.run`.

    Raises:
        ConfigError: Its socket cannot be made.
    """

    def __init__(self, specs: Sequence[ChildSpec], run: Path) -> None:
        self._run = run
        self._socket, self._address = _notify_socket(run)
        self._children = [Child(spec, self._address) for spec in specs]
        self._stopping = False
        self._is_ending = False
        self._told_s = 0.0
        self._told = ""

    def run(self) -> int:
        """Run until the end.

        Returns:
            Exit code: 0 where the leading child ended by itself or a signal came; else that of a child that
            did not come up at the first start, so that what is wrong is seen at once.
        """
        wake, woken = socket.socketpair()
        with wake, woken, _signals(woken, self._stop):
            try:
                return self._supervise(wake)
            finally:
                self._end()
                self._socket.close()

    def _supervise(self, wake: socket.socket) -> int:
        while not self._stopping:
            self._listen_again()
            for child in self._children:
                child.start_if_due()
            for end in select.select([self._socket, wake], [], [], _ROUND_S)[0]:
                self._hear() if end is self._socket else end.recv(64)
            for child in self._children:
                child.kill_if_silent()
                if child.reap():
                    code = self._verdict(child)
                    if code is not None:
                        return code
            self._tell()
        return 0

    def _verdict(self, child: Child) -> int | None:
        """The exit code of all after the end of a child; `None` where it is to be started again."""
        if self._stopping:
            return None
        if child is self._children[0] and child.exit_code == 0:
            return 0
        if child.exit_code in (1, 2) and not child.was_ready and not child.restarts:
            return child.exit_code
        _log.warning("%s", child.trouble)
        return None

    def _listen_again(self) -> None:
        """Make the socket once more where its file is gone, or children that live would be killed as silent."""
        if os.path.lexists(self._address):
            return
        with contextlib.suppress(ConfigError):
            made, self._address = _notify_socket(self._run)
            self._socket.close()
            self._socket = made
            for child in self._children:
                child.notify = self._address

    def _hear(self) -> None:
        """One message of a child; what comes from elsewhere is ignored."""
        data, ancillary, _flags, _address = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                sender = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
                for child in self._children:
                    if child.pid == sender:
                        child.take(data.decode(errors="replace"))

    def _tell(self) -> None:
        trouble = "; ".join(child.trouble for child in self._children if child.trouble)
        if trouble == self._told and time.monotonic() < self._told_s:
            return
        self._told, self._told_s = trouble, time.monotonic() + EVERY_S
        numbers: dict[str, float] = {}
        for child in self._children:
            numbers[f'restarts_total{{role="{child.spec.role}"}}'] = child.restarts
            numbers[f'process_up{{role="{child.spec.role}"}}'] = child.pid > 0
        vitals = Vitals(
            role="supervisor",
            pid=os.getpid(),
            state="STOPPED" if self._is_ending else "DEGRADED" if trouble else "RUNNING",
            reason=trouble,
            numbers=numbers,
        )
        with contextlib.suppress(OSError):
            write_vitals(self._run, vitals)

    def _stop(self) -> None:
        if self._stopping:  # whoever asks twice does not want to wait
            for child in self._children:
                child.kill()
        self._stopping = True

    def _end(self) -> None:
        """End all of them, one after the other: what the first ones leave, the later ones carry away."""
        self._is_ending, self._told_s = True, 0.0
        self._tell()
        for child in self._children:
            child.end()
            child.wait_for_end(time.monotonic() + child.spec.stop_s)


def end_with_parent() -> None:
    """Let the kernel end this process when the supervisor that started it dies, however it dies."""
    parent = os.environ.pop("KENPIN_PARENT", "")
    if not parent:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)  # it died before it could be followed


def _notify_socket(run: Path) -> tuple[socket.socket, str]:
    """A socket that is this user's alone, and its address.

    In one without a file every user of the machine could leave no room for what the children say.

    Raises:
        ConfigError: It cannot be made.
    """
    made = listen_in(run, _SOCKET, what="the station's processes")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    address = str((run / _SOCKET).absolute())
    if len(os.fsencode(address)) > _LONGEST_ADDRESS:
        address = f"/proc/{os.getpid()}/fd/{os.open(run, os.O_RDONLY | os.O_DIRECTORY)}/{_SOCKET}"
    return made, address


@contextlib.contextmanager
def _signals(woken: socket.socket, stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT stop; they and SIGCHLD wake the loop at once."""
    woken.setblocking(False)
    handlers = {
        signal.SIGTERM: lambda *_: stop(),
        signal.SIGINT: lambda *_: stop(),
        signal.SIGCHLD: lambda *_: None,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wake_before = signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wake_before)
        for number, handler in before.items():
            signal.signal(number, handler)
