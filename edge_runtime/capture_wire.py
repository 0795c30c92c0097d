"""What a capture process and the station say to each other: small packets of JSON on a UNIX socket."""

from __future__ import annotations

import json
import socket
from typing import Any, Literal

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.source import Fault, Trigger
from kenpin.frame import Frame, Image

MAX_BYTES = 8192
# A capture process that has said nothing for so long hangs or is gone.
SILENCE_S = 1.0
BEAT_S = 0.2

# A trigger is refused at once, while the camera may still work on those before it; all other answers come in
# the order of the triggers.
Kind = Literal["ring", "frame", "fault", "refused", "beat", "end", "release", "trigger"]


def socket_name(index: int) -> str:
    """Name of the socket of a camera in the run folder."""
    return f"capture-{index}.sock"


def pack(kind: Kind, **content: Any) -> bytes:
    """A packet."""
    return json.dumps({"kind": kind, **content}, separators=(",", ":")).encode()


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next packet and the file descriptors in it; `None` when the other end is gone.

    Raises:
        BlockingIOError: There is none.
        OSError: The connection broke.
    """
    data, handles, _flags, _address = socket.recv_fds(link, MAX_BYTES, 1)
    if not data:
        return None
    content = json.loads(data)
    assert isinstance(content, dict)
    return content, handles


def frame_content(frame: Frame) -> dict[str, Any]:
    """All of a frame but its picture."""
    return {
        "part_id": frame.part_id,
        "camera": frame.camera,
        "captured_ns": frame.captured_ns,
        "ts_ms": frame.ts_ms,
        "frame_id": frame.frame_id,
        "trigger_id": frame.trigger_id,
    }


def read_frame(content: dict[str, Any], image: Image) -> Frame:
    """A frame from a packet and its picture."""
    return Frame(image, **_without(content, "kind", "slot"))


def fault_content(fault: Fault) -> dict[str, Any]:
    """A fault."""
    return {**vars(fault), "verdict": fault.verdict.value}


def read_fault(content: dict[str, Any]) -> Fault:
    """A fault from a packet."""
    fields = _without(content, "kind", "verdict")
    return Fault(verdict=Verdict(content["verdict"]), **fields)  # type: ignore[arg-type]


def read_trigger(content: dict[str, Any]) -> Trigger:
    """A trigger from a packet."""
    return Trigger(**_without(content, "kind"))


def _without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}
