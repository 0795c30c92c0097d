"""Telling a service manager how this process is, as sd_notify(3) does: systemd or our supervisor."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

_DEFAULT_S = 10.0
_ASK_S = 10.0
_MORE_S = 120


class Notifier:
    """Sends datagrams to the socket of the service manager; does nothing where there is none.

    Args:
        address: Path of the socket, or its name after `@`; empty = there is none.
        watchdog_s: Silence after which the manager kills this process, in seconds.
    """

    def __init__(self, address: str, *, watchdog_s: float = _DEFAULT_S) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_s = watchdog_s / 4
        self._due_s = 0.0

    @classmethod
    def from_environment(cls) -> Notifier:
        """As NOTIFY_SOCKET and WATCHDOG_USEC say."""
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        watchdog_s = int(watchdog_us) / 1e6 if watchdog_us.isdecimal() else _DEFAULT_S
        return cls(os.environ.get("NOTIFY_SOCKET", ""), watchdog_s=watchdog_s)

    def ready(self) -> None:
        """The process has started up."""
        self._send("READY=1")

    def beat(self) -> None:
        """The process lives; sent four times within the manager's patience."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self._every_s
            self._send("WATCHDOG=1")

    @contextlib.contextmanager
    def asking_for_time(self) -> Iterator[None]:
        """Let the manager wait while a step of the start takes longer than a start may."""
        done = threading.Event()

        def ask() -> None:
            while not done.wait(_ASK_S):
                self._send(f"EXTEND_TIMEOUT_USEC={_MORE_S * 1_000_000}")

        asker = threading.Thread(target=ask, name="patience", daemon=True)
        asker.start()
        try:
            yield
        finally:
            done.set()
            asker.join()

    def stopping(self) -> None:
        """The process ends on purpose."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A manager that does not listen is no reason to stop the line.
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as out:
            out.sendto(text.encode(), self._address)
