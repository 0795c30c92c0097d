"""Streams, which do work in a fixed order, and events, which are marks in them."""

from __future__ import annotations

from kenpin.edge_runtime.cuda_session import Session

# A stream that does not wait for the default one, which other libraries may use.
_NON_BLOCKING = 1


class Stream:
    """Work in a fixed order.

    Attributes:
        handle: The CUstream as a number.
        raw: pycuda's stream.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        with session.told:
            self.raw = session.cuda.Stream(_NON_BLOCKING)
        self.handle: int = self.raw.handle

    def synchronize(self) -> None:
        """Wait until all of the work is done.

        Raises:
            DeviceLost: The work failed such that nothing will run again in this process.
            EngineError: The work failed.
        """
        with self._session.told:
            self.raw.synchronize()

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        self._session.driver.check_thread()
        self.raw = None
        self._session.disown(self)


class Event:
    """A mark in a stream."""

    def __init__(self, session: Session) -> None:
        self._session = session
        with session.told:
            self._raw = session.cuda.Event()

    def record(self, stream: Stream) -> None:
        """Put the mark at the end of what is enqueued."""
        with self._session.told:
            self._raw.record(stream.raw)

    def elapsed_ms(self, since: Event) -> float:
        """Wait for the mark and return how much later than the other one the device passed it."""
        with self._session.told:
            self._raw.synchronize()
            elapsed: float = since._raw.time_till(self._raw)
        return elapsed

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        self._session.driver.check_thread()
        self._raw = None
        self._session.disown(self)
