"""The way of results to the publisher's process: datagrams, as a late result must not come at all.

One that lay here while the publisher stood still, as on a machine that swaps, would release another part.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.run_socket import bind_in, connect_in, send_in
from kenpin.errors import reason_of

LATE_S = 1.0  # a result that is told later is told no more
_SOCKET = "publisher.sock"
_MAX_BYTES = 16384
_WAKE = b"{}"
_MOST = 64  # results that are taken in one round

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Told:
    result: Result
    sent_ns: int  # on the monotonic clock


class ResultInbox:
    """The publisher's end.

    Args:
        run: The station's `StationFolder.run`.

    Attributes:
        malformed: Datagrams that were no results.
        late: Results that were too old to be told.

    Raises:
        OSError: The socket cannot be made.
    """

    def __init__(self, run: Path) -> None:
        self.malformed = self.late = 0
        self._path = run / _SOCKET
        self._socket = bind_in(run, _SOCKET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def receive(self, timeout_s: float) -> list[Result]:
        """Wait until the station sends something; the results in it. What is none is counted and ignored.

        Args:
            timeout_s: Longest time to wait, in seconds.
        """
        select.select([self._socket], [], [], timeout_s)
        found = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST):
                data = self._socket.recv(_MAX_BYTES)
                if data == _WAKE:
                    continue
                told = _read(data)
                if told is None:
                    self._ignore(data)
                elif time.monotonic_ns() - told.sent_ns > LATE_S * 1e9:
                    self.late += 1
                else:
                    found.append(told.result)
        return found

    def _ignore(self, data: bytes) -> None:
        self.malformed += 1
        if self.malformed == 1:
            _log.warning(
                "A program sent to %s what is no result: %r. It and others like it are ignored.",
                self._path,
                data[:80],
            )

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


def _read(data: bytes) -> _Told | None:
    """What `send_result` sent; `None` if it is nothing of the kind."""
    try:
        content = json.loads(data)
        part_id, trigger_id, sent_ns = content["part_id"], content["trigger_id"], content["mono_ns"]
        verdict = Verdict(content["verdict"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_one = isinstance(part_id, str) and (trigger_id is None or type(trigger_id) is int)
    is_one = is_one and type(sent_ns) is int
    return _Told(Result(part_id, trigger_id, verdict), sent_ns) if is_one else None


def wake_publisher(run: Path) -> None:
    """Say that an event waits in the outbox; where nobody listens, it waits there."""
    with contextlib.suppress(OSError):
        send_in(run, _SOCKET, _WAKE)


def require_publisher(run: Path) -> None:
    """Make sure that results are taken, also while there are none to be told; nothing is sent.

    Raises:
        ConnectionError: The publisher does not listen.
    """
    with _told_in_words():
        connect_in(run, _SOCKET, socket.SOCK_DGRAM).close()


def send_result(run: Path, result: Result) -> None:
    """Hand a result to the publisher.

    Raises:
        ConnectionError: The publisher does not listen or is too slow.
    """
    content = {"part_id": result.part_id, "trigger_id": result.trigger_id, "verdict": result.verdict.value}
    content["mono_ns"] = time.monotonic_ns()
    with _told_in_words():
        send_in(run, _SOCKET, json.dumps(content).encode())


@contextlib.contextmanager
def _told_in_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConnectionError(f"the publisher's process takes no result ({reason_of(error)})") from None
