"""How a build of an engine goes: JSON lines in the station's folder, for whoever wants to tell it on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kenpin.canonical_json import canonical_json
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder

_LEAST_S = 1.0


class BuildStep(BaseModel):
    """One line.

    Attributes:
        ts_ms: UTC, milliseconds since 1970.
        state: BUILDING until it has ended one way or another; INTERRUPTED where somebody wanted that.
        key: Which engine: the name of its folder.
        attempt: How many builds of this engine in a row have begun, with this one, of which none ended.
        phase: What TensorRT does, in its own words.
        share: How far this phase is, 0 to 1.
        reason: Why it failed, with the cure; empty otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ts_ms: int
    state: Literal["BUILDING", "DONE", "FAILED", "INTERRUPTED"]
    key: str
    attempt: int = 1
    phase: str = ""
    share: float = 0.0
    reason: str = ""


class BuildLog:
    """Writes the lines of one build; the lines of the build before are gone.

    A line that cannot be written is dropped: the build matters more than the news of it.

    Args:
        folder: The station's folder.
        key: Which engine.
    """

    def __init__(self, folder: StationFolder, key: str) -> None:
        self._path = log_path(folder)
        self._key = key
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._attempt = 1
        last = last_step(folder)
        if last is not None and (last.key, last.state) == (key, "BUILDING"):
            self._attempt += last.attempt
        self._write(self._step(), "w")

    def step(self, phase: str, share: float) -> None:
        """Note how far it is; at most one line per second is kept. Any thread may call it."""
        with self._lock:
            if time.monotonic() < self._next_s:
                return
            self._next_s = time.monotonic() + _LEAST_S
            self._write(self._step(phase=phase, share=share), "a")

    def end(self, reason: str = "", *, wanted: bool = False) -> None:
        """Note the end: done, or failed for this reason, or interrupted by somebody who wanted that."""
        state = "DONE" if not reason else "INTERRUPTED" if wanted else "FAILED"
        self._write(self._step(state=state, reason=reason), "a")

    def _step(self, **told: Any) -> BuildStep:
        facts = {"ts_ms": now_ms(), "state": "BUILDING", "key": self._key, "attempt": self._attempt}
        return BuildStep(**{**facts, **told})

    def _write(self, step: BuildStep, mode: Literal["a", "w"]) -> None:
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _write(self._path, step, mode)


def end_for_it(folder: StationFolder, state: Literal["FAILED", "INTERRUPTED"], reason: str) -> None:
    """Note the end of a build that could not do so itself; nothing where it did.

    Args:
        folder: The station's folder.
        state: Whether it is to be tried again by itself: not after it failed.
        reason: Why it ended.
    """
    last = last_step(folder)
    if last is not None and last.state == "BUILDING":
        ended = last.model_copy(update={"ts_ms": now_ms(), "state": state, "reason": reason})
        with contextlib.suppress(OSError):
            _write(log_path(folder), ended, "a")


def _write(path: Path, step: BuildStep, mode: Literal["a", "w"]) -> None:
    with path.open(mode, encoding="utf-8") as out:
        out.write(canonical_json(step.model_dump(mode="json")).decode() + "\n")


def log_path(folder: StationFolder) -> Path:
    """Where the lines are."""
    return folder.engines / "build.jsonl"


def last_step(folder: StationFolder) -> BuildStep | None:
    """The last line of the last build; `None` where there is none that can be read."""
    try:
        with log_path(folder).open("rb") as lines:
            last = deque(lines, maxlen=1)
        return BuildStep.model_validate_json(last[0]) if last else None
    except (OSError, ValidationError):
        return None
