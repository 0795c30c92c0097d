"""`kenpin bench engine`: figures of a real engine, kept and compared."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from kenpin.edge_runtime import engine_bench
from kenpin.edge_runtime.engine_bench import WARM_UP, Times, time_streams
from kenpin.edge_runtime.engine_bench_cli import engine
from kenpin.edge_runtime.quality_gate import QualityGate
from kenpin.errors import ConfigError, EngineError
from kenpin.machine_state import read_power_w, read_state
from kenpin.quality_limits import Finding
from tests.edge_runtime.conftest import Clock, Workshop
from tests.edge_runtime.test_view_at_station import REFERENCE, VIEW


@pytest.fixture
def station(workshop: Workshop) -> Workshop:
    return workshop.ready()


def bench(station: Workshop, *options: object) -> dict[str, Any]:
    arguments = ["--state", station.folder.root, "--trust", station.public_key, "--camera", "64x48"]
    arguments += ["--frames", 10, "--json", *options]
    done = CliRunner().invoke(engine, [str(a) for a in arguments], catch_exceptions=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_every_way_is_measured_and_the_station_is_left_alone(station: Workshop) -> None:
    before = sorted(p.name for p in station.folder.root.iterdir())
    document = bench(station, "--streams", 1, "--streams", 3)
    ways = ["engine alone", "with preprocessing", "frame to committed verdict", "1 streams", "3 streams"]
    assert list(document["rows"]) == ways
    for row in document["rows"].values():
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["per_s"] > 0
    assert (document["runtime"], document["input_size"]) == ("onnxruntime", [16, 16])
    assert set(document["machine"]) == {"before", "after"}
    assert sorted(p.name for p in station.folder.root.iterdir()) == before


def test_figures_are_kept_and_compared(station: Workshop, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    first = bench(station, "--save", kept)
    assert json.loads(kept.read_text()) == first
    arguments = ["--state", station.folder.root, "--trust", station.public_key, "--camera", "64x48"]
    done = CliRunner().invoke(
        engine, [str(a) for a in [*arguments, "--frames", 10, "--against", kept, "--save", kept]]
    )
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "times" in done.stderr
    with pytest.raises(ConfigError, match=r"for camera \[48, 64\], these for \[24, 32\]"):
        bench(station, "--camera", "32x24", "--against", kept)


def test_with_a_view_the_camera_is_that_of_the_view(workshop: Workshop) -> None:
    workshop.calibrate(workshop.install(workshop.bundle(reference=REFERENCE, view=VIEW)))
    arguments = ["--state", workshop.folder.root, "--trust", workshop.public_key, "--frames", 10, "--json"]
    done = CliRunner().invoke(engine, [str(a) for a in arguments], catch_exceptions=False)
    assert json.loads(done.stdout)["camera"] == [120, 160]
    with pytest.raises(ConfigError, match="is not what the bundle's view was drawn for"):
        bench(workshop, "--camera", "1920x1080")


def test_a_frame_that_is_not_scored_is_no_measure(station: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QualityGate, "check", lambda *_: (Finding.BLACK, "black picture"))
    with pytest.raises(EngineError, match="a frame was not scored: black picture"):
        bench(station)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runtime": 1}'])
def test_figures_that_are_none_are_refused(station: Workshop, tmp_path: Path, content: str) -> None:
    (tmp_path / "kept.json").write_text(content)
    with pytest.raises(ConfigError, match="no figures can be read"):
        bench(station, "--against", tmp_path / "kept.json")


@pytest.mark.parametrize("size", ["1080", "0x5", "-3x4", "axb"])
def test_a_camera_needs_a_size(station: Workshop, size: str) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        bench(station, "--camera", size)


def test_without_a_bundle_there_is_nothing_to_measure(workshop: Workshop) -> None:
    workshop.install()
    workshop.folder.active.unlink()
    with pytest.raises(EngineError, match="no engine to measure: no bundle is installed"):
        bench(workshop)


def test_times_are_those_of_the_frames() -> None:
    times = Times.of("way", [0.010] * 98 + [0.020, 0.110])
    assert times.p50_ms == pytest.approx(10)
    assert 20 <= times.p99_ms <= 110
    assert times.per_s == pytest.approx(100 / (0.98 + 0.13))


class Sleeper:
    """An engine that only waits, longest for its first frames, and then for the others of its bench."""

    sight = None

    def __init__(self, clock: Clock, together: threading.Barrier) -> None:
        self._clock = clock
        self._together = together
        self._calls = 0

    def score(self, image: NDArray[np.uint8]) -> None:
        self._calls += 1
        if self._calls > WARM_UP:
            self._together.wait(180)
        elif self._calls <= 2:
            self._clock.sleep(0.3)


class Broken(Sleeper):
    """One that fails at last."""

    def score(self, image: NDArray[np.uint8]) -> None:
        super().score(image)
        if self._calls > WARM_UP:
            raise EngineError("broken")


def test_streams_overlap_and_their_errors_are_not_lost(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_bench, "time", SimpleNamespace(perf_counter=clock.monotonic))
    together = threading.Barrier(4, lambda: clock.sleep(0.01))
    engines: list[Any] = [Sleeper(clock, together) for _ in range(4)]
    four = time_streams(engines, camera=(8, 8), frames=10)
    assert four.per_s == pytest.approx(400)  # one after the other could not be more than 100
    assert four.p99_ms == pytest.approx(10)  # those of the first frames do not count
    together = threading.Barrier(2)
    engines = [Sleeper(clock, together), Broken(clock, together)]
    with pytest.raises(EngineError, match="broken"):
        time_streams(engines, camera=(8, 8), frames=1)


def test_the_state_of_a_jetson_is_read_from_its_files(tmp_path: Path) -> None:
    for name, text in {
        "class/thermal/thermal_zone0/temp": "41500\n",
        "class/thermal/thermal_zone1/temp": "asleep\n",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000\n",
        "class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
        "class/hwmon/hwmon0/in1_label": "VDD_CPU_GPU_CV\n",
        "class/hwmon/hwmon0/in1_input": "4900\n",
        "class/hwmon/hwmon0/curr1_input": "1000\n",
        "class/hwmon/hwmon1/in2_label": "VDD_IN\n",
        "class/hwmon/hwmon1/in2_input": "5000\n",
        "class/hwmon/hwmon1/curr2_input": "2400\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = read_state(tmp_path, tmp_path / "no cpuinfo")
    assert {k: found[k] for k in ("temperature_c", "cpu_mhz", "gpu_mhz", "power_w")} == {
        "temperature_c": 41.5,
        "cpu_mhz": 1728,
        "gpu_mhz": 1020,
        "power_w": 12.0,
    }
    (tmp_path / "class/hwmon/hwmon1/curr2_input").unlink()  # as where the chip does not answer
    assert read_power_w(tmp_path) == 0
    assert "power_w" not in read_state(tmp_path, tmp_path / "no cpuinfo")
