"""What a move of T1 on the What-if page costs: python -m benchmarks.what_if [PARTS].

It writes the database of a station that ran for 7 days (600,000 parts, 500 answers of the review bench), reads
it as the page does, and moves T1 to and fro: as a function, and as the page answers it, with its templates but
without a network. The 95th of 100 page moves must stay within 200 ms. Ends with 1 if it does not.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from fastapi.testclient import TestClient

from kenpin.calibration.drift import read_drift
from kenpin.calibration.review import keep_answer, reviewed_parts
from kenpin.calibration.review_bench import waiting_parts
from kenpin.calibration.stored import WEEK_MS
from kenpin.calibration.web.app import create_app
from kenpin.calibration.what_if import Limits, known_parts, read_history, what_if
from kenpin.config import WebSection
from kenpin.edge_runtime.database import open_database
from kenpin.events import now_ms
from kenpin.record import Bound, append_record, record_in_force
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key
from tests import specimens

T = TypeVar("T")

BUNDLE = "7f3a91c2" * 8
T1, T2 = 0.35, 0.45
PARTS, ANSWERS, MOVES = 600_000, 500, 100
WANTED_MS = 200.0

_COLUMNS = """part_id, ts_ms, verdict, score, score_coarse, score_mid, score_fine, image_ref, camera,
    session_id, captured_mono_ns, decided_mono_ns, decided_ns, reason, t1, t2, threshold_rev, bundle_sha256,
    infer_ms, latency_ms, frame_id, trigger_id, released, light, focus"""


def main(parts: int) -> int:
    """Measure and print one JSON document."""
    with tempfile.TemporaryDirectory(prefix="kenpin-what-if-") as root:
        folder = StationFolder(Path(root))
        folder.create()
        prepare(folder, parts)
        found = measure(folder)
    print(json.dumps({"parts": parts, "answers": ANSWERS, **found}))
    return 0 if found["page_move_ms_p95"] <= WANTED_MS else 1


def prepare(folder: StationFolder, parts: int) -> None:
    """A station after 7 days: one part in a hundred was stopped and has a picture."""
    (folder.bundles / BUNDLE).mkdir()
    folder.activate(folder.bundles / BUNDLE)
    (folder.images / "day").mkdir(parents=True)
    (folder.images / "day" / "one.png").write_bytes(b"a picture")
    fields = {"created_ms": now_ms() - WEEK_MS, "bundle_sha256": BUNDLE, "t1": T1, "t2": T2}
    good = {f"g{k}": 0.15 + k / 2000 for k in range(300)}
    masters = {f"M-{k}": 0.4 + k / 20 for k in range(12)}
    bound = Bound(seen=0, of=300, bound=0.01, confidence=0.95)
    record = specimens.record(**fields, good=good, masters=masters, false_calls=bound)
    append_record(folder.records, record, station_key(folder))
    marks = ", ".join("?" * len(_COLUMNS.split(",")))
    with closing(open_database(folder.database)) as connection:
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO part ({_COLUMNS}) VALUES ({marks})", rows(parts))  # noqa: S608
        connection.execute("COMMIT")
    for part in waiting_parts(folder, [], limit=ANSWERS):
        label = "bad" if (part.score or 0) > 0.5 else "good"
        keep_answer(folder, part, label, name="sato", is_master=False)


def rows(parts: int) -> Iterator[tuple[object, ...]]:
    """Parts at even distances over 7 days."""
    random = np.random.default_rng(3)
    scores = random.gamma(16, 0.0125, parts)
    scores[random.random(parts) < 0.005] += 0.3
    start, step = now_ms() - WEEK_MS + 60_000, (WEEK_MS - 120_000) / parts
    for k, score in enumerate(scores.tolist()):
        verdict = "OK" if score < T1 else "NG" if score >= T2 else "REVIEW"
        levels = (score, score * 0.9, score * 0.8, score * 0.7)
        where = ("" if verdict == "OK" else "day/one.png", "cam0", "0190-session", 1, 2, 3, "")
        what = (T1, T2, 1, BUNDLE, 4.1, 61.0, k, k, verdict == "OK")
        seen = (118.0 + score, 0.004 + score / 100)
        yield (f"A-{k:08}", int(start + k * step), verdict, *levels, *where, *what, *seen)


def measure(folder: StationFolder) -> dict[str, float]:
    """Milliseconds of each step, and the memory that this process came to need at most."""
    now = Limits(T1, T2)
    history, read_ms = timed(lambda: read_history(folder.database, BUNDLE, since_ms=now_ms() - WEEK_MS))
    reviewed, answers_ms = timed(lambda: reviewed_parts(folder))
    known = known_parts(reviewed, BUNDLE, {})
    tried = [0.2 + 0.3 * k / MOVES for k in range(MOVES)]
    moves = [timed(partial(what_if, history, known, now=now, then=Limits(t, t + 0.05)))[1] for t in tried]
    browser = TestClient(create_app(folder, WebSection(), station="bench"), base_url="https://127.0.0.1")
    first_ms = timed(partial(fetch, browser, "/what-if"))[1]
    pages = [timed(partial(fetch, browser, f"/what-if/panel?t1={t}"))[1] for t in tried]
    record = record_in_force(folder)
    assert record is not None
    told = {
        "read_scores_ms": read_ms,
        "read_answers_ms": answers_ms,
        "move_ms_p50": statistics.median(moves),
        "first_page_ms": first_ms,
        "page_move_ms_p50": statistics.median(pages),
        "page_move_ms_p95": sorted(pages)[round(0.95 * MOVES) - 1],
        "bench_page_ms": timed(partial(fetch, browser, "/review"))[1],
        "near_misses_page_ms": timed(partial(fetch, browser, "/review/near"))[1],
        "drift_ms": timed(lambda: read_drift(folder, record, now_ms=now_ms()))[1],
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return {name: round(value, 2) for name, value in told.items()}


def fetch(browser: TestClient, path: str) -> int:
    """Size of a page."""
    return len(browser.get(path).raise_for_status().content)


def timed(step: Callable[[], T]) -> tuple[T, float]:
    """What a step gave, and how many milliseconds it took."""
    start_s = time.perf_counter()
    found = step()
    return found, (time.perf_counter() - start_s) * 1000


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else PARTS))
