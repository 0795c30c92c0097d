"""The pulse: tells once a second how a process is, and feeds its watchdog while all its loops come round."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from kenpin.edge_runtime.notify import Notifier
from kenpin.edge_runtime.vitals import EVERY_S, Vitals, write_vitals
from kenpin.edge_runtime.watch import Watch
from kenpin.errors import reason_and_file

_log = logging.getLogger(__name__)


class Pulse:
    """Called by the main loop of a process in every round.

    Args:
        run: The station's `StationFolder.run`.
        watch: Knows when each loop came round last.
        vitals: Makes what to tell.
    """

    def __init__(self, run: Path, watch: Watch, vitals: Callable[[], Vitals]) -> None:
        self.watch = watch
        self._run = run
        self._vitals = vitals
        self._notifier = Notifier.from_environment()
        self._due_s = 0.0
        self._is_ready = False
        self._has_failed = False

    def tick(self, *, at_once: bool = False) -> None:
        """Tell where it is time, or something changed that others wait for.

        Args:
            at_once: Do not wait until it is time.
        """
        if not self._is_ready:
            self._is_ready = True
            self._notifier.ready()
        if not self.watch.late():
            self._notifier.beat()
        if at_once or time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + EVERY_S
            self._write(self._vitals())

    def stop(self) -> None:
        """Tell the last words."""
        self._notifier.stopping()
        self._write(self._vitals())

    def _write(self, vitals: Vitals) -> None:
        try:
            write_vitals(self._run, vitals)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                _log.warning("%s cannot tell how it is: %s", vitals.role, reason_and_file(error))
            self._has_failed = True
