"""The vitals: what each process of a station tells the others once a second, in a small file."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kenpin.edge_runtime.series_name import parse_series
from kenpin.events import now_ms

EVERY_S = 1.0
_ALIVE_S = 3.0


class Vitals(BaseModel):
    """How one process is.

    Attributes:
        role: `capture-0`, `capture-1` …, `station`, `publisher`, `health`.
        pid: Its number.
        session_id: The session it belongs to.
        written_ns: Monotonic clock when this was written, nanoseconds; comparable until the next boot.
        ts_ms: The same in UTC, milliseconds since 1970.
        state: How it is.
        reason: Why it is not RUNNING, in words.
        beats: Name of a loop -> monotonic clock when it last came round, nanoseconds.
        numbers: Counters and gauges by the name of their series, with labels as in
            `parts_total{verdict="OK"}`.
        texts: What is no number: model, versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    pid: int
    session_id: str = ""
    written_ns: int = Field(default_factory=time.monotonic_ns)
    ts_ms: int = Field(default_factory=now_ms)
    state: Literal["STARTING", "RUNNING", "PAUSED", "CALIBRATING", "DEGRADED", "FAULT", "STOPPED"] = "RUNNING"
    reason: str = ""
    beats: dict[str, int] = {}
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as it told lately."""
        return self.state != "STOPPED" and self.age_s < _ALIVE_S

    @property
    def has_process(self) -> bool:
        """Whether the process that told it exists."""
        try:
            os.kill(self.pid, 0)  # sends nothing
        except OSError as error:
            return error.errno == errno.EPERM
        return True

    @property
    def age_s(self) -> float:
        """Time since this was written, in seconds."""
        return (time.monotonic_ns() - self.written_ns) / 1e9

    @property
    def cameras_up(self) -> dict[str, bool]:
        """Whether each camera that it tells of delivers, by the camera's name."""
        told = ((*parse_series(text), is_up) for text, is_up in self.numbers.items())
        return {labels.get("camera", ""): bool(is_up) for name, labels, is_up in told if name == "camera_up"}


def write_vitals(run: Path, vitals: Vitals) -> None:
    """Replace the file of this role; readers see the old or the new one.

    Args:
        run: The station's `StationFolder.run`.
        vitals: What to tell.

    Raises:
        OSError: The folder cannot be written.
    """
    path = run / f"{vitals.role}.json"
    # Not synced: it means nothing after a power cut.
    partial = path.with_suffix(f".{vitals.pid}.part")
    partial.write_text(vitals.model_dump_json())
    partial.replace(path)


def read_vitals(run: Path) -> dict[str, Vitals]:
    """What the processes told last, by role; what is missing, damaged or of before the boot is left out."""
    found = {}
    for path in sorted(run.glob("*.json")):
        try:
            vitals = Vitals.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if vitals.age_s >= 0:  # the clock begins anew with each boot, and the folder may be on a disk
            found[vitals.role] = vitals
    return found


def why_untold(run: Path) -> str:
    """Why processes cannot tell how they are, in words; empty where they can.

    Args:
        run: The station's `StationFolder.run`.
    """
    probe = run / ".probe"
    try:
        probe.write_bytes(b"x")
    except OSError as error:
        what = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"fails ({error.strerror})"
        return f"the disk of {run} {what}: processes cannot tell how they are"
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return ""
