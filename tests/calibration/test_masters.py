"""Masters: registered, shown every shift, and what a failed check puts in doubt."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from click.testing import CliRunner, Result

from kenpin import audit, ledger
from kenpin.book import calibration_lock, open_book
from kenpin.bundle import install_bundle, open_bundle
from kenpin.calibrating import begin_calibrating, end_calibrating, read_calibrating
from kenpin.calibration.fit import Basis, record_fit
from kenpin.calibration.masters_book import add_master, make_master
from kenpin.calibration.masters_check import Result as Checked
from kenpin.calibration.masters_check import Seen, Step, Suspect, check_masters, steps, suspects_csv
from kenpin.calibration.masters_cli import masters as masters_command
from kenpin.calibration.masters_hold import PartWatch, held_for_check
from kenpin.calibration.scores import PictureScore, ScoreSet
from kenpin.calibration.web.words import load_words
from kenpin.edge_runtime.database import open_database
from kenpin.edge_runtime.decide import Decision, Model, Verdict
from kenpin.edge_runtime.engine import Scored
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.vitals import Vitals, write_vitals
from kenpin.errors import CalibrationError, ConfigError, DataError, SourceError, StoreError
from kenpin.events import now_ms
from kenpin.hold import Hold
from kenpin.masters import masters_file, read_masters
from kenpin.masters_due import read_demand
from kenpin.placed import Placement, record_placed
from kenpin.signing import PublicKey, SecretKey
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key

HOUR = 3_600_000
T1, T2 = 2.0, 3.0


def run(folder: StationFolder, verb: str, *arguments: object) -> Result:
    fixed = [verb, "--state", folder.root, *(["--by", "Aiko"] if verb != "list" else []), *arguments]
    return CliRunner().invoke(masters_command, [str(a) for a in fixed])


@pytest.fixture
def calibrated(station: StationFolder) -> StationFolder:
    """T1 = 2, T2 = 3 for the active bundle."""
    good = tuple(PictureScore(f"g{k}", k / 50, f"g{k}") for k in range(50))
    bundle = station.installed().name
    with calibration_lock(station):
        record_fit(station, ScoreSet(good), Basis(bundle, "int8", "Aiko", ""))
        record_placed(open_book(station), bundle, Placement(T1, T2, 1, "Aiko", "by test"))
    return station


@pytest.fixture
def two(calibrated: StationFolder, tmp_path: Path, write_grey: Callable[[Path, int], None]) -> StationFolder:
    """M-1 must be NG, M-2 at least REVIEW."""
    for k, expected in ((1, "NG"), (2, "REVIEW")):
        write_grey(tmp_path / f"{k}.png", 100 + k)
        picture = ["--picture", tmp_path / f"{k}.png"]
        assert (
            run(calibrated, "add", f"M-{k}", "--type", "scratch", *picture, "--expected", expected).exit_code
            == 0
        )
    return calibrated


def show(folder: StationFolder, *, start: int = 1, **scores: float | None) -> Checked:
    """Show what is asked for; the scores of M-1, M-2 and of good parts."""
    told = {"m1": 5.0, "m2": 2.5, "good": 1.0, **scores}
    seqs = iter(range(start, start + 100))

    def next_seen(step: Step) -> Seen:
        name = step.master.id.lower().replace("-", "") if step.master else "good"
        return Seen(next(seqs), told[name], folder.installed().name)

    return check_masters(folder, next_seen, by="Aiko")


def judged(folder: StationFolder, *scores: float) -> list[int]:
    """The station has judged parts of these scores."""
    store = Store(folder.database)
    record_of = folder.installed().name
    numbers = []
    for score in scores:
        scored = Scored(score, (score, score, score), np.zeros((1, 1), np.float32))
        decision = Decision(Verdict.NG if score >= T2 else Verdict.REVIEW, scored=scored)
        if read_calibrating(folder) is not None:
            decision = Decision(Verdict.NO_DECISION, "somebody calibrates", scored, "calibrating")
        part = Part(
            f"p{score}", "cam", "s", 7, 0, decision, model=Model("grey-1", record_of, "int8"), frame_id=1
        )
        numbers += store.commit([(part, None)])
    store.close()
    return numbers


def test_a_folder_that_is_not_there_is_no_station_without_masters(tmp_path: Path) -> None:
    listed = run(StationFolder(tmp_path / "typo"), "list")
    assert isinstance(listed.exception, ConfigError)
    assert listed.exception.cure == "give the station's folder: --state DIR"


def test_root_shows_no_master_whose_check_it_could_not_write_down(
    two: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(two.database).close()
    if os.geteuid() == 0:
        os.chown(two.root, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    checked = run(two, "check", "--wait-s", 0.01)
    assert isinstance(checked.exception, ConfigError)
    assert "show" not in checked.stderr
    assert not (two.root / "masters-check.lock").exists()


def test_registered_masters_are_listed_with_their_pictures(two: StationFolder) -> None:
    listed = json.loads(run(two, "list", "--json").stdout)
    assert [(m["id"], m["type"], m["expected"]) for m in listed["masters"]] == [
        ("M-1", "scratch", "NG"),
        ("M-2", "scratch", "REVIEW"),
    ]
    assert (two.root / listed["masters"][0]["picture"]).is_file()
    assert (listed["interval_h"], listed["due"]) == (12.0, "masters were never shown: M-1, M-2")


def test_a_removed_one_is_not_shown_and_its_picture_stays(two: StationFolder) -> None:
    picture = two.root / read_masters(two).registered["M-2"].picture
    assert run(two, "remove", "M-2").exit_code == 2
    assert run(two, "remove", "M-2", "--why", "broken").exit_code == 0
    assert list(read_masters(two).registered) == ["M-1"]
    assert picture.is_file()
    assert isinstance(run(two, "remove", "M-2", "--why", "again").exception, DataError)


def test_every_change_stands_in_the_audit(two: StationFolder) -> None:
    run(two, "remove", "M-2", "--why", "broken")
    run(two, "interval", 8, "--why", "three shifts")
    show(two)
    rows = audit.read_audit(two, SecretKey.load(two.key).public)[2:]
    assert [(row["what"], row["old"], row["new"], row["why"]) for row in rows] == [
        ("masters", "", "M-1, grey, scratch, expected NG", ""),
        ("masters", "", "M-2, grey, scratch, expected REVIEW", ""),
        ("masters", "M-2, grey, scratch, expected REVIEW", "", "broken"),
        ("masters interval", "12 h", "8 h", "three shifts"),
        ("masters check", "", "passed", ""),
    ]


def test_a_master_that_is_replaced_stands_in_the_audit(two: StationFolder, tmp_path: Path) -> None:
    assert run(two, "add", "M-1", "--type", "dent", "--picture", tmp_path / "1.png").exit_code == 0
    row = audit.read_audit(two, SecretKey.load(two.key).public)[-1]
    assert (row["old"], row["new"]) == ("M-1, grey, scratch, expected NG", "M-1, grey, dent, expected NG")


def test_three_times_each_and_a_good_part_after_each(two: StationFolder) -> None:
    shown = [step.master.id if step.master else "" for step in steps(read_masters(two))]
    assert shown == ["M-1", "", "M-1", "", "M-1", "", "M-2", "", "M-2", "", "M-2", ""]


def test_a_passed_check(two: StationFolder) -> None:
    result = show(two)
    assert (result.check.passed, result.suspects) == (True, ())
    assert read_masters(two).last == read_masters(two).last_passed
    assert masters_due(two, now_ms()) == ""


def test_a_bad_part_may_be_judged_harder_than_expected(two: StationFolder) -> None:
    assert show(two, m2=5.0).check.passed


def test_a_master_at_a_threshold_is_judged_as_a_part_of_the_line_is(two: StationFolder) -> None:
    assert show(two, m1=T2, m2=T1).check.passed


@pytest.mark.parametrize(
    "scores",
    [{"m1": 2.5}, {"m1": 1.0}, {"m2": 1.99}, {"good": 2.0}, {"good": 5.0}, {"m1": None}, {"good": None}],
)
def test_a_check_that_fails(two: StationFolder, scores: dict[str, float | None]) -> None:
    judged(two, 5.0)
    assert not show(two, start=2, **scores).check.passed
    assert masters_due(two, now_ms()) == "the last check of the masters failed"
    show(two)
    assert masters_due(two, now_ms()) == ""


def test_no_check_is_passed_with_cameras_that_are_set_otherwise_than_at_the_sign_off(
    two: StationFolder,
) -> None:
    """Set back afterwards, the station would release parts that nobody has shown it a master for."""
    judged(two, 5.0)
    with calibration_lock(two):
        book = open_book(two)
        signed = book.newest(two.installed().name).model_dump(by_alias=True)
        book.append({**signed, "cameras": {"usb0": {"exposure_us": 900.0}}})
    two.run.mkdir(parents=True, exist_ok=True)

    def tell(exposure_us: float) -> None:
        cameras = json.dumps({"usb0": {"exposure_us": exposure_us}})
        write_vitals(two.run, Vitals(role="station", pid=1, texts={"cameras": cameras}))

    tell(4000.0)
    with pytest.raises(CalibrationError, match=r"exposure_us 900\.0 -> 4000\.0"):
        check_masters(two, lambda _step: pytest.fail("nothing is to be shown"), by="Aiko")
    tell(900.0)

    def next_seen(step: Step) -> Seen:
        tell(4000.0)  # in the midst of it
        return Seen(2, score if step.master else 1.0, two.installed().name)

    score = 5.0
    with pytest.raises(CalibrationError, match="set otherwise"):
        check_masters(two, next_seen, by="Aiko")
    assert "never shown" in masters_due(two, now_ms())
    tell(900.0)
    score = 1.0  # what was not seen has failed all the same
    assert not check_masters(two, next_seen, by="Aiko").check.passed
    tell(900.0)
    assert show(two).check.passed


def test_a_score_of_another_bundle_does_not_count(two: StationFolder) -> None:
    judged(two, 5.0)
    result = check_masters(two, lambda step: Seen(2, 5.0 if step.master else 1.0, "b" * 64), by="Aiko")
    assert {s.verdict for s in result.check.showings} == {"NO_DECISION"}


def test_a_failed_check_lists_every_part_since_the_last_good_one(two: StationFolder) -> None:
    """Parts 1 to 4, a passed check with parts 5 to 16, parts 17 to 19, a failed check with 20 to 31."""
    numbers = judged(two, *[2.5] * 32)
    show(two, start=5)
    assert masters_due(two, now_ms()) == ""
    failed = show(two, start=20, m1=1.0)
    assert [s.seq for s in failed.suspects] == [17, 18, 19]
    # A further failed check still reaches back to the passed one.
    assert [s.seq for s in show(two, start=32, m1=1.0).suspects] == [*range(17, 32)]
    assert numbers[-1] == 32


def test_parts_that_have_no_record_any_more_are_in_doubt_too(two: StationFolder) -> None:
    """The database was damaged and begun anew, or parts are older than it keeps them."""
    judged(two, *[2.5] * 32)
    show(two, start=5)
    with closing(sqlite3.connect(two.database)) as connection, connection:
        connection.execute("DELETE FROM part WHERE seq < 18")
    first, *others = show(two, start=20, m1=1.0).suspects
    assert (first.seq, first.part_id, first.verdict) == (17, "17 to 17: no record", "NO_DECISION")
    assert [s.seq for s in others] == [18, 19]


def test_parts_without_a_record_right_before_the_failed_check_are_in_doubt_too(two: StationFolder) -> None:
    judged(two, *[2.5] * 32)
    show(two, start=5)
    with closing(sqlite3.connect(two.database)) as connection, connection:
        connection.execute("DELETE FROM part WHERE seq BETWEEN 18 AND 19")
    found = [(s.seq, s.part_id) for s in show(two, start=20, m1=1.0).suspects]
    assert [seq for seq, _ in found] == [17, 18]
    assert found[-1] == (18, "18 to 19: no record")


def test_a_number_that_was_shown_in_the_last_good_check_tells_of_a_database_put_back(
    two: StationFolder,
) -> None:
    judged(two, *[2.5] * 5)
    show(two, start=100)  # to 111
    first, *_ = show(two, start=111, m1=1.0).suspects
    assert first.part_id == "112 to ?: no record"


def test_parts_of_a_database_that_is_older_than_the_last_good_check_are_in_doubt(two: StationFolder) -> None:
    """As one that was put back from a copy: its numbers are those of before."""
    judged(two, *[2.5] * 5)
    with closing(sqlite3.connect(two.database)) as connection, connection:
        connection.execute("UPDATE part SET ts_ms = ? WHERE seq > 2", (now_ms() + 1000,))
    show(two, start=100)
    first, *others = show(two, start=5, m1=1.0).suspects
    assert (first.part_id, first.verdict) == ("112 to ?: no record", "NO_DECISION")
    assert [s.seq for s in others] == [3, 4]


@pytest.mark.parametrize(("master", "due"), [(5.0, ""), (1.0, "the last check of the masters failed")])
def test_a_check_that_is_broken_off_has_failed_where_anything_was_wrong(
    two: StationFolder, master: float, due: str
) -> None:
    judged(two, *[2.5] * 14)
    show(two)
    seen = iter([Seen(13, master, two.installed().name)])

    def next_seen(_step: Step) -> Seen:
        for part in seen:
            return part
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_masters(two, next_seen, by="Aiko")
    assert masters_due(two, now_ms()) == due


def test_without_a_good_check_every_part_is_in_doubt(two: StationFolder) -> None:
    judged(two, *[2.5] * 5)
    assert [s.seq for s in show(two, start=4, m1=1.0).suspects] == [1, 2, 3]


def test_nothing_to_check(calibrated: StationFolder, station: StationFolder) -> None:
    assert masters_due(station, now_ms()) == ""
    with pytest.raises(CalibrationError, match="no master"):
        show(calibrated)


def masters_due(folder: StationFolder, at_ms: int) -> str:
    """In words; the page has some for it, too."""
    due = read_demand(folder).why(at_ms)
    if due is None:
        return ""
    assert load_words()["ja"](f"due_{due.key}", **due.values)
    return due.words


def test_a_check_that_failed_cannot_be_made_up_for_without_a_master(two: StationFolder) -> None:
    judged(two, 5.0)
    show(two, m1=1.0)
    for master in ("M-1", "M-2"):
        due = read_demand(two).why(now_ms())
        assert due is not None
        assert due.cure == "show them: kenpin masters check"
        run(two, "remove", master, "--why", "scrapped")
    due = read_demand(two).why(now_ms())
    assert due is not None
    assert (due.key, due.cure.partition(";")[0]) == ("failed", "register one: kenpin masters add")


def test_due_after_the_interval(two: StationFolder) -> None:
    show(two)
    shown_ms = read_masters(two).last.ts_ms  # type: ignore[union-attr]
    assert masters_due(two, shown_ms + 12 * HOUR) == ""
    assert "12.1 h ago; they are due every 12 h" in masters_due(two, shown_ms + 12 * HOUR + HOUR // 10)
    assert "clock" in masters_due(two, shown_ms - 1)
    run(two, "interval", 1, "--why", "trial")
    assert "every 1 h" in masters_due(two, shown_ms + 2 * HOUR)
    run(two, "interval", 0, "--why", "trial")
    assert masters_due(two, shown_ms + 1000 * HOUR) == ""
    judged(two, *[2.5] * 12)
    show(two, m1=1.0)  # though no check was demanded, this one failed
    assert masters_due(two, now_ms()) == "the last check of the masters failed"
    told = run(two, "interval", 0, "--why", "trial").stderr
    assert "never due; yet no part is released: the last check of the masters failed; show them: " in told
    show(two)
    assert masters_due(two, now_ms()) == ""
    assert run(two, "interval", 0, "--why", "trial").stderr == "the masters are never due\n"


def test_due_after_a_change(two: StationFolder, tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    show(two)
    picture = ["--picture", tmp_path / "1.png"]
    run(two, "add", "M-3", "--type", "dent", *picture)
    assert masters_due(two, now_ms()) == "masters were never shown: M-3"
    run(two, "remove", "M-3", "--why", "trial")
    assert masters_due(two, now_ms()) == ""
    run(two, "add", "M-1", "--type", "dent", *picture)
    assert masters_due(two, now_ms()) == "masters were never shown: M-1"
    show(two)
    with calibration_lock(two):
        record_placed(open_book(two), two.installed().name, Placement(T1, T2 + 1, 1, "Aiko", "by test"))
    assert "thresholds were changed" in masters_due(two, now_ms())
    run(two, "interval", 0, "--why", "trial")
    assert masters_due(two, now_ms()) == ""  # nobody demands a check
    run(two, "interval", 12, "--why", "trial")
    (two.bundles / ("c" * 64)).mkdir()
    two.activate(two.bundles / ("c" * 64))
    assert "another bundle" in masters_due(two, now_ms())


@pytest.mark.parametrize("how", ["altered", "removed", "gone", "newer", "key"])
def test_a_ledger_that_was_tampered_with_makes_them_due(two: StationFolder, how: str) -> None:
    show(two)
    lines = masters_file(two).read_bytes().splitlines(keepends=True)
    if how == "altered":
        masters_file(two).write_bytes(b"".join(lines).replace(b"scratch", b"nothing"))
    elif how == "removed":
        masters_file(two).write_bytes(b"".join(lines[1:]))
    elif how == "gone":
        masters_file(two).unlink()
    elif how == "newer":
        ledger.append_row(masters_file(two), {"kind": "swap"}, station_key(two))
    else:
        SecretKey.generate().save(two.root / "other.key")
        two.public_key.write_bytes((two.root / "other.pub").read_bytes())
    assert "the masters cannot be read" in masters_due(two, now_ms())


def test_a_ledger_that_was_cut_or_altered_is_told_by_the_audit(two: StationFolder) -> None:
    show(two)
    audit.append(
        two, audit.Entry("masters check", "Aiko", "", "given up after 2 of 12 showings")
    )  # at the page
    key = PublicKey.load(two.key.with_suffix(".pub"))
    found = audit.verify(two, key)
    assert (found.findings, found.notes) == ((), ())
    whole = masters_file(two).read_bytes()
    masters_file(two).write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))  # the check that was last
    assert "names 3 changes and checks of masters, their file has 2" in audit.verify(two, key).notes[0]
    masters_file(two).unlink()
    assert "their file has 0" in audit.verify(two, key).notes[0]
    masters_file(two).write_bytes(whole.replace(b"scratch", b"nothing"))
    assert "masters.jsonl" in audit.verify(two, key).findings[0]


@pytest.mark.parametrize(
    "arguments",
    [["../x", "--type", "dent"], ["M 1", "--type", "dent"], ["M-1", "--type", ""], ["M-1", "--type", "x" * 65]],
)
def test_names_that_are_not_usable(
    calibrated: StationFolder, tmp_path: Path, write_grey: Callable[[Path, int], None], arguments: list[str]
) -> None:
    write_grey(tmp_path / "1.png", 1)
    result = run(calibrated, "add", *arguments, "--picture", tmp_path / "1.png")
    assert isinstance(result.exception, ConfigError)
    assert not masters_file(calibrated).exists()


def test_a_picture_that_is_none(calibrated: StationFolder, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    result = run(calibrated, "add", "M-1", "--type", "dent", "--picture", tmp_path / "1.png")
    assert isinstance(result.exception, DataError)


def test_no_change_without_the_audit(two: StationFolder) -> None:
    audit.audit_file(two).unlink()
    audit.audit_file(two).mkdir()
    assert isinstance(run(two, "remove", "M-1", "--why", "broken").exception, StoreError)
    assert "M-1" in read_masters(two).registered


def test_parts_are_taken_one_by_one_in_their_order(two: StationFolder) -> None:
    judged(two, 2.1)
    watch = PartWatch(two, wait_s=60)
    judged(two, 2.15)  # was under way when the check began
    with held_for_check(two, "Aiko") as note:
        judged(two, 2.2, 2.3)
        judged(two, 2.4)
        bundle = two.installed().name
        assert [watch.next(note) for _ in range(3)] == [
            Seen(3, 2.2, bundle),
            Seen(4, 2.3, bundle),
            Seen(5, 2.4, bundle),
        ]


def test_nothing_is_released_during_a_check(two: StationFolder) -> None:
    with held_for_check(two, "Aiko"):
        note = read_calibrating(two)
        assert note is not None
        assert note.by == "Aiko (kenpin masters check)"
        with pytest.raises(CalibrationError, match="another check"), held_for_check(two, "Ben"):
            pass
        for verb in ("add", "remove"):  # the masters stay as they are while they are shown
            given = ("--why", "x") if verb == "remove" else ("--type", "x", "--picture", "x.png")
            assert isinstance(run(two, verb, "M-1", *given).exception, CalibrationError)
    assert read_calibrating(two) is None
    begin_calibrating(two, "Ben")
    with pytest.raises(CalibrationError, match="Ben calibrates"), held_for_check(two, "Aiko"):
        pass
    assert read_calibrating(two) is not None


def test_of_those_who_begin_at_once_one_holds_the_station(two: StationFolder) -> None:
    """The end of the one would let the parts of the other be released."""
    names = ("Aiko", "Ben", "Chiyo", "Dan")
    together = Barrier(len(names))

    def begin(name: str) -> str:
        together.wait()
        try:
            begin_calibrating(two, name)
        except CalibrationError as error:
            return error.what
        return ""

    with ThreadPoolExecutor(len(names)) as pool:
        told = list(pool.map(begin, names))
    note = read_calibrating(two)
    assert note is not None
    assert sorted(told) == ["", *[f"{note.by} calibrates or checks this station"] * 3]


def test_the_note_of_a_check_that_was_killed_is_taken_over(two: StationFolder) -> None:
    begin_calibrating(two, "Aiko (kenpin masters check)")
    with held_for_check(two, "Ben"):
        pass
    assert read_calibrating(two) is None


def test_a_check_that_is_ended_on_the_page_lets_nobody_elses_parts_go(two: StationFolder) -> None:
    """Its end would release what the next one shows, and parts of the line would be taken for masters."""
    judged(two, 2.1)
    watch = PartWatch(two, wait_s=60)
    with held_for_check(two, "Aiko") as note:
        judged(two, 2.2)
        assert watch.next(note).score == 2.2
        end_calibrating(two)
        judged(two, 2.3)
        begin_calibrating(two, "Ben")
        with pytest.raises(CalibrationError, match="somebody has ended"):
            watch.next(note)
    left = read_calibrating(two)
    assert left is not None
    assert left.by == "Ben"


@pytest.mark.parametrize(
    ("error", "stays"), [(StoreError("full", cure=""), True), (KeyboardInterrupt(), False)]
)
def test_the_note_stays_where_nothing_could_be_written_down(
    two: StationFolder, error: BaseException, stays: bool
) -> None:
    with pytest.raises(type(error)), held_for_check(two, "Aiko"):
        raise error
    assert (read_calibrating(two) is not None) == stays


def test_a_lost_connection_breaks_a_check_off_in_words(
    two: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged wrongly by then is written down; the shell that is closed sends SIGHUP."""
    judged(two, 2.1)
    showings = 0

    def next_part(_watch: PartWatch, _note: Hold) -> Seen:
        nonlocal showings
        showings += 1
        if showings == 2:
            os.kill(os.getpid(), signal.SIGHUP)
            signal.pause()
        return Seen(2, 0.1, two.installed().name)

    monkeypatch.setattr(PartWatch, "next", next_part)
    assert run(two, "check").exit_code != 0
    last = read_masters(two).last
    assert last is not None
    assert not last.passed
    assert read_calibrating(two) is None


