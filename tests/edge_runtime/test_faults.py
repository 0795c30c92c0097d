"""Real processes whose disk and clock fail, whose line is too fast, and that run for a while; shortly.

The long runs are `benchmarks.faults`, `benchmarks.overload`, `benchmarks.camera_cycles` and `benchmarks.soak`.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fault_shim import FaultShim
from benchmarks.faults import Dose, live_through
from benchmarks.rig import Rig
from benchmarks.soak import Sample, Soak, soak
from kenpin.edge_runtime.database import open_database
from kenpin.edge_runtime.run_socket import send_in
from kenpin.edge_runtime.vitals import Vitals, read_vitals, write_vitals
from tests.edge_runtime.conftest import Workshop, publisher_command


@pytest.mark.slow
def test_a_disk_and_a_clock_that_fail_release_no_wrong_part_and_need_no_restart(tmp_path: Path) -> None:
    found = live_through(tmp_path, Dose(broken_s=1, writes=8, slow_s=3, steps=3))
    assert found.history.violations() == [], found.history.summary()
    assert found.restarts == 0
    assert found.failed > 8


def test_a_publisher_that_starts_on_a_full_disk_waits_for_it(
    workshop: Workshop, rig: Rig, tmp_path: Path, wait_for: Any
) -> None:
    open_database(workshop.folder.database).close()
    shim = FaultShim(tmp_path / "shim", workshop.folder.root)
    shim.set(broken=errno.ENOSPC)
    log, command = tmp_path / "publisher.log", publisher_command(rig.config)
    with log.open("w") as out, subprocess.Popen(command, stderr=out, env=shim.environment) as publisher:
        try:
            wait_for(lambda: "waits for the database" in log.read_text(), "the wait")
            assert publisher.poll() is None
            shim.set(broken=0)
            wait_for(lambda: "publisher" in read_vitals(workshop.folder.run), "the publisher")
        finally:
            publisher.kill()


def test_a_publisher_lives_on_after_a_datagram_that_is_no_result(
    workshop: Workshop, rig: Rig, wait_for: Any
) -> None:
    open_database(workshop.folder.database).close()
    run = workshop.folder.run
    run.mkdir(exist_ok=True)

    def ignored() -> float:
        told = read_vitals(run).get("publisher")
        return told.numbers['dropped_total{stage="result",reason="malformed"}'] if told is not None else -1

    write_vitals(run, Vitals(role="station", pid=os.getpid()))  # or the publisher would wait for one at first
    with subprocess.Popen(publisher_command(rig.config)) as publisher:
        try:
            wait_for(lambda: ignored() == 0, "the publisher")
            send_in(run, "publisher.sock", b"{")
            send_in(run, "publisher.sock", b"[]")
            wait_for(lambda: ignored() == 2, "the count")
            assert publisher.poll() is None
        finally:
            publisher.kill()


@pytest.mark.slow
def test_a_short_soak_judges_each_picture_once_and_leaves_nothing_open(tmp_path: Path) -> None:
    found = soak(tmp_path, frames=200, limit_s=120)
    assert found.history.violations() == [], found.history.summary()
    assert len(found.history.parts) >= 200
    assert all(more < 20 for more in found.grown().values())  # a datagram opens files for a moment


def test_a_soak_measures_what_grows() -> None:
    chance = np.random.default_rng(1)

    def at(k: int, grows: float) -> Sample:
        return Sample(k * 36.0, {"station": 100 + grows * k / 100 + chance.normal(0, 0.1)}, 10 + k // 60, 5)

    found = Soak(samples=[at(k, grows=3.0) for k in range(100)])
    slope, half = found.slope("station")
    assert abs(slope - 3) < half < 1
    assert found.grown() == {"files": 1, "threads": 0}
    slope, half = Soak(samples=[at(k, grows=0.0) for k in range(100)]).slope("station")
    assert abs(slope) < half < 1
    p99, change, half = Soak(periods_ms=chance.normal(10, 0.1, 20_000) + np.linspace(0, 5, 20_000)).drift()
    assert p99 > 10
    assert 3 < change < 4  # of 5 * 0.8; the ends are means of blocks
    assert half < 0.1
