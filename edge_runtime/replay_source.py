"""A recorded stream, played back with its own times, numbers, gaps and repeats."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import (
    NO_SETTINGS,
    Fault,
    FrameSource,
    Lull,
    SourceUrl,
    Untriggered,
    storable,
)
from kenpin.errors import DataError, SourceError, reason_of
from kenpin.frame import Frame, read_picture
from kenpin.synced_file import sync_folder

INDEX = "frames.jsonl"


class Recorded(BaseModel):
    """One frame of a recording.

    Attributes:
        file: Its picture, beside the index; empty where none came.
        part_id: Identity of the part.
        frame_id: Number of the picture.
        trigger_id: Number of its trigger.
        after_ns: Time since the first frame, nanoseconds.
        reason: Why no usable picture came.
        verdict: What became of the part then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    part_id: str
    frame_id: int = 0
    trigger_id: int | None = None
    after_ns: int = Field(ge=0)
    reason: str = ""
    verdict: Literal[Verdict.MISSED, Verdict.NO_DECISION] = Verdict.MISSED


class ReplaySource(Untriggered):
    """Plays a folder that `record` wrote.

    Args:
        root: The folder.
        speed: Twice as fast with 2; 0 = as fast as they are taken.
    """

    drawn = False
    live = True
    down_reason = ""
    settings = NO_SETTINGS

    def __init__(self, root: Path, *, speed: float) -> None:
        self.camera = storable(root.resolve().name)
        self.waits = speed == 0
        self._root = root
        self._speed = speed
        self._frames: list[Recorded] = []
        self._index = 0
        self._start_s = 0.0

    @classmethod
    def from_url(cls, url: SourceUrl) -> ReplaySource:
        """Read `replay:DIR?speed=1`.

        Raises:
            ConfigError: An option is out of range.
        """
        return cls(Path(url.target), speed=url.number("speed", 1, low=0, high=1000))

    def open(self) -> None:
        """Read the index.

        Raises:
            SourceError: The folder holds no recording, or a line of its index is wrong.
        """
        path = self._root / INDEX
        try:
            # Editors of Windows begin a file with a mark.
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"the recording cannot be read: {reason_of(error)}",
                where=path,
                cure="make one with: kenpin record",
            ) from None
        if not lines:
            raise SourceError("the recording holds no frame", where=path, cure="record again, for longer")
        self._frames.clear()  # of an attempt before: an index is read again and again until it is mended
        for number, line in enumerate(lines, start=1):
            try:
                self._frames.append(Recorded.model_validate_json(line))
            except ValidationError as error:
                raise SourceError(
                    f"the recording is damaged: {error.errors()[0]['msg']}",
                    where=f"{path}, line {number}",
                    cure="remove the line, or record again",
                ) from None

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """The next frame, when its time has come."""
        if self._index >= len(self._frames):
            return Lull.END
        recorded = self._frames[self._index]
        if not self._index and not self._start_s:
            self._start_s = time.monotonic()
        due_s = self._start_s + recorded.after_ns / 1e9 / self._speed if self._speed else 0.0
        if due_s > deadline_s:
            time.sleep(max(0.0, deadline_s - time.monotonic()))
            return Lull.IDLE
        time.sleep(max(0.0, due_s - time.monotonic()))
        self._index += 1
        return self._play(recorded)

    def close(self) -> None:
        """Nothing is held open."""

    def _play(self, recorded: Recorded) -> Frame | Fault:
        trigger_id = recorded.trigger_id
        if not recorded.file:
            return Fault(
                recorded.part_id, self.camera, recorded.verdict, recorded.reason, trigger_id=trigger_id
            )
        try:
            image = read_picture(self._root / recorded.file)
        except DataError as error:
            return Fault(recorded.part_id, self.camera, Verdict.NO_DECISION, error.what, trigger_id=trigger_id)
        return Frame(image, recorded.part_id, self.camera, frame_id=recorded.frame_id, trigger_id=trigger_id)


def record(source: FrameSource, root: Path, *, frames: int, taken: Callable[[], None]) -> int:
    """Write what a source delivers to a folder that `replay:` plays back.

    Args:
        source: An open source.
        root: The folder; it must be empty or missing.
        frames: How many frames and faults to take.
        taken: Called after each.

    Returns:
        How many came before the source ended.

    Raises:
        DataError: The folder is not empty or cannot be written.
        SourceError: The source failed.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise DataError("the folder is not empty", where=root, cure="give a new one")
        with (root / INDEX).open("w", encoding="utf-8") as index:
            count = _take(source, root, frames, lambda line: _write(index, line, taken))
            index.flush()
            os.fsync(index.fileno())
        sync_folder(root)
    except OSError as error:
        raise DataError(
            f"the recording cannot be written: {error.strerror}",
            where=root,
            cure="make room there, or let this user write",
        ) from None
    return count


def _take(source: FrameSource, root: Path, frames: int, write: Callable[[dict[str, Any]], None]) -> int:
    first_ns: int | None = None
    count = 0
    while count < frames:
        item = source.next(time.monotonic() + 1.0)
        if item is Lull.END:
            break
        if isinstance(item, Lull):
            continue
        first_ns = item.captured_ns if first_ns is None else first_ns
        line: dict[str, Any] = {
            "part_id": item.part_id,
            "trigger_id": item.trigger_id,
            "after_ns": max(0, item.captured_ns - first_ns),
        }
        if isinstance(item, Frame):
            line |= {"file": f"{count:06d}.png", "frame_id": item.frame_id}
            (root / line["file"]).write_bytes(cv2.imencode(".png", item.image)[1].tobytes())
        else:
            line |= {"reason": item.reason, "verdict": item.verdict.value}
        write(line)
        count += 1
    return count


def _write(index: Any, line: dict[str, Any], taken: Callable[[], None]) -> None:
    index.write(json.dumps(line) + "\n")
    index.flush()  # a recording that is broken off has all of its lines but the last
    taken()
