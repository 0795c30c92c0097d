"""A station that has inspected parts: a record, masters, scores of days, and pictures of what was stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kenpin.calibration.masters_book import add_master, make_master
from kenpin.calibration.web.users import Users
from kenpin.edge_runtime.database import open_database
from kenpin.events import now_ms
from kenpin.quality_limits import QualityLimits
from kenpin.record import Bound, CalibrationRecord, append_record, head
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key
from tests import specimens

BUNDLE = "7f3a91c2" * 8
T1, T2 = 0.35, 0.45
HOUR_MS = 3_600_000
LIMITS = QualityLimits(pictures=50, size=(150, 240), light=(90.0, 160.0), clipped=0.01, focus=0.004)
_PLACE = ("roi_x_px", "roi_y_px", "roi_w_px", "roi_h_px")


@dataclass(frozen=True)
class Made:
    """A part to be written.

    Attributes:
        score: Its score; `None` where it has none.
        age_ms: How long ago.
        cause: Why there is no verdict; empty = the thresholds decide.
        has_picture: Whether its picture was kept.
        light: Mean grey of its picture.
        focus: Focus of its picture.
    """

    score: float | None
    age_ms: int = 0
    cause: str = ""
    has_picture: bool = True
    light: float | None = 120.0
    focus: float | None = 0.006


def picture(shade: int) -> bytes:
    frame = np.full((150, 240, 3), 70, np.uint8)
    cv2.rectangle(frame, (36, 40), (204, 110), (180, 172, shade), -1)
    cv2.circle(frame, (150, 80), 4 + shade % 9, (60, 60, 230), -1)
    return cv2.imencode(".png", frame)[1].tobytes()


def calibrate(folder: StationFolder, **changes: Any) -> CalibrationRecord:
    """An active bundle and a record for it."""
    (folder.bundles / BUNDLE).mkdir(parents=True, exist_ok=True)
    folder.activate(folder.bundles / BUNDLE)
    good = {f"g{k}": float(s) for k, s in enumerate(np.random.default_rng(1).gamma(16, 0.0125, 300))}
    fields = {"created_ms": now_ms() - 30 * HOUR_MS, "bundle_sha256": BUNDLE, "t1": T1, "t2": T2, "good": good}
    masters, bound = {"M-01": 0.46, "M-02": 0.8}, Bound(seen=0, of=300, bound=0.01, confidence=0.95)
    place = {"by": "sato", "previous_sha256": head(folder.records), "masters": masters, "false_calls": bound}
    record = specimens.record(**{**fields, **place, **changes})
    append_record(folder.records, record, station_key(folder))
    return record


def add_masters(folder: StationFolder, names: Iterable[str] = ("M-01", "M-02")) -> None:
    for k, name in enumerate(names):
        content = picture(90 + k)
        made = make_master(name, "scratch 0.3 mm", "NG", picture=content, suffix=".png")
        add_master(folder, made, content, by="sato", why="limit sample")


def inspect(folder: StationFolder, parts: Iterable[Made]) -> list[int]:
    """Write parts as the station would; their numbers."""
    now = now_ms()
    (folder.images / "day").mkdir(parents=True, exist_ok=True)
    with closing(open_database(folder.database)) as connection:
        connection.execute("BEGIN")
        seqs = [_insert(connection, folder, part, now - part.age_ms) for part in parts]
        connection.execute("COMMIT")
    return seqs


def _insert(connection: Any, folder: StationFolder, part: Made, ts_ms: int) -> int:
    verdict = "NO_DECISION"
    if not part.cause and part.score is not None:
        verdict = "OK" if part.score < T1 else "NG" if part.score >= T2 else "REVIEW"
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM part").fetchone()
    content = picture(seq % 200)
    ref = f"day/{seq}.png" if part.has_picture else ""
    if ref:
        (folder.images / ref).write_bytes(content)
    row = {
        "seq": seq,
        "part_id": f"A-{seq:05}",
        "ts_ms": ts_ms,
        "verdict": verdict,
        "reason": part.cause,
        "cause": part.cause,
        "score": part.score,
        **{f"score_{level}": part.score for level in ("coarse", "mid", "fine")},
        "light": part.light,
        "focus": part.focus,
        "bundle_sha256": BUNDLE if part.score is not None else None,
        "image_ref": ref,
        "image_sha256": hashlib.sha256(content).hexdigest() if ref else "",
        "released": verdict == "OK",
        "camera": "cam",
        "session_id": "s",
        **dict.fromkeys(("captured_mono_ns", "decided_mono_ns", "decided_ns"), 0),
        "t1": T1,
        "t2": T2,
        "threshold_rev": 1,
        "latency_ms": 61.0,
        "frame_id": 1,
        **dict.fromkeys(_PLACE, 30 if verdict in ("NG", "REVIEW") else None),
    }
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO part ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    return int(seq)


def a_day(folder: StationFolder, *, shift: float = 0.0) -> None:
    """Parts of 20 hours, 60 an hour; in the last three hours the scores lie higher by `shift`."""
    random = np.random.default_rng(2)
    made = []
    for hour in range(20, -1, -1):
        scores = random.gamma(16, 0.0125, 60) + (shift if hour < 3 else 0.0)
        scores[:2] += (0.21, 0.4)
        ages = [hour * HOUR_MS + (59 - k) * 60_000 for k in range(60)]
        made += [Made(float(s), age, has_picture=s >= 0.3) for s, age in zip(scores, ages, strict=True)]
    inspect(folder, made)


def inspected(root: Path, users_file: Path) -> StationFolder:
    """A station with people, a record, twelve masters and a day of parts."""
    made = StationFolder(root)
    made.create()
    made.run.mkdir()
    shutil.copy(users_file, Users(made).path)
    calibrate(made, quality=LIMITS)
    add_masters(made, [f"M-{k:02}-scratch" for k in range(1, 13)])
    a_day(made, shift=0.06)
    return made
