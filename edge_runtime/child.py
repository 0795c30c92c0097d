"""One child process of the supervisor: started, watched, started again, ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# A child that failed so often in so many seconds is left alone until the oldest failure is that long ago.
BUDGET, WINDOW_S = 5, 300.0
_BACK_OFF_S = (0.1, 5.0)
GPU_LOST = 3  # exit code: only a new process can use the GPU again


@dataclass(frozen=True)
class ChildSpec:
    """What to run.

    Attributes:
        role: Its name.
        command: Program and arguments.
        watchdog_s: Silence after which it is killed, in seconds, once it has said that it is ready.
        start_s: The same before that.
        stop_s: Time to end after SIGTERM, in seconds; then it is killed.
    """

    role: str
    command: Sequence[str]
    watchdog_s: float = 10.0
    start_s: float = 120.0
    stop_s: float = 10.0


class Child:
    """A process and its history.

    Args:
        spec: What to run.
        notify: Address for its NOTIFY_SOCKET.

    Attributes:
        notify: The same; another one counts from its next start on.
        restarts: Times that it was started again.
        trouble: Why it does not run, in words; empty while it does.
    """

    def __init__(self, spec: ChildSpec, notify: str) -> None:
        self.spec = spec
        self.restarts = 0
        self.trouble = ""
        self.was_ready = False
        self.exit_code: int | None = None
        self.notify = notify
        self._process: subprocess.Popen[bytes] | None = None
        self._failures: deque[float] = deque(maxlen=BUDGET)
        self._in_row = 0
        self._start_at_s = 0.0
        self._heard_s = 0.0
        self._is_ready = False
        self._killed_for = ""

    @property
    def pid(self) -> int:
        """Number of its process; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def start_if_due(self) -> bool:
        """Start it where it does not run and its time has come; whether it was started."""
        now_s = time.monotonic()
        if self._process is not None or now_s < self._start_at_s:
            return False
        environment = {**os.environ, "NOTIFY_SOCKET": self.notify}
        environment["WATCHDOG_USEC"] = str(round(self.spec.watchdog_s * 1e6))
        environment["KENPIN_PARENT"] = str(os.getpid())
        try:
            # In a session of its own: Ctrl-C and whatever else signals a whole group is for the supervisor, who
            # ends one after the other.
            self._process = subprocess.Popen(
                self.spec.command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )
        except OSError as error:  # such as no memory
            self._plan(f"it could not be started: {error.strerror}")
            return False
        self.restarts += self.exit_code is not None
        self._heard_s = now_s
        self._is_ready = False
        self._killed_for = ""
        return True

    def take(self, message: str) -> None:
        """Take what it told with sd_notify."""
        self._heard_s = time.monotonic()
        if "READY=1" in message.split("\n"):
            self._is_ready = self.was_ready = True
            self.trouble = ""

    def kill_if_silent(self) -> None:
        """Kill it where it has been silent for too long."""
        limit_s = self.spec.watchdog_s if self._is_ready else self.spec.start_s
        if self._process is None or time.monotonic() - self._heard_s <= limit_s or self._killed_for:
            return
        self._killed_for = f"it was silent for {limit_s:g} s and was killed"
        self._process.kill()

    def reap(self) -> bool:
        """Notice its end; whether it ended."""
        if self._process is None or self._process.poll() is None:
            return False
        self.exit_code = self._process.returncode
        self._process = None
        self._plan(self._killed_for or _words(self.exit_code))
        return True

    def end(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once. For a signal's handler: whoever waits for its end goes on doing so."""
        if self._process is not None:
            self._process.kill()

    def wait_for_end(self, by_s: float) -> None:
        """Wait until it has ended, or kill it when its time has run out.

        Args:
            by_s: Until when on `time.monotonic()`, seconds.
        """
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, by_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.exit_code = self._process.returncode
        self._process = None

    def _plan(self, why: str) -> None:
        """When to start it again."""
        now_s = time.monotonic()
        self.trouble = f"{self.spec.role}: {why}"
        long_life = now_s - self._failures[-1] > WINDOW_S if self._failures else True
        self._in_row = 0 if long_life else self._in_row + 1
        self._failures.append(now_s)
        if len(self._failures) == BUDGET and now_s - self._failures[0] < WINDOW_S:
            self._start_at_s = self._failures[0] + WINDOW_S
            self.trouble += f"; it failed {BUDGET} times in {WINDOW_S:g} s and is tried again later"
            return
        short, longest = _BACK_OFF_S
        pause_s = min(longest, short * 2**self._in_row) * random.uniform(0.8, 1.2)
        self._start_at_s = now_s + (0.0 if self.exit_code == GPU_LOST else pause_s)


def _words(exit_code: int) -> str:
    if exit_code < 0:
        known = -exit_code in set(signal.Signals)
        return f"it was ended by {signal.Signals(-exit_code).name if known else f'signal {-exit_code}'}"
    return f"it ended with exit code {exit_code}"
