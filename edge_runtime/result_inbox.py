"""The way of results to the publisher's process: datagrams, as a late result must not come at all."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from pathlib import Path

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.run_socket import bind_in, send_in

_SOCKET = "publisher.sock"
_MAX_BYTES = 16384
_MOST = 64  # results that are taken in one round


class ResultInbox:
    """The publisher's end.

    Args:
        run: The station's `StationFolder.run`.

    Raises:
        OSError: The socket cannot be made.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / _SOCKET
        self._socket = bind_in(run, _SOCKET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def receive(self, timeout_s: float) -> list[Result]:
        """Wait until the station sends something; the results in it.

        Args:
            timeout_s: Longest time to wait, in seconds.
        """
        select.select([self._socket], [], [], timeout_s)
        found = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST):
                content = json.loads(self._socket.recv(_MAX_BYTES))
                if content:
                    found.append(Result(content["part_id"], content["trigger_id"], Verdict(content["verdict"])))
        return found

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


def wake_publisher(run: Path) -> None:
    """Say that an event waits in the outbox; where nobody listens, it waits there."""
    with contextlib.suppress(OSError):
        send_in(run, _SOCKET, b"{}")


def send_result(run: Path, result: Result) -> None:
    """Hand a result to the publisher.

    Raises:
        OSError: The publisher does not listen or is too slow.
    """
    content = {"part_id": result.part_id, "trigger_id": result.trigger_id, "verdict": result.verdict.value}
    send_in(run, _SOCKET, json.dumps(content).encode())
