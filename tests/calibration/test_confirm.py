"""TRIAL, CONFIRMED, and thresholds placed by hand: what fresh parts prove, and what they do not."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kenpin import audit
from kenpin.answers import Answers
from kenpin.book import calibration_lock, open_book
from kenpin.calibration.cli import calibrate
from kenpin.calibration.confirm import record_confirm
from kenpin.calibration.fit import Basis, record_fit
from kenpin.calibration.origin import is_narrow
from kenpin.calibration.scores import PictureScore, ScoreSet
from kenpin.calibration.threshold import false_call_bound
from kenpin.calibration.words import warnings_about
from kenpin.errors import CalibrationError, ConfigError, DataError, KenpinError
from kenpin.placed import Placement, record_placed
from kenpin.record import CalibrationRecord, Origin, load_records
from kenpin.signing import SecretKey
from kenpin.station_folder import StationFolder

Run = Callable[..., Result]
Scores = Callable[..., Path]


@pytest.fixture
def run(station: StationFolder, trusted: Path) -> Run:
    def call(verb: str, *arguments: object) -> Result:
        fixed = [verb, "--state", station.root, *arguments]
        fixed += ["--trust", trusted] if verb in ("fit", "confirm") else []
        fixed += ["--precision", "int8"] if "--scores" in arguments and "--precision" not in arguments else []
        return CliRunner().invoke(calibrate, [str(a) for a in fixed])

    return call


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    def write(name: str, good: Sequence[float], masters: Sequence[float] = ()) -> Path:
        path = tmp_path / f"{name}.csv"
        rows = [[f"{name}{k}", score, "good"] for k, score in enumerate(good)]
        rows += [[f"m{k}", score, "master"] for k, score in enumerate(masters)]
        with path.open("w", newline="") as out:
            csv.writer(out).writerows([["name", "score", "label"], *rows])
        return path

    return write


@pytest.fixture
def fitted(run: Run, scores: Scores) -> CalibrationRecord:
    """Fifty good parts below 1, masters from 2 on: T1 just above 0.98, T2 = 2."""
    good = [k / 50 for k in range(50)]
    assert run("fit", "--scores", scores("first", good, [2.0, 2.5, 3.0])).exit_code == 0
    return CalibrationRecord.model_construct(t1=math.nextafter(0.98, math.inf), t2=2.0)


def newest(station: StationFolder) -> CalibrationRecord:
    return load_records(station.records, SecretKey.load(station.key).public)[-1]


def error_of(result: Result) -> KenpinError:
    assert isinstance(result.exception, KenpinError), result.output
    return result.exception


def test_249_fresh_parts_confirm(run: Run, scores: Scores, station: StationFolder, fitted: object) -> None:
    result = run("confirm", "--scores", scores("fresh", [0.5] * 249), "--by", "Aiko", "--json")
    record = newest(station)
    assert (record.rev, record.state, record.false_calls) == (2, "CONFIRMED", false_call_bound(0, 299))
    assert record.false_calls is not None
    assert record.false_calls.bound == 0.01
    assert record.fresh is not None
    assert (record.fresh.of_rev, record.fresh.parts, record.fresh.stopped, record.fresh.looks) == (1, 249, 0, 1)
    assert (len(record.good), len(record.masters)) == (50, 3)
    assert json.loads(result.stdout)["more_good_parts_for_10_per_1000"] == 0
    assert "0 of 299 good parts stopped: 95 % certain not more than 10.0 per 1,000" in result.stderr
    assert audit.read_audit(station, SecretKey.load(station.key).public)[1]["new"].startswith(
        "record 2, CONFIRMED"
    )


def test_one_part_less_does_not(run: Run, scores: Scores, station: StationFolder, fitted: object) -> None:
    result = run("confirm", "--scores", scores("fresh", [0.5] * 248))
    assert newest(station).state == "TRIAL"
    assert "1 more good part, none of them stopped, would prove 10 per 1,000" in result.stderr


def test_looks_add_up_and_a_false_call_needs_more_parts(
    run: Run, scores: Scores, station: StationFolder, fitted: CalibrationRecord
) -> None:
    run("confirm", "--scores", scores("one", [*[0.5] * 248, fitted.t1]))  # only below T1 a part is OK
    assert newest(station).false_calls == false_call_bound(1, 299)
    run("confirm", "--scores", scores("two", [0.5] * 173))
    assert (newest(station).state, newest(station).false_calls) == ("TRIAL", false_call_bound(1, 472))
    run("confirm", "--scores", scores("three", [0.5]))
    record = newest(station)
    assert (record.state, record.false_calls) == ("CONFIRMED", false_call_bound(1, 473))
    assert record.fresh is not None
    assert (record.fresh.of_rev, record.fresh.looks, len(record.fresh.scores)) == (1, 3, 423)


def test_confirmed_can_be_lost(run: Run, scores: Scores, station: StationFolder, fitted: object) -> None:
    run("confirm", "--scores", scores("one", [0.5] * 249))
    run("confirm", "--scores", scores("two", [1.0] * 3))
    assert newest(station).state == "TRIAL"


def test_another_rate_may_be_wanted(run: Run, scores: Scores, station: StationFolder, fitted: object) -> None:
    run("confirm", "--scores", scores("fresh", [0.5] * 100), "--at-most", 20)
    assert newest(station).state == "CONFIRMED"
    assert newest(station).false_calls == false_call_bound(0, 150)


def test_parts_that_were_shown_before_are_not_fresh(run: Run, scores: Scores, fitted: object) -> None:
    assert "not fresh" in str(error_of(run("confirm", "--scores", scores("first", [0.5]))))
    assert run("confirm", "--scores", scores("one", [0.5])).exit_code == 0
    error = error_of(run("confirm", "--scores", scores("one", [0.5])))
    assert isinstance(error, DataError)
    assert error.where == "one0"


def test_pictures_are_known_again_under_any_name(
    run: Run, station: StationFolder, tmp_path: Path, write_grey: Callable[[Path, int], None]
) -> None:
    for k in range(10):
        write_grey(tmp_path / "good" / f"{k}.png", 10 + k)
        write_grey(tmp_path / "fresh" / f"{k}.png", 5 + k)
    run("fit", "--good", tmp_path / "good")
    assert "not fresh" in str(error_of(run("confirm", "--good", tmp_path / "fresh")))
    assert newest(station).rev == 1
    for k in range(5, 10):
        (tmp_path / "fresh" / f"{k}.png").unlink()
    assert run("confirm", "--good", tmp_path / "fresh").exit_code == 0
    assert newest(station).false_calls == false_call_bound(0, 15)
    (tmp_path / "again").mkdir()
    for shown in ("fresh", "good"):
        (tmp_path / "again" / "x.png").write_bytes((tmp_path / shown / "3.png").read_bytes())
        assert "not fresh" in str(error_of(run("confirm", "--good", tmp_path / "again"))), shown


def test_pictures_of_thresholds_before_are_not_fresh(
    tmp_path: Path, run: Run, station: StationFolder, write_grey: Callable[[Path, int], None]
) -> None:
    """Who has seen how they score can choose the next thresholds so that they pass."""
    for k in range(30):
        write_grey(tmp_path / ("good" if k < 25 else "fresh") / f"{k}.png", 5 + k)
    assert run("fit", "--good", tmp_path / "good").exit_code == 0
    assert run("confirm", "--good", tmp_path / "fresh").exit_code == 0
    assert run("fit", "--good", tmp_path / "good").exit_code == 0
    assert "not fresh" in str(error_of(run("confirm", "--good", tmp_path / "fresh")))
    assert newest(station).rev == 3


def test_the_record_keeps_the_score_of_every_fresh_picture(
    run: Run, station: StationFolder, tmp_path: Path, write_grey: Callable[[Path, int], None]
) -> None:
    """Cameras count from 1 again each day."""
    for k in range(10):
        write_grey(tmp_path / "good" / f"{k}.png", 10 + k)
        for day in range(3):
            write_grey(tmp_path / f"day{day}" / f"{k}.png", 30 + 10 * day + k)
    run("fit", "--good", tmp_path / "good")
    for day in range(3):
        assert run("confirm", "--good", tmp_path / f"day{day}").exit_code == 0
    fresh = newest(station).fresh
    assert fresh is not None
    assert fresh.parts == len(fresh.scores) == 30
    assert sorted(fresh.scores.values()) == list(range(30, 60))


def test_pictures_of_one_part_count_once(
    run: Run, station: StationFolder, fitted: object, tmp_path: Path
) -> None:
    path = tmp_path / "fresh.csv"
    rows = ("a,0.5,good,first", "b,1.5,good,first", "c,1.5,good,first", "d,0.5,good,second")
    path.write_text("\n".join(["name,score,label,group", *rows]))
    run("confirm", "--scores", path)
    fresh = newest(station).fresh
    assert fresh is not None
    assert (fresh.parts, fresh.stopped) == (2, 1)
    assert newest(station).false_calls == false_call_bound(1, 52)


def test_a_record_pins_the_newest_answers_that_it_rests_on(station: StationFolder, fitted: object) -> None:
    basis = Basis(newest(station).bundle_sha256, "int8", "page", "fresh parts")
    first, second = (Answers(upto=upto, sha256="ab" * 32) for upto in (1, 2))
    for name, answers, pinned in (("a", first, first), ("b", None, first), ("c", second, second)):
        scores = ScoreSet((PictureScore(name, 0.5, name),))
        assert record_confirm(station, scores, basis, answers=answers).answers == pinned


def test_scores_of_another_model_prove_nothing(run: Run, scores: Scores, fitted: object) -> None:
    error = error_of(run("confirm", "--scores", scores("fresh", [0.5]), "--precision", "fp32"))
    assert "for the int8 model, the scores of the fp32 model" in error.what


@pytest.mark.parametrize("model", ["int8", "fp32"])
def test_fresh_pictures_are_scored_by_the_calibrated_model(
    run: Run, station: StationFolder, tmp_path: Path, write_grey: Callable[[Path, int], None], model: str
) -> None:
    """And not by the one that happens to be the fastest now."""
    for k in range(10):
        write_grey(tmp_path / ("fresh" if k > 7 else "good") / f"{k}.png", 10 + k)
    run("fit", "--good", tmp_path / "good", "--precision", model)
    assert run("confirm", "--good", tmp_path / "fresh").exit_code == 0
    assert newest(station).precision == model


def test_nothing_to_confirm(run: Run, scores: Scores, fitted: object, make_bundle: Callable[..., Path]) -> None:
    assert "no good part" in str(error_of(run("confirm", "--scores", scores("none", []))))
    other = run("confirm", "--bundle", make_bundle("2"), "--scores", scores("fresh", [0.5]))
    assert "never been calibrated" in str(error_of(other))


@pytest.mark.parametrize(("master", "stopped"), [(0.95, 2), (0.97, 1)])
def test_where_a_master_placed_t1_only_fresh_parts_count(
    run: Run, scores: Scores, station: StationFolder, master: float, stopped: int
) -> None:
    result = run("fit", "--scores", scores("first", [k / 50 for k in range(50)], [master]))
    assert newest(station).false_calls == false_call_bound(stopped, 50)
    assert "299 more good parts, fresh ones alone, none of them stopped, would prove 10" in result.stderr
    run("confirm", "--scores", scores("fresh", [0.5] * 299))
    assert (newest(station).state, newest(station).false_calls) == ("CONFIRMED", false_call_bound(0, 299))


def place(run: Run, t1: object, t2: object, *more: object) -> Result:
    return run("set", "--t1", t1, "--t2", t2, "--why", "fewer stops", "--by", "Aiko", *more)


def test_placed_by_hand_has_no_bound_until_fresh_parts_prove_it(
    run: Run, scores: Scores, station: StationFolder, fitted: object
) -> None:
    result = place(run, 0.8, 1.9, "--json")
    record = newest(station)
    assert (record.rev, record.t1, record.t2, record.rank, record.state) == (2, 0.8, 1.9, 0, "TRIAL")
    assert record.false_calls is None
    assert "false calls: NOT PROVED" in result.stderr
    assert "no bound of false calls until fresh parts prove one" in result.stderr
    assert json.loads(result.stdout)["more_good_parts_for_10_per_1000"] == 299
    # The bound of the masters holds: a lower T1 lets no more of them pass.
    assert record.caught is not None
    run("confirm", "--scores", scores("fresh", [0.5] * 298))
    assert newest(station).state == "TRIAL"
    place(run, 0.8, 1.9)
    run("confirm", "--scores", scores("more", [0.5] * 299))
    assert (newest(station).state, newest(station).false_calls) == ("CONFIRMED", false_call_bound(0, 299))


def test_above_the_fitted_t1_its_bound_holds_but_does_not_count_with_fresh_parts(
    run: Run, scores: Scores, station: StationFolder, fitted: CalibrationRecord
) -> None:
    place(run, fitted.t1, 1.9)
    assert newest(station).false_calls == false_call_bound(0, 50)
    place(run, fitted.t1 - 1e-5, 1.9)
    assert newest(station).false_calls is None
    place(run, 1.5, 1.9)
    assert newest(station).false_calls == false_call_bound(0, 50)
    run("confirm", "--scores", scores("fresh", [0.5] * 249))
    assert (newest(station).state, newest(station).false_calls) == ("TRIAL", false_call_bound(0, 249))


def test_limits_that_are_given_as_they_are_shown_stay(run: Run, scores: Scores, station: StationFolder) -> None:
    run("fit", "--scores", scores("first", [0.123456249 * k / 49 for k in range(50)], [2.123456249]))
    fitted = newest(station)
    shown = [f"{limit:.6g}" for limit in (fitted.t1, fitted.t2)]
    assert float(shown[0]) < fitted.t1
    place(run, shown[0], shown[1])
    assert (newest(station).t1, newest(station).t2) == (fitted.t1, fitted.t2)
    assert newest(station).false_calls == fitted.false_calls is not None


@pytest.mark.parametrize(
    ("shown", "fresh", "counts"),
    [
        (Origin(lots=0, minutes=5), Origin(lots=0, minutes=9), Origin(lots=0, minutes=9)),
        (Origin(lots=1, minutes=5), Origin(lots=0, minutes=600), Origin(lots=1, minutes=600)),
        (Origin(lots=2, minutes=5), Origin(lots=1, minutes=3), Origin(lots=2, minutes=5)),
        (Origin(lots=2, minutes=5), None, None),
    ],
)
def test_what_fresh_parts_prove_holds_for_parts_like_all_that_count(
    station: StationFolder, shown: Origin, fresh: Origin | None, counts: Origin | None
) -> None:
    basis = Basis(station.active.resolve().name, "int8", "Aiko", "test")
    first = tuple(PictureScore(f"g{k}", k / 50, f"g{k}") for k in range(50))
    later = tuple(PictureScore(f"f{k}", 0.5, f"f{k}") for k in range(249))
    with calibration_lock(station):
        record_fit(station, ScoreSet(first, origin=shown), basis)
        record = record_confirm(station, ScoreSet(later, origin=fresh), basis)
    assert (record.state, record.origin) == ("CONFIRMED", counts)
    said = any("at each showing the good parts" in warning for warning in warnings_about(record))
    assert said == (counts is not None and is_narrow(counts))


def test_where_fresh_parts_count_alone_it_holds_for_parts_like_them(station: StationFolder) -> None:
    basis = Basis(station.active.resolve().name, "int8", "Aiko", "test")
    first = tuple(PictureScore(f"g{k}", k / 50, f"g{k}") for k in range(50))
    for minutes in (4, 3):
        later = tuple(PictureScore(f"{minutes} {k}", 0.5, f"{minutes} {k}") for k in range(299))
        with calibration_lock(station):
            if minutes == 4:
                fitted = record_fit(station, ScoreSet(first, origin=Origin(lots=9, minutes=900)), basis)
                placed = Placement(0.9, fitted.t2, looks=2, by="Aiko", why="closer")
                record_placed(open_book(station), basis.bundle_sha256, placed)
            origin = Origin(lots=0, minutes=minutes)
            record = record_confirm(station, ScoreSet(later, origin=origin), basis)
        assert record.origin == Origin(lots=0, minutes=4)


def test_what_is_proved_by_hand_already_is_not_said_to_be_still_to_prove(
    run: Run, scores: Scores, station: StationFolder, fitted: CalibrationRecord
) -> None:
    run("confirm", "--scores", scores("fresh", [0.5] * 250))
    result = place(run, fitted.t1, 1.9, "--json")
    record = newest(station)
    assert (record.state, record.false_calls) == ("TRIAL", false_call_bound(0, 300))
    assert "95 % certain not more than 10.0 per 1,000" in result.stderr
    assert "would prove" not in result.stderr
    assert "299 fresh good parts, none of them stopped, would make it CONFIRMED" in result.stderr
    assert json.loads(result.stdout)["more_good_parts_for_10_per_1000"] == 0


def test_planned_looks_share_the_five_percent(
    run: Run, scores: Scores, station: StationFolder, fitted: object
) -> None:
    place(run, 0.9, 1.9, "--looks", 2)
    result = run("confirm", "--scores", scores("one", [0.5] * 299))
    assert "69 more good parts, none of them stopped" in result.stderr
    assert newest(station).false_calls == false_call_bound(0, 299, confidence=0.975)
    assert newest(station).state == "TRIAL"
    result = run("confirm", "--scores", scores("two", [0.5] * 66))
    assert "the planned looks at fresh parts are taken" in result.stderr
    error = error_of(run("confirm", "--scores", scores("three", [0.5] * 3)))
    assert isinstance(error, CalibrationError)
    assert "2 planned looks" in error.what
    assert newest(station).rev == 4


def test_no_master_passes(run: Run, station: StationFolder, fitted: object) -> None:
    error = error_of(place(run, math.nextafter(2.0, 3), 3.0))
    assert (error.where, "1 known bad parts would pass" in error.what) == ("m0", True)
    assert newest(station).rev == 1
    assert place(run, 2.0, 3.0).exit_code == 0


@pytest.mark.parametrize(("t1", "t2"), [(1.0, 0.5), (math.nan, 1.0), (0.5, math.nan), (0.5, math.inf)])
def test_no_thresholds(run: Run, fitted: object, t1: float, t2: float) -> None:
    assert isinstance(error_of(place(run, t1, t2)), ConfigError)


def test_without_a_reason_or_a_calibration_nothing_is_placed(run: Run, station: StationFolder) -> None:
    assert run("set", "--t1", 0.5, "--t2", 1).exit_code == 2
    assert error_of(run("set", "--t1", 0.5, "--t2", 1, "--why", " ")).what == "the reason is missing"
    assert "never been calibrated" in str(error_of(place(run, 0.5, 1.0)))


COSTS = ["--false-call", 3, "--escape", 1000, "--review", 1, "--defect-rate", 0.01]


def test_cost_of_a_position(run: Run, scores: Scores, station: StationFolder) -> None:
    """One of ten good parts lies above the weak master: 0.99 x 0.1 and 0.01 x 0.5 reviews at 1, or 0.01 x 0.5
    escapes at 1000.
    """
    run("fit", "--scores", scores("first", [k / 10 for k in range(10)], [0.85, 3.0]))
    result = run("cost", *COSTS, "--json")
    found = json.loads(result.stdout)
    assert found["now"] == {"t1": 0.85, "cost": pytest.approx(104)}
    assert found["least"] == {"t1": math.nextafter(0.8, 1), "cost": pytest.approx(104)}
    assert {p["t1"]: p["cost"] for p in found["curve"]}[math.nextafter(0.9, 1)] == pytest.approx(5000)
    assert "proves nothing" in result.stderr
    cheap = json.loads(run("cost", *COSTS[:2], "--escape", 10, *COSTS[4:], "--json").stdout)
    assert (cheap["least"]["t1"], cheap["least"]["cost"]) == (math.nextafter(0.9, 1), pytest.approx(50))
    assert cheap["escape_doubled"]["cost"] == pytest.approx(100)
    assert cheap["escape_halved"]["cost"] == pytest.approx(25)


def test_cost_where_half_of_the_parts_are_bad(run: Run, scores: Scores, station: StationFolder) -> None:
    """500 good parts of 1,000, of which one in ten is reviewed and one in ten is NG; 500 bad, half reviewed."""
    run("fit", "--rank", 2, "--scores", scores("first", [k / 10 for k in range(10)], [0.75, 3.0]))
    costs = ["--false-call", 3, "--escape", 1000, "--review", 1, "--defect-rate", 0.5]
    found = json.loads(run("cost", *costs, "--json").stdout)
    assert (newest(station).t1, newest(station).t2) == (0.75, math.nextafter(0.8, 1))
    assert found["now"]["cost"] == pytest.approx(50 * 3 + 50 * 1 + 250 * 1)


def test_cost_is_of_pictures_where_a_part_has_several(run: Run, scores: Scores, tmp_path: Path) -> None:
    path = tmp_path / "several.csv"
    rows = [[f"g{k}", k / 10, "good", f"part{k // 2}"] for k in range(10)] + [["m", 2, "master", "m"]]
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([["name", "score", "label", "group"], *rows])
    run("fit", "--scores", path)
    said = run("cost", *COSTS).stderr
    assert "now, T1 = 0.9: 0 per 1,000 pictures" in said
    assert "this counts pictures, of which a part has several" in said


def test_cost_needs_masters(run: Run, scores: Scores) -> None:
    run("fit", "--scores", scores("first", [k / 10 for k in range(10)]))
    assert isinstance(error_of(run("cost", *COSTS)), DataError)


def test_records_from_before_confirmation_still_verify(
    run: Run, scores: Scores, station: StationFolder, fitted: object
) -> None:
    """Their signed text lacks the fields that came later."""
    line = json.loads(station.records.read_bytes())
    assert line["record"].keys().isdisjoint({"rank", "looks", "origin", "fresh", "shown_sha256", "quality"})
    assert newest(station).rank == 1
    place(run, 0.9, 1.9)
    assert {"rank"} < json.loads(station.records.read_bytes().splitlines()[1])["record"].keys()
    assert newest(station).rank == 0


def test_what_fresh_parts_have_shown_is_not_forgotten_by_placing_anew(
    run: Run, scores: Scores, station: StationFolder, fitted: CalibrationRecord
) -> None:
    run("confirm", "--scores", scores("fresh", [0.5] * 60 + [1.5] * 40))
    assert newest(station).false_calls == false_call_bound(40, 150)
    place(run, fitted.t1, 1.9)
    assert newest(station).false_calls == false_call_bound(40, 150)
    place(run, 0.9, 1.9)
    assert newest(station).false_calls is None


def test_no_more_parts_are_asked_for_where_no_look_is_left(
    run: Run, scores: Scores, station: StationFolder, fitted: object
) -> None:
    place(run, 0.9, 1.9)
    result = run("confirm", "--scores", scores("fresh", [0.5] * 100), "--json")
    assert "would prove" not in result.stderr
    assert "the planned looks at fresh parts are taken" in result.stderr
    assert json.loads(result.stdout)["more_good_parts_for_10_per_1000"] is None


def test_a_fit_above_the_good_parts_may_be_looked_at_after_a_false_call(
    run: Run, scores: Scores, station: StationFolder, fitted: object
) -> None:
    """Its looks are not counted, though as many parts were stopped as where fresh ones count alone."""
    run("confirm", "--scores", scores("one", [0.5] * 99 + [1.5]))
    result = run("confirm", "--scores", scores("two", [0.5] * 100), "--json")
    assert json.loads(result.stdout)["more_good_parts_for_10_per_1000"] == 473 - 250


def test_masters_that_a_hand_put_into_review_are_called_that(
    run: Run, scores: Scores, station: StationFolder, fitted: object
) -> None:
    result = place(run, 1.5, 2.7)
    assert "masters that would be REVIEW and not NG: 2 (m0, m1)" in result.stderr
    assert "no higher than good parts" not in result.stderr


def test_where_a_master_forbids_a_position_the_one_that_is_named_may_be_taken(
    run: Run, scores: Scores, station: StationFolder
) -> None:
    run("fit", "--scores", scores("first", [k / 50 for k in range(50)], [1.23456789876]))
    error = error_of(place(run, 1.3, 1.4))
    named = error.cure.split()[3]
    assert place(run, float(named), 1.4).exit_code == 0
    assert newest(station).t1 == float(named)


def test_the_audit_knows_a_record_that_was_cut_off(run: Run, station: StationFolder, fitted: object) -> None:
    """Without the last line the thresholds before it are in force again, and the file itself cannot show it."""
    place(run, 1.5, 2.7)
    public = SecretKey.load(station.key).public
    assert audit.verify(station, public).notes == ()
    station.records.write_bytes(station.records.read_bytes().splitlines(keepends=True)[0])
    (note,) = audit.verify(station, public).notes
    assert note.startswith("calibration record 2 stands in the audit, but the file of records ends with 1")
    place(run, 1.6, 2.7)  # takes the number of the one that is gone
    place(run, 1.7, 2.7)
    (note,) = audit.verify(station, public).notes
    assert note.startswith("calibration record 2 of row 2 was made anew in row 3: it was cut off")
