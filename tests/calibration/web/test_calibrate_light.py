"""What the light of good parts, and their pictures, let be signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from kenpin.calibration.web.calibrate_parts import newest_seq, read_shown
from kenpin.calibration.web.calibrate_run import Runs, Start, Step
from kenpin.calibration.web.calibrate_shown import measured_pictures
from kenpin.calibration.web.words import load_words
from kenpin.calibration.words import describe, warnings_about
from kenpin.frame import read_picture
from kenpin.quality import measure
from kenpin.quality_limits import light_limits
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import BUNDLE, LIMITS, Made, calibrate, inspect
from tests.calibration.web.page_station import MakeVisit

STEADY = [118.0, 120.0, 122.0] * 10
TWO_LAMPS = [60.0, 120.0] * 15
BRIGHT_LAMPS = [60.0, 200.0] * 15  # by what they differ, more than white would be allowed


def show(folder: StationFolder, light: Sequence[float], step: Step) -> dict[str, int]:
    """A calibration with such good parts at that step; the limits of their light as people read them."""
    first = newest_seq(folder.database) if folder.database.exists() else 0
    seqs = inspect(folder, [Made(0.2 + 0.001 * k, cause="calibrating", light=x) for k, x in enumerate(light)])
    runs = Runs(folder.root / "page.db")
    runs.begin(Start("sato", BUNDLE, "int8", first))
    runs.go(step, newest_seq=seqs[-1])
    low, high = light_limits(light)
    return {"low": round(low), "high": min(round(high), 255)}


@pytest.mark.parametrize("step", ["limits", "sign"])
@pytest.mark.parametrize("language", ["en", "ja", "de"])
@pytest.mark.parametrize("light", [TWO_LAMPS, BRIGHT_LAMPS])
def test_two_lights_are_said_where_thresholds_are_placed_and_signed(
    visit: MakeVisit, people: StationFolder, step: Step, language: str, light: list[float]
) -> None:
    browser = visit(language=language)
    limits = show(people, light, step)
    assert load_words()[language]("light_wide", **limits) in browser.get("/calibrate").text


@pytest.mark.parametrize("light", [STEADY, TWO_LAMPS, TWO_LAMPS[:5], [60.0, 80.0] * 15, [60.0, 85.0] * 15])
def test_the_page_says_it_where_the_signed_record_would(
    visit: MakeVisit, people: StationFolder, light: list[float]
) -> None:
    browser = visit()
    show(people, light, "limits")
    quality = LIMITS.model_copy(update={"light": light_limits(light)}) if len(light) > 5 else None
    said = any("light of the good pictures" in w for w in warnings_about(calibrate(people, quality=quality)))
    assert ('id="light-wide"' in browser.get("/calibrate").text) == said


def test_no_more_light_than_white_is_told_as_allowed(people: StationFolder) -> None:
    limits = LIMITS.model_copy(update={"light": (34.2, 313.0)})
    record = calibrate(people, quality=limits)
    said = [*describe(record), *warnings_about(record)]
    assert sum("34 to 255" in line for line in said) == 2
    seen = measure(np.full((64, 64, 3), 20, np.uint8))
    found = limits.model_copy(update={"size": None}).check(seen, None)
    assert found is not None
    assert found[1] == "too dark: light 20, allowed 34 to 255"


def test_of_several_cameras_the_limits_are_learned_from_pictures_of_the_first(
    visit: MakeVisit, people: StationFolder
) -> None:
    """The picture of the view that decides is kept, the light of the first camera's."""
    visit()
    show(people, STEADY, "sign")
    run = Runs(people.root / "page.db").read()
    assert run is not None
    good = list(read_shown(people.database, run).good)
    own = [measure(read_picture(people.images / part.image_ref)).light for part in good]
    shown = [replace(part, light=own[k] if k % 3 else own[k] + 5) for k, part in enumerate(good)]
    assert [seen.light for seen in measured_pictures(people, shown)] == [x for k, x in enumerate(own) if k % 3]
