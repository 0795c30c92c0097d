"""An output over MQTT, through the publisher's process."""

from __future__ import annotations

from pathlib import Path

from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.result_inbox import require_publisher, send_result


class MqttOutput:
    """Each result once, with QoS 0 and not retained: a release that comes late would release another part.

    Args:
        run: The station's `StationFolder.run`.
    """

    def __init__(self, run: Path) -> None:
        self._run = run

    def beat(self, *, ready: bool) -> None:
        """The status tells it, where the publisher lives.

        Raises:
            ConnectionError: It does not.
        """
        require_publisher(self._run)

    def busy(self, *, busy: bool) -> None:
        """Not told."""

    def result(self, result: Result) -> None:
        """Hand the result to the publisher.

        Raises:
            ConnectionError: It does not take it.
        """
        send_result(self._run, result)

    def close(self) -> None:
        """Nothing is held open."""
