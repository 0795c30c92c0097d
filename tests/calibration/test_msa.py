"""Measurement system analysis: the figures of AIAG's own example, and bounds that count parts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kenpin.calibration.cli import calibrate
from kenpin.calibration.msa import Judgement, Study, station_judgements, study
from kenpin.calibration.scores import PictureScore, ScoreSet
from kenpin.calibration.threshold import caught_bound, false_call_bound, parts_needed
from kenpin.errors import ConfigError, DataError
from kenpin.station_folder import StationFolder

GOOD, BAD = 34, 16


def judged(wrong_of_bad: Sequence[int], wrong_of_good: Sequence[int], *, parts: int = 50) -> Study:
    """Three judgements of each part, so many of them wrong, part by part."""
    bad = round(parts * BAD / (BAD + GOOD))
    shown = []
    for kind, count, wrong in ((True, bad, wrong_of_bad), (False, parts - bad, wrong_of_good)):
        for k in range(count):
            errors = wrong[k] if k < len(wrong) else 0
            shown += [Judgement("A", f"{kind}{k}", kind, kind != (time < errors)) for time in range(3)]
    (found,) = study(shown)
    return found


# The three appraisers of the example in AIAG MSA, 3rd edition: 50 parts, 16 of them bad, three trials; wrong
# judgements of bad and of good parts, parts right every time, effectiveness, miss, false alarm and kappa.
AIAG = {
    "A": ([1, 1, 1], [1, 1, 1, 1, 1], 42, 0.84, 0.063, 0.049, 0.88),
    "B": ([1, 1, 1], [1, 1], 45, 0.90, 0.063, 0.020, 0.92),
    "C": ([2, 2, 2], [2, 1, 1, 1, 1, 1, 2], 40, 0.80, 0.125, 0.088, 0.77),
}


@pytest.mark.parametrize("appraiser", AIAG)
def test_the_example_of_aiag(appraiser: str) -> None:
    bad, good, matched, effectiveness, miss, false_alarm, kappa = AIAG[appraiser]
    found = judged(bad, good)
    assert (found.parts, found.repeats, found.effective.seen) == (50, 3, matched)
    assert found.effective.seen / found.effective.of == pytest.approx(effectiveness)
    assert found.miss == pytest.approx(miss, abs=6e-4)
    assert found.false_alarm == pytest.approx(false_alarm, abs=6e-4)
    assert found.kappa == pytest.approx(kappa, abs=5e-3)
    # Every one of them misses too much.
    assert found.grade == "unacceptable"


def test_bounds_count_parts_not_judgements() -> None:
    found = judged([3, 1], [1])
    assert found.effective == caught_bound(47, 50)
    assert found.same == caught_bound(48, 50)
    assert found.missed == false_call_bound(2, 16)
    assert found.alarmed == false_call_bound(1, 34)
    assert found.miss == pytest.approx(4 / 48)


def test_149_bad_parts_prove_the_miss_limit() -> None:
    assert parts_needed(0.02, stopped=0) == 149
    assert false_call_bound(0, 149).bound <= 0.02 < false_call_bound(0, 148).bound


@pytest.mark.parametrize(
    ("bad", "good", "grade"),
    [
        ([], [], "acceptable"),
        ([], [3] * 2, "marginal"),  # 6 of 102 false alarms
        ([1], [], "marginal"),  # 1 of 48 misses
        ([1, 1], [], "marginal"),
        ([1, 1, 1], [], "unacceptable"),
        ([], [3] * 4, "unacceptable"),
        ([], [1] * 6, "marginal"),  # 44 of 50 parts
        ([1], [1] * 10, "unacceptable"),  # 39 of 50 parts
    ],
)
def test_grades(bad: list[int], good: list[int], grade: str) -> None:
    assert judged(bad, good).grade == grade


def test_kappa_of_a_faultless_study_is_one_but_is_not_proved_to_be() -> None:
    few, many = judged([], []), judged([], [], parts=500)
    assert few.kappa == many.kappa == 1
    assert few.kappa_at_least is not None
    assert many.kappa_at_least is not None
    assert few.kappa_at_least < 0.80 < many.kappa_at_least < 1


def test_one_kind_alone_has_no_kappa() -> None:
    (found,) = study([Judgement("A", "p", True, True)] * 3)
    assert (found.kappa, found.false_alarm, found.alarmed, found.miss) == (None, None, None, 0)
    assert found.grade == "incomplete"
    (wrong,) = study([Judgement("A", "p", True, False)] * 3)
    assert wrong.grade == "unacceptable"


@pytest.mark.parametrize(("kind", "says"), [("good", "no bad part"), ("bad", "no good part")])
def test_a_study_of_one_kind_does_not_pass(tmp_path: Path, kind: str, says: str) -> None:
    decision = {"good": "ok", "bad": "stopped"}[kind]
    (tmp_path / "people.csv").write_text("part,reference,decision\n" + f"p,{kind},{decision}\n" * 3)
    result = msa("--decisions", tmp_path / "people.csv")
    assert result.exit_code == 1
    assert "INCOMPLETE" in result.stderr
    assert f"{says} was shown" in result.stderr


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        ([], "nothing was judged"),
        ([Judgement("A", "p", True, True)] * 2, "judged part p 2 of 3 times"),
        ([Judgement("A", "p", kind, True) for kind in (True, True, False)], "both good and bad"),
        ([Judgement(who, "p", who == "A", True) for who in "AB" for _ in range(3)], "both good and bad"),
    ],
)
def test_studies_that_are_none(shown: list[Judgement], says: str) -> None:
    with pytest.raises(DataError, match=says):
        study(shown)


def msa(*arguments: object) -> Result:
    return CliRunner().invoke(calibrate, ["msa", *(str(a) for a in arguments)])


def test_people(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    with path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["part", "reference", "decision", "appraiser"])
        for _ in range(3):
            table.writerows([["g", "good", "ok", "Aiko"], ["b", "bad", "stopped", "Aiko"]])
            table.writerows([["g", "good", "ok", "Ben"], ["b", "bad", "ok", "Ben"]])
    result = msa("--decisions", path, "--json")
    assert result.exit_code == 1
    aiko, ben = json.loads(result.stdout)["studies"]
    assert (aiko["appraiser"], aiko["grade"], ben["grade"]) == ("Aiko", "acceptable", "unacceptable")
    assert ben["missed"]["seen"] == 1
    assert "Ben: 2 parts, each 3 times or more: UNACCEPTABLE" in result.stderr
    assert "2 % would be proved by 149 different bad parts" in result.stderr


def test_a_rate_beyond_a_limit_is_not_shown_as_the_limit(tmp_path: Path) -> None:
    rows = [f"b{k},bad,{'ok' if k < 3 and time == 0 else 'stopped'}" for k in range(49) for time in range(3)]
    rows += [f"g{k},good,{'stopped' if k < 5 and time == 0 else 'ok'}" for k in range(33) for time in range(3)]
    (tmp_path / "people.csv").write_text("\n".join(["part,reference,decision", *rows]))
    result = msa("--decisions", tmp_path / "people.csv")
    assert "MARGINAL" in result.stderr
    assert "misses: 2.04% of judgements (AIAG: 2 %" in result.stderr
    assert "false alarms: 5.05% of judgements (AIAG: 5 %" in result.stderr


@pytest.mark.parametrize("row", ["p,good,maybe", "p,fine,ok", ",good,ok", "p"])
def test_lines_that_are_no_judgement(tmp_path: Path, row: str) -> None:
    (tmp_path / "people.csv").write_text(f"part,reference,decision\n{row}\n")
    error = msa("--decisions", tmp_path / "people.csv").exception
    assert isinstance(error, DataError)
    assert error.where.endswith("line 2")


def test_a_copy_of_a_picture_is_no_further_judgement() -> None:
    shown = tuple(PictureScore(f"{k}.png", 1.0, "part", "ab" * 32) for k in range(3))
    with pytest.raises(DataError, match="judged part good part 1 of 3 times"):
        study(station_judgements(ScoreSet(shown), 2.0))


def test_what_is_judged_must_be_said_once() -> None:
    assert isinstance(msa().exception, ConfigError)
    assert isinstance(msa("--good", "x", "--decisions", "y").exception, ConfigError)


def test_the_station(
    station: StationFolder, trusted: Path, tmp_path: Path, write_grey: Callable[[Path, int], None]
) -> None:
    """Thresholds at 60; a good part at 58 to 62 is stopped once in three."""
    for k in range(50):
        write_grey(tmp_path / "first" / f"{k}.png", 10 + k)
    common = ["--state", station.root, "--trust", trusted]
    fitted = [str(a) for a in ("fit", "--good", tmp_path / "first", *common)]
    assert CliRunner().invoke(calibrate, fitted).exit_code == 0
    for folder, levels in (("good", [30, 31, 32, 58, 59, 62]), ("bad", [90, 91, 92])):
        for k, level in enumerate(levels):
            write_grey(tmp_path / folder / f"{k}.png", level)
        rows = [f"{k}.png,part{k // 3}" for k in range(len(levels))]
        (tmp_path / folder / "manifest.csv").write_text("\n".join(["file,group", *rows]))
    result = msa("--good", tmp_path / "good", "--masters", tmp_path / "bad", *common, "--json")
    (found,) = json.loads(result.stdout)["studies"]
    assert (found["appraiser"], found["parts"], found["repeats"]) == ("station", 3, 3)
    assert found["false_alarm"] == pytest.approx(1 / 6)
    assert (found["effective"]["seen"], found["missed"]["seen"], result.exit_code) == (2, 0, 1)
