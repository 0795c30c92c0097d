"""In another light than the signed one no threshold is moved by command, and a fit says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kenpin.calibration.cli import calibrate as command
from kenpin.errors import CalibrationError
from kenpin.record import station_records
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import LIMITS, Made, calibrate, inspect


@pytest.fixture
def signed(tmp_path: Path) -> StationFolder:
    folder = StationFolder(tmp_path / "signed")
    folder.create()
    calibrate(folder, quality=LIMITS)
    return folder


def place(folder: StationFolder) -> Result:
    words = ["set", "--t1", "0.3", "--t2", "0.5", "--why", "test", "--by", "sato", "--state", str(folder.root)]
    return CliRunner().invoke(command, words)


def test_in_another_light_no_threshold_is_moved(signed: StationFolder) -> None:
    inspect(signed, [Made(0.2), Made(None, cause="light_drift", light=61.0)])
    done = place(signed)
    assert isinstance(done.exception, CalibrationError)
    assert (
        done.exception.what == "the newest part has light 61, signed for 90 to 160: no threshold can be moved"
    )
    assert len(station_records(signed)) == 1
    inspect(signed, [Made(0.2, light=120.0)])
    assert place(signed).exit_code == 0
    assert station_records(signed)[-1].t1 == 0.3


@pytest.mark.parametrize("parts", [[], [Made(0.2, light=None)]])
def test_where_the_light_is_not_known_it_holds_nobody_back(signed: StationFolder, parts: list[Made]) -> None:
    inspect(signed, parts)
    assert place(signed).exit_code == 0


@pytest.mark.parametrize(("light", "warns"), [(20.0, True), (124.0, False)])
def test_a_fit_says_that_the_station_has_another_light(
    station: StationFolder, trusted: Path, write_grey: Callable[[Path, int], None], light: float, *, warns: bool
) -> None:
    good = trusted.parent / "good"
    for k in range(50):
        write_grey(good / f"{k:02}.png", 100 + k)
    inspect(station, [Made(0.2, light=light)])
    place = ["--state", str(station.root), "--trust", str(trusted)]
    done = CliRunner().invoke(command, ["fit", "--good", str(good), *place])
    assert done.exit_code == 0, done.output
    assert ("the station's newest part has light 20, these good parts had" in done.stderr) == warns