@pytest.fixture
def widget(two: StationFolder, make_bundle: Callable[..., Path], signer: SecretKey) -> str:
    """A bundle of another product is there, calibrated."""
    bundle = open_bundle(make_bundle("2", product="widget"), [signer.public])
    name = install_bundle(bundle, two.bundles).name
    good = tuple(PictureScore(f"g{k}", k / 50, f"g{k}") for k in range(50))
    with calibration_lock(two):
        record_fit(two, ScoreSet(good), Basis(name, "int8", "Aiko", ""))
        record_placed(open_book(two), name, Placement(T1, T2, 1, "Aiko", "by test"))
    return name


def test_a_list_that_is_cut_says_so(two: StationFolder, tmp_path: Path) -> None:
    for k in range(3, 10):
        run(two, "add", f"M-{k}", "--type", "dent", "--picture", tmp_path / "1.png")
    names = ", ".join(f"M-{k}" for k in range(1, 9))
    assert masters_due(two, now_ms()) == f"masters were never shown: {names}, …"


def test_each_product_has_masters_of_its_own(two: StationFolder, widget: str, tmp_path: Path) -> None:
    grey = two.installed()
    show(two)
    two.activate(two.bundles / widget)
    assert masters_due(two, now_ms()) == "no master of widget is registered, only of grey"
    picture = ["--picture", tmp_path / "1.png"]
    assert run(two, "add", "M-1", "--type", "dent", *picture).exit_code == 0
    assert masters_due(two, now_ms()) == "masters were never shown: M-1"
    assert [step.master.type for step in steps(read_masters(two)) if step.master] == ["dent"] * 3
    listed = json.loads(run(two, "list", "--json").stdout)
    assert (listed["product"], listed["others"]) == ("widget", {"grey": ["M-1", "M-2"]})
    show(two)
    assert masters_due(two, now_ms()) == ""
    two.activate(grey)  # and back: the camera may have been set for the other one
    assert masters_due(two, now_ms()) == "another bundle is active than at the last check of the masters"
    assert {m.type for m in read_masters(two).registered.values()} == {"scratch"}
    assert run(two, "remove", "M-1", "--product", "widget", "--why", "worn").exit_code == 0
    assert sorted(read_masters(two).registered) == ["M-1", "M-2"]
    assert read_masters(two).others == {}
    assert isinstance(run(two, "remove", "M-1", "--product", "widget", "--why", "x").exception, DataError)
    show(two)
    assert masters_due(two, now_ms()) == ""
    two.activate(two.bundles / widget)
    assert run(two, "remove", "M-1", "--product", "grey", "--why", "worn").exit_code == 0
    assert read_masters(two).others == {"grey": {"M-2"}}


