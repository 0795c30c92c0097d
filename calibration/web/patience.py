"""Connections are few, and those that do not get on are dropped: slow and many clients keep nobody else out."""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.h11_impl import H11Protocol

from kenpin.config import is_loopback

CONNECTIONS = 64  # from other machines
PER_ADDRESS = 16  # browsers open six
PATIENCE_S = 10.0


class Door(socket.socket):
    """A listening socket that closes connections which are too many.

    Here and not in the protocol: that hears of a connection only when TLS stands, and who never begins with it
    would take all file descriptors of the process.
    """

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(fileno=listening.detach())
        self._taken: WeakKeyDictionary[socket.socket, str] = WeakKeyDictionary()

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection.

        Raises:
            ConnectionAbortedError: There are too many. The loop goes on, as if the client had left.
        """
        client, address = super().accept()
        own = str(address[0])
        there = [other for taken, other in self._taken.items() if taken.fileno() >= 0]
        # Whoever stands at the station is counted apart: nobody keeps the operator out from afar.
        afar = 0 if is_loopback(own) else sum(not is_loopback(other) for other in there)
        if afar >= CONNECTIONS or there.count(own) >= PER_ADDRESS:
            client.close()
            raise ConnectionAbortedError
        self._taken[client] = own
        return client, address


class Patience(H11Protocol):
    """HTTP/1.1 that drops a connection on which no new request arrived whole between two looks.

    While the page works on an answer the client waits, not the page: that time is no reason to drop it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(transport)
        self.loop.call_later(PATIENCE_S, self._look, None)

    def _look(self, before: object) -> None:
        """`cycle` is the request that arrived last, or none; it is a new object for each."""
        if self.transport.is_closing():
            return
        if self.cycle is before and not self._is_at_work():
            self.transport.abort()
            return
        self.loop.call_later(PATIENCE_S, self._look, self.cycle)

    def _is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_started
