"""The viewfinder: the last part as a small picture for a page, where the part differs painted red.

Only while somebody looks, and never more than four times a second: the line comes first.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from pathlib import Path
from queue import Empty, Queue

import cv2
import numpy as np

from kenpin.edge_runtime.inspection import Inspection
from kenpin.errors import reason_and_file
from kenpin.frame import Image
from kenpin.quality import Quality, locate, measure
from kenpin.quality_limits import QualityLimits

WATCHED_S = 5.0  # a page touches the file `watched` more often than that
_EVERY_S = 0.25
_WIDTH = 800
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 80]
_ROUND_S = 0.2
_log = logging.getLogger(__name__)


class Viewfinder:
    """Writes `live.jpg` and `live.json`, each whole, in a thread of its own.

    Args:
        run: The station's `StationFolder.run`; a page touches `watched` there while somebody looks.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._due_s = 0.0
        self._has_failed = False
        self._queue: Queue[tuple[Inspection, Image]] = Queue(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="viewfinder", daemon=True)
        self._thread.start()

    def offer(self, inspection: Inspection) -> None:
        """A part that is settled; its picture is copied where somebody looks and it is time."""
        now_s = time.monotonic()
        if inspection.image is None or now_s < self._due_s or self._queue.full() or not self._is_watched():
            return
        self._due_s = now_s + _EVERY_S
        self._queue.put_nowait((inspection, inspection.image.copy()))

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _is_watched(self) -> bool:
        try:
            return time.time() - (self._run / "watched").stat().st_mtime < WATCHED_S
        except OSError:
            return False

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                inspection, image = self._queue.get(timeout=_ROUND_S)
            except Empty:
                continue
            try:
                self._write("live.jpg", cv2.imencode(".jpg", paint(inspection, image), _JPEG)[1].tobytes())
                self._write("live.json", json.dumps(words(inspection, image)).encode())
            except (OSError, cv2.error) as error:
                if not self._has_failed:
                    _log.warning("The picture for the page cannot be written: %s", reason_and_file(error))
                self._has_failed = True

    def _write(self, name: str, data: bytes) -> None:
        partial = self._run / f".{name}.part"
        partial.write_bytes(data)
        partial.replace(self._run / name)


def paint(inspection: Inspection, image: Image) -> Image:
    """The picture, at most 800 px wide, red where the part differs more than good parts do.

    Args:
        inspection: What was found.
        image: BGR uint8, shape (H, W, 3).
    """
    height, width = image.shape[:2]
    share = min(1.0, _WIDTH / width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    scored, record, cutout = inspection.part.decision.scored, inspection.part.record, inspection.cutout
    if scored is None or record is None or cutout is None:
        return small
    # From what is usual for good parts to T2 and beyond.
    low = float(np.median(list(record.good.values()))) if record.good else record.t1 / 2
    high = max(record.t2, low + 1e-9)
    covered = (max(1, round(cutout.box.width * share)), max(1, round(cutout.box.height * share)))
    fine = np.asarray(cv2.resize(scored.anomaly_map, covered, interpolation=cv2.INTER_LINEAR), np.float32)
    heat = cutout.spread(fine, size, fill=low)
    opacity = (0.6 * np.clip((heat - low) / (high - low), 0, 1))[..., np.newaxis]
    small[:] = small * (1 - opacity) + np.array((0, 0, 255)) * opacity
    return small


def words(inspection: Inspection, image: Image) -> dict[str, object]:
    """What the page tells beside the picture, and how the frame compares with the sign-off."""
    part, decision = inspection.part, inspection.part.decision
    told: dict[str, object] = {
        "part_id": part.part_id,
        "verdict": decision.verdict.value,
        "reason": decision.reason,
        "score": decision.scored.score if decision.scored and decision.scored.is_finite else 0.0,
        "t1": part.record.t1 if part.record else 0.0,
        "t2": part.record.t2 if part.record else 0.0,
        "ts_ms": part.ts_ms,
    }
    seen = inspection.quality or measure(image)
    return {**told, **_quality(seen, part.record.quality if part.record else None)}


def _quality(seen: Quality, limits: QualityLimits | None) -> dict[str, float]:
    """Measures of a frame; `light` over the usual, `focus` over the least allowed; 0 without a sign-off."""
    told = {"light_abs": seen.light, "clipped": seen.clipped, "focus_abs": seen.focus}
    if limits is None:
        return {**told, "light": 0.0, "focus": 0.0, "match": 0.0, "shift": 0.0}
    low, high = limits.light
    reference = limits.reference_picture()
    match = shift = 0.0
    if reference is not None and reference.shape == seen.small.shape:
        place = locate(seen.small, reference)
        match, shift = place.match, place.shift
    return {
        **told,
        "light": seen.light / max(1.0, math.sqrt(low * high)),
        "focus": seen.focus / max(1e-9, limits.focus),
        "match": match,
        "shift": shift,
        "light_low": low,
        "light_high": high,
        "clipped_max": limits.clipped,
        "focus_min": limits.focus,
        "match_min": limits.match,
        "shift_max": limits.shift,
    }