def test_masters_can_be_registered_before_the_product_is_changed(
    two: StationFolder, widget: str, tmp_path: Path
) -> None:
    show(two)
    picture = ["--picture", tmp_path / "1.png"]
    assert run(two, "add", "W-1", "--type", "dent", *picture, "--product", "widget").exit_code == 0
    assert masters_due(two, now_ms()) == ""
    two.activate(two.bundles / widget)
    assert masters_due(two, now_ms()) == "masters were never shown: W-1"


def test_a_failed_check_of_one_product_is_not_passed_by_another(
    two: StationFolder, widget: str, tmp_path: Path
) -> None:
    run(two, "interval", 0, "--why", "trial")
    grey = two.installed()
    judged(two, *[2.5] * 12)
    show(two, m1=1.0)
    two.activate(two.bundles / widget)
    assert masters_due(two, now_ms()) == ""
    run(two, "add", "W-1", "--type", "dent", "--picture", tmp_path / "1.png")
    check_masters(two, lambda step: Seen(40, 5.0 if step.master else 1.0, two.installed().name), by="Aiko")
    two.activate(grey)
    assert masters_due(two, now_ms()) == "the last check of the masters failed"


def test_a_failed_check_is_not_undone_by_taking_the_masters_off(two: StationFolder) -> None:
    judged(two, *[2.5] * 12)
    show(two, m1=1.0)
    for name in ("M-1", "M-2"):
        assert run(two, "remove", name, "--why", "lost").exit_code == 0
    assert masters_due(two, now_ms()) == "the last check of the masters failed"


