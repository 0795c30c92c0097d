"""What the doctor looks at on a camera: whether it opens, and what it shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial

from kenpin.config import StationConfig
from kenpin.edge_runtime.doctor import Check, Diagnosis, failed, passed, warned
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.opencv_camera import MANUAL
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.source import Fault, FrameSource, Lull, without_login
from kenpin.edge_runtime.sources import make_source
from kenpin.frame import Frame

_FRAME_S = 5.0
_COMPRESSED = ("MJPG", "JPEG")  # of V4L2


def camera_checks(config: StationConfig, ready: Callable[[], Readiness], *, needs: str) -> list[Check]:
    """Checks of the cameras of a station that does not run: what they see is held to the sign-off.

    Args:
        config: Its configuration.
        ready: Finds what the station has to judge by; asked once a camera has given a picture.
        needs: Name of the check without which none of that can be found.
    """
    return [
        Check(f"camera {without_login(url)}", partial(_camera, config, url, ready), needs)
        for url in config.source.urls
    ]


def _camera(config: StationConfig, url: str, ready: Callable[[], Readiness]) -> Diagnosis:
    with closing(make_source(url)) as source:
        source.open()
        if config.source.trigger:
            return passed("opens; it waits for triggers, so no picture was taken")
        frames, seconds = _take(source)
    if not frames:
        return failed(
            f"opens, but no picture in {_FRAME_S:g} s", "check cable, light and trigger of the camera"
        )
    height, width = frames[-1].image.shape[:2]
    words = f"{width} x {height}, {len(frames) / seconds:.0f} pictures a second"
    risk, cure = _risk(source)
    if risk:
        return warned(f"{words}; {risk}", cure)
    found = ready()
    found.close()
    if url != config.source.url and found.record is not None:  # its limits are those of the first camera
        found = replace(found, record=found.record.model_copy(update={"quality": None}))
    limits = found.record.quality if found.record is not None else None
    look = Look(found, cameras=[source.camera], live=[source.camera] if source.live else [])
    findings = [seen.finding for frame in frames if (seen := look.at(frame)).finding]
    if findings:
        return failed(f"{words}; {findings[-1]}", "bring light, focus and position back to the sign-off")
    return passed(words + ("; as at the sign-off" if limits is not None else ""))


def _risk(source: FrameSource) -> tuple[str, str]:
    """What about a camera can let a bad part pass, and the cure; both empty where nothing is known of that."""
    hold = "add exposure_us=MICROSECONDS to its address"
    if source.settings.get("auto_exposure", MANUAL) != MANUAL:
        cure = f"{hold}: a darker part must not become a brighter picture"
        return "it chooses its exposure itself", cure
    if source.settings.get("auto_focus"):
        return "it chooses its focus itself", f"{hold}: that holds the focus, too"
    if any(source.settings.get(name, "Off") != "Off" for name in ("test_pattern", "test_image_selector")):
        return "it sends a test picture instead of the part", "switch that off with the maker's own program"
    if source.settings.get("pixel_format") in _COMPRESSED or source.camera.startswith("rtsp-"):
        damaged = "its pictures are compressed: one that arrives damaged is not noticed"
        return damaged, "where parts are released by it, use a camera whose pictures come uncompressed"
    return "", ""


def _take(source: FrameSource) -> tuple[list[Frame], float]:
    frames: list[Frame] = []
    started_s = time.monotonic()
    while len(frames) < 10 and time.monotonic() - started_s < _FRAME_S:
        item = source.next(time.monotonic() + 0.5)
        if item is Lull.END:
            break
        if not isinstance(item, Lull | Fault):
            frames.append(item)
    return frames, max(1e-3, time.monotonic() - started_s)
