"""What a loaded page costs the station beside it: make bench-page.

A station judges 1080p frames at a steady rate, as all of its processes, with the page as one more. By turns the
page is left alone, and asked 50 times a second while hundreds of connections drip bytes. Then the first page in
Chromium: time, bytes, and whom it asks. Ends with 1 if that is more than 60 kB, or another host is asked.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Response, sync_playwright
from scipy.stats import bootstrap

from benchmarks.rig import Rig
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.report import rss_mb
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PANEL, Server
from tests.edge_runtime.conftest import Workshop

RATE, DRIPS = 50, 300
_MOST_KB = 60
_FIRST_PAGES = 5
_LOAD_MS = "performance.timing.loadEventEnd - performance.timing.navigationStart"
_WARM_S = 5.0
_BOOTSTRAP_ROUNDS = 1000
_SOURCE = 'url = "synthetic:board?rate={rate}&defects=0&width=1920&height=1080"'


@dataclass
class Found:
    """What was measured; a list has one entry per round.

    Attributes:
        quiet: Exposure to verdict of each part, ms, with nobody at the page.
        loaded: The same under load.
        rss_mb: Resident memory of the page: when started, and after each round.
        crowds: What became of the requests.
        first: The first page in Chromium.
        load: Load averages of the machine, before each arm.
    """

    quiet: list[list[float]] = field(default_factory=list)
    loaded: list[list[float]] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    crowds: list[dict[str, float]] = field(default_factory=list)
    first: dict[str, Any] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)


@click.command()
@click.option("--rounds", default=6, help="So often each arm.")
@click.option("--seconds", default=20.0, help="Of each arm.")
@click.option("--rate", default=10.0, help="Parts per second.")
def main(rounds: int, seconds: float, rate: float) -> None:
    """Print one JSON document."""
    with tempfile.TemporaryDirectory(prefix="kenpin-page-") as root:
        found = measure(Path(root), rounds=rounds, seconds=seconds, rate=rate)
    print(json.dumps(told(found), indent=1))
    sys.exit(found.first["hosts"] != ["127.0.0.1"] or found.first["kb"] > _MOST_KB)


def measure(root: Path, *, rounds: int, seconds: float, rate: float) -> Found:
    """Start station and page, and load the page every other time.

    Args:
        root: An empty folder.
        rounds: So often each arm.
        seconds: Of each arm.
        rate: Parts per second.
    """
    workshop = Workshop(root)
    workshop.calibrated(t1=1000.0, t2=2000.0)
    source = _SOURCE.format(rate=rate)
    rig = Rig(root / "rig", workshop.folder, workshop.public_key, rate=rate, source=source)
    found, server = Found(), Server(workshop.folder)
    try:
        rig.start()
        server.wait()
        time.sleep(_WARM_S)
        found.rss_mb.append(round(rss_mb(server.process.pid), 1))
        for _ in range(rounds):
            found.load.append(os.getloadavg()[0])
            found.quiet.append(_arm(workshop.folder, seconds))
            with _crowd(server.port, seconds) as crowd:
                found.loaded.append(_arm(workshop.folder, seconds))
                found.crowds.append(json.loads(crowd.communicate(timeout=60)[0]))
            found.rss_mb.append(round(rss_mb(server.process.pid), 1))
        found.first = first_page(server.url)
    finally:
        server.stop()
        rig.close()
    return found


def told(found: Found) -> dict[str, object]:
    """p50 and p99 of all parts of each arm, of each round, and how much more p99 is with its 95 % interval."""
    arms = {"quiet": found.quiet, "loaded": found.loaded}
    middle = {f"{name}_ms": _percentiles(np.concatenate(rounds)) for name, rounds in arms.items()}
    each = {f"{name}_ms_each": [_percentiles(parts) for parts in rounds] for name, rounds in arms.items()}
    rest = {name: value for name, value in vars(found).items() if name not in arms}
    return {**middle, "p99_more_percent": _p99_more(found), **each, **rest}


def _percentiles(parts: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(parts, share)), 2) for name, share in (("p50", 50), ("p99", 99))}


def _p99_more(found: Found) -> dict[str, float]:
    """The interval is by drawing parts anew (percentile bootstrap)."""
    arms = np.concatenate(found.quiet), np.concatenate(found.loaded)

    def more(quiet: NDArray[np.float64], loaded: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(100 * (np.percentile(loaded, 99, axis) / np.percentile(quiet, 99, axis) - 1))

    drawn = bootstrap(arms, more, n_resamples=_BOOTSTRAP_ROUNDS, method="percentile", batch=100, random_state=0)
    low, high = drawn.confidence_interval
    return {"value": round(float(more(*arms)), 1), "low": round(low, 1), "high": round(high, 1)}


def first_page(url: str) -> dict[str, Any]:
    """The Line page in browsers that have seen nothing yet: time until it is loaded, bytes, hosts."""
    answers: list[Response] = []
    took_ms = []
    with sync_playwright() as playwright:
        for _ in range(_FIRST_PAGES):
            answers.clear()
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page(viewport=PANEL)
            page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 playwright marks it
            page.goto(f"{url}/line", wait_until="load")
            took_ms.append(page.evaluate(_LOAD_MS))
            sizes = {urlsplit(answer.url).path: len(answer.body()) for answer in answers}
            hosts = sorted({str(urlsplit(answer.url).hostname) for answer in answers})
            browser.close()
    middle = statistics.median(took_ms)
    return {"ms": middle, "each": took_ms, "kb": sum(sizes.values()) / 1000, "bytes": sizes, "hosts": hosts}


def _arm(folder: StationFolder, seconds: float) -> list[float]:
    """Exposure to verdict of the parts that come now, ms."""
    with reading(folder.database) as connection:
        (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM part").fetchone()
        time.sleep(seconds)
        rows = connection.execute("SELECT latency_ms FROM part WHERE seq > ? AND score IS NOT NULL", (last,))
        return [row[0] for row in rows]


def _crowd(port: int, seconds: float) -> subprocess.Popen[str]:
    words = ["-m", "benchmarks.page_crowd", str(port), str(seconds), str(RATE), str(DRIPS)]
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
