"""Building an engine while the station runs on ONNX Runtime: a process of its own, of low priority."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kenpin.build_log import end_for_it, last_step
from kenpin.config import WORKSPACE_MB
from kenpin.precision import Precision
from kenpin.station_folder import StationFolder

_NICENESS, _NICEST = 10, 19
_FIRST_TO_END = "1000"
_END_S = 5.0
_LOOK_S = 2.0
_ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_BUILD_BY_HAND = "build it with kenpin build-engine; if memory was short, with less --workspace-mb"
_log = logging.getLogger(__name__)


class BackgroundBuild:
    """One run of `kenpin build-engine`, which refuses to run beside another one. Its outcome is logged.

    Args:
        folder: The station's folder.
        precision: Which of the bundle's models.
        trusted: Files of the keys whose bundles may run.
        bundle: Folder of an installed bundle; default: the active one.
        workspace_mb: Most memory for a layer's scratch.

    Attributes:
        told: How it goes, for a person; changes a few times in a build.
    """

    def __init__(
        self,
        folder: StationFolder,
        precision: Precision,
        trusted: Sequence[Path],
        bundle: Path | None = None,
        workspace_mb: int = WORKSPACE_MB,
    ) -> None:
        command = [sys.executable, "-m", "kenpin", "build-engine", "--state", str(folder.root)]
        command += ["--bundle", str(bundle)] if bundle is not None else []
        command += ["--precision", precision, "--workspace-mb", str(workspace_mb)]
        command += [word for key in trusted for word in ("--trust", str(key))]
        self.told = "the engine is being built"
        self._folder = folder
        self._ended_by_us = False
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        # The line comes first. Threads that the process starts from here on inherit this.
        with contextlib.suppress(OSError):
            nice = min(_NICEST, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)
            # Where memory runs out, the kernel ends the build and not the line.
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text(_FIRST_TO_END)
        _log.info("Building the %s engine in the background.", precision)
        self._watcher = threading.Thread(target=self._watch, name="engine build", daemon=True)
        self._watcher.start()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._watcher.join()

    def close(self) -> None:
        """End it if it still runs; the next start of the station begins again."""
        self._ended_by_us = True
        self._process.terminate()
        self._watcher.join(_END_S)
        self._process.kill()
        self._watcher.join(_END_S)

    def _watch(self) -> None:
        said = self._follow()
        if self._process.returncode == 0:
            self.told = "the engine is built"
            _log.warning("The engine is built.")
        elif not self._ended_by_us:
            last = " ".join(said.split())[-600:]
            self.told = "the engine was not built"
            _log.warning("The engine was not built (exit code %d): %s", self._process.returncode, last)
            if self._process.returncode < 0:  # a signal; whatever else ends it is in the log already
                ended_by = signal.Signals(-self._process.returncode)
                # systemd asks all processes of a service at once to end: the build may be faster.
                state: Literal["FAILED", "INTERRUPTED"] = "INTERRUPTED" if ended_by in _ASKED else "FAILED"
                end_for_it(self._folder, state, f"it was ended by {ended_by.name}; {_BUILD_BY_HAND}")
        else:
            end_for_it(self._folder, "INTERRUPTED", "the station ended")

    def _follow(self) -> str:
        """Wait for the end and tell how it goes meanwhile; returns what the process said."""
        while True:
            try:
                return self._process.communicate(timeout=_LOOK_S)[1]
            except subprocess.TimeoutExpired:
                step = last_step(self._folder)
                if step is not None and step.phase:
                    # In tens: every change of this is a message.
                    self.told = f"the engine is being built: {step.phase}, {10 * int(10 * step.share)} %"
