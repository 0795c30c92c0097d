"""Connections that do not get on are dropped, so that slow and many clients cannot keep others out."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from kenpin.config import is_loopback

CONNECTIONS = 64  # from other machines
PER_ADDRESS = 16  # browsers open six
PATIENCE_S = 10.0


class Patience(H11Protocol):
    """HTTP/1.1 that drops a connection on which no new request arrived whole between two looks."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or drop it where there are too many."""
        super().connection_made(transport)
        own = self.client[0] if self.client else ""
        there = [c.client[0] for c in self.connections if isinstance(c, Patience) and c.client]
        # Whoever stands at the station is counted apart: nobody keeps the operator out from afar.
        afar = 0 if is_loopback(own) else sum(not is_loopback(address) for address in there)
        if afar > CONNECTIONS or there.count(own) > PER_ADDRESS:
            transport.abort()
            return
        self.loop.call_later(PATIENCE_S, self._look, None)

    def _look(self, before: object) -> None:
        """`cycle` is the request that arrived last, or none; it is a new object for each."""
        if self.transport.is_closing():
            return
        if self.cycle is before:
            self.transport.abort()
            return
        self.loop.call_later(PATIENCE_S, self._look, self.cycle)