def test_rows_from_before_masters_had_a_product_are_of_every_one(
    two: StationFolder, widget: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.masters.active_product", lambda _folder: "")
    content = b"picture"
    add_master(two, make_master("OLD", "dent", "NG", picture=content, suffix=".png"), content, by="a", why="")
    monkeypatch.undo()
    two.activate(two.bundles / widget)
    assert list(read_masters(two).registered) == ["OLD"]
    assert run(two, "remove", "OLD", "--why", "worn").exit_code == 0
    assert not read_masters(two).registered
    assert sorted(read_masters(two, "grey").registered) == ["M-1", "M-2"]


def test_a_check_in_which_no_part_comes_is_not_counted(two: StationFolder) -> None:
    judged(two, 2.1)
    assert isinstance(run(two, "check", "--wait-s", 0.01).exception, SourceError)
    assert read_masters(two).last is None


def test_a_station_that_never_ran(two: StationFolder) -> None:
    assert isinstance(run(two, "check").exception, StoreError)


@pytest.fixture
def shown(two: StationFolder, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Scores of the parts that are shown, each when it is asked for."""
    judged(two, 2.1, 2.2)
    scores: list[float] = []
    wait = PartWatch.next

    def next_part(watch: PartWatch, note: Hold) -> Seen:
        judged(two, scores.pop(0))
        return wait(watch, note)

    monkeypatch.setattr(PartWatch, "next", next_part)
    return scores


def test_check(two: StationFolder, shown: list[float]) -> None:
    shown += [5.0, 1.0] * 6
    result = run(two, "check", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("show a good part") == 6
    assert "show master M-2 (scratch), 3 of 3" in result.stderr
    assert "PASSED" in result.stderr
    assert json.loads(result.stdout)["passed"] is True


def test_check_fails(two: StationFolder, shown: list[float]) -> None:
    shown += [5.0, 1.0] * 5 + [1.5, 2.5]
    result = run(two, "check", "--json")
    assert result.exit_code == 1
    assert "FAILED: master M-2 was OK, expected REVIEW" in result.stderr
    assert "FAILED: the good part was REVIEW, expected OK" in result.stderr
    assert "parts in doubt since the last passed check: 2, 0 of them released" in result.stderr
    assert [s["part_id"] for s in json.loads(result.stdout)["suspects"]] == ["p2.1", "p2.2"]
    with (two.root / "masters" / "suspects-3.csv").open(newline="") as rows:
        assert [row["part_id"] for row in csv.DictReader(rows)] == ["p2.1", "p2.2"]


def test_a_spreadsheet_takes_no_identity_for_a_formula() -> None:
    """Neither in the list of the command line nor in the one that the page gives."""
    _, row = suspects_csv((Suspect(7, "=1+1", 0, "OK", released=True),)).splitlines()
    assert row == "7,'=1+1,1970-01-01T00:00:00.000Z,OK,True"
