"""`kenpin calibrate` on real pictures, a real model and a real station folder."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result

from kenpin import audit
from kenpin.book import calibration_lock
from kenpin.calibration.cli import calibrate
from kenpin.calibration.fit import left_above
from kenpin.calibration.threshold import false_call_bound
from kenpin.edge_runtime.vitals import Vitals, write_vitals
from kenpin.errors import CalibrationError, ConfigError, DataError, KenpinError, StoreError
from kenpin.picture_files import sha256_of
from kenpin.quality_limits import light_limits
from kenpin.record import CalibrationRecord, load_records
from kenpin.signing import SecretKey
from kenpin.station_folder import StationFolder

Fit = Callable[..., Result]
WriteGrey = Callable[[Path, int], None]


@pytest.fixture
def pictures(tmp_path: Path, write_grey: WriteGrey) -> tuple[Path, Path]:
    """Fifty good parts of three hours with scores 10 to 59, twelve masters with 100 to 111."""
    for k in range(50):
        write_grey(tmp_path / "good" / f"{k:02}.png", 10 + k)
        os.utime(tmp_path / "good" / f"{k:02}.png", (220 * k, 220 * k))
    for k in range(12):
        write_grey(tmp_path / "masters" / f"{k:02}.png", 100 + k)
    return tmp_path / "good", tmp_path / "masters"


@pytest.fixture
def fit(station: StationFolder, trusted: Path) -> Fit:
    def run(*arguments: object) -> Result:
        fixed = ["fit", "--state", station.root, "--trust", trusted, "--by", "Aiko", *arguments]
        return CliRunner().invoke(calibrate, [str(a) for a in fixed])

    return run


def records_of(station: StationFolder) -> list[CalibrationRecord]:
    return load_records(station.records, SecretKey.load(station.key).public)


def write_scores(path: Path, rows: Sequence[Sequence[object]], *, columns: str = "name,score,label") -> Path:
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([columns.split(","), *rows])
    return path


def good_rows(count: int) -> list[list[object]]:
    return [[f"g{k}", 1 + k / 100, "good"] for k in range(count)]


def error_of(result: Result) -> KenpinError:
    assert isinstance(result.exception, KenpinError), result.output
    return result.exception


def test_separated(fit: Fit, station: StationFolder, pictures: tuple[Path, Path]) -> None:
    good, masters = pictures
    result = fit("--good", good, "--masters", masters, "--why", "new lamp", "--json")
    assert result.exit_code == 0, result.output
    assert "0 of 50 good parts stopped: 95 % certain not more than 58.2 per 1,000" in result.stderr
    assert "12 of 12 masters stopped: 95 % certain at least 77.9 % of parts like these" in result.stderr
    assert "249 more good parts, none of them stopped, would prove 10 per 1,000" in result.stderr
    (record,) = records_of(station)
    assert (record.t1, record.t2) == (math.nextafter(59.0, math.inf), 100.0)
    assert (record.rev, record.by, record.why, record.state) == (1, "Aiko", "new lamp", "TRIAL")
    assert record.bundle_sha256 == station.active.resolve().name
    assert (record.good["07.png"], record.good_parts) == (17.0, 0)
    assert record.good_levels is not None
    assert record.good_levels.keys() == record.good.keys()
    assert max(record.good_levels["07.png"]) == 17.0
    document = json.loads(result.stdout)
    assert document["in_force"] is True
    (warning,) = document["warnings"]  # these good pictures are grey from 10 to 59
    assert "half or double the light is not noticed" in warning
    assert document["more_good_parts_for_10_per_1000"] == 249
    assert document["record"]["t1"] == record.t1


@pytest.mark.parametrize("model", ["int8", "fp32"])
def test_who_fits_again_stays_with_the_model_that_the_station_runs(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path], model: str
) -> None:
    """The faster one is another by chance: the line would wait for it, and what was left out be forgotten."""
    good, masters = pictures
    fit("--good", good, "--masters", masters, "--precision", model)
    fit("--good", good, "--masters", masters)
    assert [record.precision for record in records_of(station)] == [model, model]


@pytest.mark.parametrize(
    ("gone", "to", "stopped"),
    [
        (["49.png"], "", 1),
        (["49.png", "48.png", "03.png"], "", 2),
        (["03.png"], "", 0),  # T1 stands where it stood
        (["49.png"], "masters/later.png", 0),  # it is bad, and counts as that
        (["49.png"], "good/other.png", 0),  # it has another name
    ],
)
def test_who_takes_the_highest_out_of_the_folder_proves_nothing(
    fit: Fit, pictures: tuple[Path, Path], gone: list[str], to: str, stopped: int
) -> None:
    good, masters = pictures
    shown = ("--good", good, "--masters", masters, "--precision", "int8")
    assert fit(*shown).exit_code == 0
    for name in gone:
        (good / name).rename(good.parent / (to or f"{name}.gone"))
    said = fit(*shown).stderr
    told = f"left out of the parts shown as good, although T1 stops them: {stopped}"
    assert ("false calls: NOT PROVED" in said, told in said) == (bool(stopped), bool(stopped))


def test_a_picture_with_another_name_is_not_left_out_where_others_are(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    good, masters = pictures
    shown = ("--good", good, "--masters", masters, "--precision", "int8", "--rank", 2)  # T1 stops 49.png
    fit(*shown)
    (good / "49.png").rename(good / "other.png")
    (good / "03.png").unlink()
    fit(*shown)
    assert [record.false_calls is not None for record in records_of(station)] == [True, True]


def test_what_another_model_said_of_a_part_that_is_gone_is_not_compared(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    good, masters = pictures
    fit("--good", good, "--masters", masters, "--precision", "fp32")
    (good / "49.png").unlink()
    fit("--good", good, "--masters", masters, "--precision", "int8")
    assert [record.false_calls is not None for record in records_of(station)] == [True, True]


def test_a_part_that_was_left_out_and_scores_exactly_t1_would_be_stopped() -> None:
    assert left_above({"a": 1.0, "b": 2.0, "c": 3.0}, 2.0) == 2


def test_parts_of_another_folder_were_not_left_out(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path], write_grey: WriteGrey
) -> None:
    good, masters = pictures
    fit("--good", good, "--masters", masters, "--precision", "int8")
    for k in range(50):
        write_grey(good.parent / "new" / f"n{k}.png", 5 + k)
        with (good.parent / "new" / f"n{k}.png").open("ab") as picture:
            picture.write(b" ")  # no copy
    fit("--good", good.parent / "new", "--masters", masters, "--precision", "int8")
    assert [record.false_calls is not None for record in records_of(station)] == [True, True]


def test_what_a_running_station_says_of_its_cameras_is_signed(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    station.run.mkdir(parents=True)
    says = {"cameras": json.dumps({"aravis-1": {"exposure_us": 4000.0, "trigger": "line1"}})}
    told = Vitals(role="station", pid=1, texts=says)
    write_vitals(station.run, told)
    assert fit("--good", pictures[0]).exit_code == 0
    write_vitals(station.run, told.model_copy(update={"state": "STOPPED"}))
    assert fit("--good", pictures[0]).exit_code == 0
    running, stopped = records_of(station)
    assert running.cameras == {"aravis-1": {"exposure_us": 4000.0, "trigger": "line1"}}
    assert stopped.cameras == {}


@pytest.mark.parametrize(("darkest", "is_warned"), [(100, False), (30, True)])
def test_good_pictures_of_two_lights_are_warned_of(
    fit: Fit, tmp_path: Path, write_grey: WriteGrey, *, darkest: int, is_warned: bool
) -> None:
    for k in range(50):
        write_grey(tmp_path / "two" / f"{k}.png", (darkest if k % 2 else 100) + k)
    result = fit("--good", tmp_path / "two")
    assert result.exit_code == 0, result.output
    assert ("half or double the light is not noticed" in result.stderr) is is_warned


def test_good_pictures_of_several_sizes_are_warned_of(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    warning = "neither a frame of a wrong size nor a part out of its place is noticed"
    assert warning not in fit("--good", pictures[0]).stderr
    first = pictures[0] / "00.png"
    cv2.imwrite(str(first), cv2.resize(cv2.imread(str(first)), (64, 48)))
    assert warning in fit("--good", pictures[0]).stderr
    quality = records_of(station)[-1].quality
    assert (quality is not None and quality.size) is None


def test_without_masters(fit: Fit, station: StationFolder, pictures: tuple[Path, Path]) -> None:
    result = fit("--good", pictures[0])
    (record,) = records_of(station)
    assert record.t1 == record.t2 == math.nextafter(59.0, math.inf)
    assert record.caught is None
    assert "no masters: nothing is known" in result.stderr


def test_overlap(fit: Fit, station: StationFolder, pictures: tuple[Path, Path], write_grey: WriteGrey) -> None:
    write_grey(pictures[1] / "weak.bmp", 58)
    result = fit("--good", pictures[0], "--masters", pictures[1])
    (record,) = records_of(station)
    assert (record.t1, record.t2) == (58.0, math.nextafter(59.0, math.inf))
    assert "2 of 50 good parts stopped: 95 % certain not more than 120.7 per 1,000" in result.stderr
    assert "good pictures that would be stopped: 2 (49.png, 48.png); are they good?" in result.stderr
    assert "masters that score no higher than good parts: 1 (weak.bmp)" in result.stderr


def test_where_most_good_parts_are_stopped_no_further_ones_are_asked_for(
    fit: Fit, pictures: tuple[Path, Path], write_grey: WriteGrey
) -> None:
    good, masters = pictures
    write_grey(masters / "faint.png", 5)
    result = fit("--good", good, "--masters", masters)
    assert "50 of 50 good parts stopped" in result.stderr
    assert "would prove" not in result.stderr
    assert "faint.png" in result.stderr


@pytest.mark.parametrize("folder", ["good", "test/good"])
def test_parts_count_not_pictures(
    fit: Fit, station: StationFolder, tmp_path: Path, *, folder: str, write_grey: WriteGrey
) -> None:
    """Sixty pictures of thirty parts prove what thirty parts prove; the manifest may lie above the folder."""
    data = tmp_path / "data"
    rows = []
    for k in range(60):
        write_grey(data / folder / f"{k:02}.png", 10 + k)
        rows.append([f"{folder}/{k:02}.png", f"part{k // 2}"])
    write_scores(data / "manifest.csv", rows, columns="file,group")
    write_grey(tmp_path / "masters" / "weak.bmp", 66)
    result = fit("--good", data / folder, "--masters", tmp_path / "masters")
    (record,) = records_of(station)
    # Scores 66 to 69 are stopped: four pictures, two parts.
    assert (record.false_calls.seen, record.false_calls.of, record.good_parts) == (2, 30, 30)
    assert "60 pictures show 30 good parts; pictures of one part are not independent" in result.stderr
    assert record.quality is not None
    assert record.quality.light == pytest.approx(light_limits([10 + k for k in range(60)], parts=30))
    assert "only 30 good parts; show at least 50" in result.stderr


@pytest.mark.parametrize(
    ("lots", "says"),
    [
        ("", "parts were taken within 1 min"),
        ("A", "parts are of 1 lot and were taken within 1 min"),
        ("AB", ""),
        (" A", "parts were taken within 1 min"),
    ],
)
def test_parts_of_one_lot_or_one_time_are_warned_of(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path], *, lots: str, says: str
) -> None:
    """A lot that is not named for every part is not known."""
    good, masters = pictures
    for k in range(50):
        os.utime(good / f"{k:02}.png", (k, k))
    if lots:
        (good / "00.png").rename(good / "Pru\u0308fling.png")  # the same ü as macOS writes it
        names = ["Pr\xfcfling.png", *(f"{k:02}.png" for k in range(1, 50))]
        rows = [[names[k], f"part{k}", lots[k % len(lots)].strip()] for k in range(50)]
        write_scores(good / "manifest.csv", rows, columns="file,group,lot")
    result = fit("--good", good, "--masters", masters, "--json")
    warnings = [w for w in json.loads(result.stdout)["warnings"] if "light" not in w]
    assert [says in w for w in warnings] == ([True] if says else [])
    (record,) = records_of(station)
    assert record.origin is not None
    assert record.origin.lots == (0 if " " in lots else len(lots))


def test_a_copy_of_a_picture_is_no_further_part(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    (pictures[0] / "copy.png").write_bytes((pictures[0] / "05.png").read_bytes())
    fit("--good", pictures[0])
    (record,) = records_of(station)
    assert record.false_calls is not None
    assert (record.false_calls.of, len(record.good), len(record.shown_sha256)) == (50, 51, 50)


def test_a_copy_joins_all_pictures_of_its_part(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    good = pictures[0]
    (good / "copy.png").write_bytes((good / "05.png").read_bytes())
    rows = [["05.png", "a"], ["06.png", "a"], ["copy.png", "b"], ["07.png", "b"]]
    write_scores(good / "manifest.csv", rows, columns="file,group")
    fit("--good", good)
    (record,) = records_of(station)
    assert record.false_calls is not None
    assert record.false_calls.of == 48


def test_a_rank_fixed_beforehand(fit: Fit, station: StationFolder, tmp_path: Path) -> None:
    """The three highest of sixty parts need not be cleared; a part counts by its worst picture."""
    rows = [[f"g{k}{view}", k - view, "good", f"part{k}"] for k in range(60) for view in (0, 1)]
    path = write_scores(tmp_path / "scores.csv", rows, columns="name,score,label,group")
    assert fit("--scores", path, "--precision", "int8", "--rank", 4).exit_code == 0
    (record,) = records_of(station)
    assert (record.rank, record.t1) == (4, math.nextafter(56.0, math.inf))
    assert record.false_calls == false_call_bound(3, 60)
    assert isinstance(error_of(fit("--scores", path, "--precision", "int8", "--rank", 61)), ConfigError)


def test_equal_scores_prove_no_more_than_their_rank(fit: Fit, station: StationFolder, tmp_path: Path) -> None:
    rows = [[f"g{k}", 1, "good"] for k in range(50)]
    fit("--scores", write_scores(tmp_path / "scores.csv", rows), "--precision", "int8", "--rank", 3)
    (record,) = records_of(station)
    assert record.false_calls == false_call_bound(2, 50)


def test_a_record_that_no_running_station_bound_to_its_cameras_says_so(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    assert "the record holds for any exposure" in fit("--good", pictures[0]).stderr
    station.run.mkdir()
    cameras = {"usb0": {"exposure_us": 900.0}}
    write_vitals(station.run, Vitals(role="station", pid=1, texts={"cameras": json.dumps(cameras)}))
    assert "any exposure" not in fit("--good", pictures[0]).stderr
    write_vitals(station.run, Vitals(role="station", pid=1, texts={"cameras": "{}"}))  # as of drawn parts
    assert "any exposure" not in fit("--good", pictures[0]).stderr
    assert [record.cameras for record in records_of(station)] == [{}, cameras, {}]


def test_a_record_that_is_signed_while_a_camera_is_away_says_that_it_holds_for_any_setting_of_it(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    station.run.mkdir()
    cameras = {"cameras": json.dumps({"usb0": {"exposure_us": 900.0}})}
    write_vitals(station.run, Vitals(role="station", pid=1, texts=cameras))
    for number, is_up in enumerate((False, False)):  # the settings of the first are known from before
        up = {f'camera_up{{camera="usb{number}"}}': float(is_up), "other": 1.0}
        write_vitals(station.run, Vitals(role=f"capture-{number}", pid=1, numbers=up))
    told = fit("--good", pictures[0]).stderr
    assert "usb1 does not answer" in told
    assert "usb0" not in told
    back = {'camera_up{camera="usb1"}': 1.0}
    write_vitals(station.run, Vitals(role="capture-1", pid=1, numbers=back))
    assert "does not answer" not in fit("--good", pictures[0]).stderr


def test_a_reason_in_bytes_that_are_no_text_is_signed_without_them(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    result = fit("--good", pictures[0], "--why", os.fsdecode(b"gr\xf6sser"))
    assert result.exit_code == 0, result.output
    (record,) = records_of(station)
    assert record.why == "gr sser"


def test_every_record_stands_in_the_audit(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    fit("--good", pictures[0], "--why", "new lamp")
    fit("--good", pictures[0], "--masters", pictures[1])
    first, second = audit.read_audit(station, SecretKey.load(station.key).public)
    assert (first["what"], first["by"], first["old"], first["why"]) == ("thresholds", "Aiko", "", "new lamp")
    assert first["new"].startswith("record 1, TRIAL, bundle ")
    assert second["old"] == first["new"]


def test_no_record_without_the_audit(fit: Fit, station: StationFolder, pictures: tuple[Path, Path]) -> None:
    fit("--good", pictures[0])
    audit.audit_file(station).unlink()
    audit.audit_file(station).mkdir()
    assert isinstance(error_of(fit("--good", pictures[0])), StoreError)
    assert len(records_of(station)) == 1


def test_stored_scores(fit: Fit, station: StationFolder, tmp_path: Path) -> None:
    rows = [[*row, ""] for row in good_rows(60)] + [["m", 9, "master", "M-1"], ["n", 8, "master", "M-1"]]
    path = write_scores(tmp_path / "scores.csv", rows, columns="name,score,label,group")
    assert fit("--scores", path, "--precision", "fp32").exit_code == 0
    (record,) = records_of(station)
    assert (record.precision, record.false_calls.of, record.t2) == ("fp32", 60, 8.0)
    assert record.caught is not None
    assert record.caught.of == 1


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "", "high"])
def test_scores_that_are_not_finite_are_refused(
    fit: Fit, station: StationFolder, tmp_path: Path, bad: str
) -> None:
    path = write_scores(tmp_path / "scores.csv", [*good_rows(60), ["x", bad, "good"]])
    error = error_of(fit("--scores", path, "--precision", "int8"))
    assert isinstance(error, DataError)
    assert "line 62" in error.where
    assert not station.records.exists()


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        ([["a", 1, "good"], ["a", 2, "good"]], "name,score,label", "twice"),
        ([["a", 1, "bad"]], "name,score,label", "the label is 'bad'"),
        ([["a", 1]], "name,score", "missing"),
        ([["", 1, "good"]], "name,score,label", "missing"),
        ([["a"]], "name,score,label", "missing"),
        ([], "name,score,label", "too few good parts to set a threshold: 0"),
        (good_rows(4), "name,score,label", "too few good parts to set a threshold: 4"),
        (
            [[*row, "one part"] for row in good_rows(50)],
            "name,score,label,group",
            "too few good parts to set a threshold: 1",
        ),
        ([["m", 1, "master"]], "name,score,label", "too few good parts to set a threshold: 0"),
    ],
)
def test_wrong_lists_are_refused(
    fit: Fit, station: StationFolder, tmp_path: Path, *, rows: list[list[object]], columns: str, says: str
) -> None:
    path = write_scores(tmp_path / "scores.csv", rows, columns=columns)
    assert says in str(error_of(fit("--scores", path, "--precision", "int8")))
    assert not station.records.exists()


def test_list_that_is_not_text(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert "CSV" in str(error_of(fit("--scores", tmp_path / "scores.csv", "--precision", "int8")))
    assert "cannot read" in str(error_of(fit("--scores", tmp_path / "none.csv", "--precision", "int8")))


def test_unreadable_picture_refuses_the_whole_fit(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    (pictures[0] / "31.png").write_bytes(b"no picture")
    error = error_of(fit("--good", pictures[0]))
    assert "31.png" in error.where
    assert not station.records.exists()


@pytest.mark.parametrize(
    "options", [[], ["--masters", "x"], ["--good", "x", "--scores", "y"], ["--scores", "y"]]
)
def test_options_that_contradict(fit: Fit, options: list[str]) -> None:
    assert isinstance(error_of(fit(*options)), ConfigError)


def test_same_picture_as_good_and_master(fit: Fit, pictures: tuple[Path, Path]) -> None:
    shutil.copy(pictures[0] / "05.png", pictures[1] / "copy.png")
    assert "as good and as master" in str(error_of(fit("--good", pictures[0], "--masters", pictures[1])))


@pytest.mark.parametrize("taught", [0, 1])
def test_pictures_that_were_learned_from_prove_nothing(
    fit: Fit,
    station: StationFolder,
    pictures: tuple[Path, Path],
    make_bundle: Callable[..., Path],
    taught: int,
) -> None:
    """Neither good ones nor, with --teach, masters."""
    good, masters = pictures
    known = sorted(pictures[taught].iterdir())[3]
    bundle = make_bundle("2", learned_from=(sha256_of(known),))
    error = error_of(fit("--bundle", bundle, "--good", good, "--masters", masters))
    assert "trained on 1 of these" in error.what
    assert error.where == str(known)
    assert not station.records.exists()


@pytest.mark.parametrize(("known", "warns"), [(26, True), (1, False)])
def test_good_parts_of_another_product_are_warned_of(
    fit: Fit, pictures: tuple[Path, Path], make_bundle: Callable[..., Path], known: int, warns: bool
) -> None:
    """Everything that the model knows would pass such a T1."""
    result = fit("--bundle", make_bundle("2", known=known), "--good", pictures[0])
    assert ("they are not like what the model knows" in result.stderr) == warns


def test_records_are_chained_and_shown(fit: Fit, station: StationFolder, pictures: tuple[Path, Path]) -> None:
    fit("--good", pictures[0])
    fit("--good", pictures[0], "--masters", pictures[1])
    assert [r.rev for r in records_of(station)] == [1, 2]
    result = CliRunner().invoke(calibrate, ["show", "--state", str(station.root), "--json"])
    assert json.loads(result.stdout)["record"]["rev"] == 2
    assert "calibration record 2, TRIAL" in result.stderr


def test_altered_records_refuse_a_further_one(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path]
) -> None:
    fit("--good", pictures[0])
    altered = station.records.read_bytes().replace(b'"Aiko"', b'"Eve"')
    station.records.write_bytes(altered)
    assert isinstance(error_of(fit("--good", pictures[0])), CalibrationError)
    assert station.records.read_bytes() == altered


def test_lost_key_is_not_replaced(fit: Fit, station: StationFolder, pictures: tuple[Path, Path]) -> None:
    fit("--good", pictures[0])
    station.key.unlink()
    for gone in (
        "calibration.jsonl",
        "audit.jsonl",
        "station.pub",
    ):  # what the cure says, masters there are none
        error = error_of(fit("--good", pictures[0]))
        assert "key is gone" in str(error)
        assert gone in str(error)
        assert not station.key.exists()
        (station.root / gone).rename(station.root / f"{gone}.before")
    assert fit("--good", pictures[0]).exit_code == 0


def test_folder_that_cannot_be_written(fit: Fit, station: StationFolder, pictures: tuple[Path, Path]) -> None:
    """A folder in the place of the file: what even root cannot write."""
    station.records.mkdir()
    SecretKey.generate().save(station.key)
    error = error_of(fit("--good", pictures[0]))
    assert isinstance(error, CalibrationError)
    assert "cannot be written" in error.what


def test_show_warns_when_another_bundle_is_active(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path], make_bundle: Callable[[str], Path]
) -> None:
    result = fit("--bundle", make_bundle("2"), "--good", pictures[0], "--json")
    assert "NOT CALIBRATED" in result.stderr
    assert json.loads(result.stdout)["in_force"] is False
    shown = CliRunner().invoke(calibrate, ["show", "--state", str(station.root)])
    assert "NOT CALIBRATED" in shown.stderr
    assert shown.stdout == ""


def test_the_record_of_the_active_bundle_is_shown_though_another_one_is_newer(
    fit: Fit, station: StationFolder, pictures: tuple[Path, Path], make_bundle: Callable[[str], Path]
) -> None:
    fit("--good", pictures[0])
    later = fit("--bundle", make_bundle("2"), "--good", pictures[0])
    assert "NOT CALIBRATED" not in later.stderr  # the active one has a record, and goes on
    assert f"kenpin bundle activate {records_of(station)[1].bundle_sha256[:16]}" in later.stderr
    assert [r.rev for r in records_of(station)] == [1, 2]
    shown = CliRunner().invoke(calibrate, ["show", "--state", str(station.root), "--json"])
    assert (json.loads(shown.stdout)["record"]["rev"], json.loads(shown.stdout)["in_force"]) == (1, True)


def test_nothing_installed_and_nothing_to_show(tmp_path: Path, trusted: Path) -> None:
    state = ["--state", str(tmp_path / "empty")]
    shown = CliRunner().invoke(calibrate, ["show", *state])
    assert "never been calibrated" in str(error_of(shown))
    fitted = CliRunner().invoke(calibrate, ["fit", *state, "--trust", str(trusted), "--good", "x"])
    assert "no bundle is installed" in str(error_of(fitted))


def test_two_at_once_do_not_both_append(fit: Fit, station: StationFolder, pictures: tuple[Path, Path]) -> None:
    with calibration_lock(station):
        assert "another calibration" in str(error_of(fit("--good", pictures[0])))
    assert not station.records.exists()
    assert fit("--good", pictures[0]).exit_code == 0


def test_racing_processes_leave_a_whole_chain(
    station: StationFolder, trusted: Path, pictures: tuple[Path, Path]
) -> None:
    command = [sys.executable, "-m", "kenpin", "calibrate", "fit", "--state", station.root, "--trust", trusted]
    command += ["--good", pictures[0], "--by", "Aiko"]
    racers = [subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ) for _ in range(2)]
    errors = [racer.communicate(timeout=300)[1].decode() for racer in racers]
    codes = sorted(racer.returncode for racer in racers)
    assert len(records_of(station)) == codes.count(0) >= 1
    assert codes == [0, 0] or "another calibration of this station is running" in "".join(errors)


@pytest.mark.parametrize(("rank", "warns"), [(1, True), (2, False)])
def test_a_bad_part_shown_as_good_is_named_where_it_lifts_t1(
    fit: Fit, tmp_path: Path, rank: int, *, warns: bool
) -> None:
    rows = [(f"good {n}", 1 + n / 100, "good") for n in range(50)]
    path = write_scores(tmp_path / "scores.csv", [*rows, ("odd", 9.0, "good")])
    result = fit("--scores", path, "--precision", "int8", "--rank", rank)
    told = "1 good picture far above 1.49, which the others reach: odd 9; T1 stands above"
    assert (told in result.stderr) == warns
    assert "far above" not in fit("--scores", write_scores(path, rows), "--precision", "int8").stderr
