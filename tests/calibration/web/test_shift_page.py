"""The Shift check page: guided, without a way to try until it fits unseen, and nothing released meanwhile."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import tracemalloc
from contextlib import closing
from unittest.mock import Mock

import pytest

from kenpin import audit
from kenpin.calibrating import begin_calibrating, read_calibrating
from kenpin.calibration.masters_book import add_master, make_master, remove_master, set_interval
from kenpin.calibration.masters_check import Suspect, suspects_csv
from kenpin.calibration.web import shift_page
from kenpin.calibration.web.calibrate_run import Runs
from kenpin.calibration.web.shift_run import ShiftRuns, shift_under_way
from kenpin.calibration.web.words import load_words
from kenpin.errors import StoreError
from kenpin.events import now_ms
from kenpin.masters import read_masters
from kenpin.masters_due import masters_due
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import BUNDLE, Made, add_masters, calibrate, inspect, picture
from tests.calibration.web.page_station import PIN, MakeVisit, Visit, show_live

SHOWN = Made(0.8, cause="calibrating"), Made(0.2, cause="calibrating")


@pytest.fixture
def checking(visit: MakeVisit, folder: StationFolder) -> Visit:
    """A technician at a station with two masters and a part that was released."""
    calibrate(folder)
    add_masters(folder)
    inspect(folder, [Made(0.2)])
    browser = visit()
    browser.log_in("sato")
    return browser


def audited(folder: StationFolder) -> list[str]:
    rows = audit.read_audit(folder, PublicKey.load(folder.public_key))
    return [row["new"] for row in rows if row["what"] == "masters check"]


def test_a_check_is_guided_to_its_end(checking: Visit, folder: StationFolder) -> None:
    assert "M-01, M-02" in masters_due(folder, now_ms())
    assert checking.submit("/shift/begin").status_code == 303
    note = read_calibrating(folder)
    assert note is not None
    assert note.by == "sato"
    for k in range(12):
        panel = checking.get("/shift/panel").text
        wanted = f"Show master M-0{k // 6 + 1}" if k % 2 == 0 else "Show a good part"
        assert wanted in panel
        assert f"{k} of 12 shown" in panel
        assert 'data-done="no"' in panel
        inspect(folder, [SHOWN[k % 2]])
    assert 'data-done="yes"' in checking.get("/shift/panel").text
    assert checking.submit("/shift/end").status_code == 303
    assert masters_due(folder, now_ms()) == ""
    assert read_calibrating(folder) is None
    assert "The masters were shown in time." in checking.get("/shift").text
    assert audited(folder) == ["passed"]


def test_who_writes_the_result_down_stands_beside_who_has_begun(
    checking: Visit, visit: MakeVisit, folder: StationFolder
) -> None:
    checking.submit("/shift/begin")
    inspect(folder, SHOWN * 6)
    other = visit()
    other.log_in("abe")
    assert other.submit("/shift/end").status_code == 303
    rows = audit.read_audit(folder, PublicKey.load(folder.public_key))
    assert [row["by"] for row in rows if row["what"] == "masters check"] == ["sato + abe"]


def test_a_failed_check_lists_every_part_since_the_last_good_one(
    checking: Visit, folder: StationFolder
) -> None:
    checking.submit("/shift/begin")
    inspect(folder, SHOWN * 6)
    checking.submit("/shift/end")
    inspect(folder, [Made(0.1), Made(0.2), Made(0.9)])
    checking.submit("/shift/begin")
    inspect(folder, [*SHOWN * 5, Made(0.3, cause="calibrating"), SHOWN[1]])
    assert "1 wrong" in checking.get("/shift").text
    checking.submit("/shift/end")
    text = checking.get("/shift").text
    assert "Parts in doubt: 3" in text
    assert "Released of them: 2" in text
    assert "Master M-02 was" in text
    rows = list(csv.DictReader(io.StringIO(checking.get("/shift/suspects.csv").text.lstrip("\ufeff"))))
    german = checking.get("/shift/suspects.csv", headers={"Cookie": "__Host-language=de"}).text
    assert german.lstrip("\ufeff").splitlines()[0] == "seq;part_id;time;verdict;released"
    assert [(row["part_id"], row["verdict"]) for row in rows] == [
        ("A-00014", "OK"),
        ("A-00015", "OK"),
        ("A-00016", "NG"),
    ]
    assert masters_due(folder, now_ms()) == "the last check of the masters failed"
    assert audited(folder) == ["passed", "FAILED, 1 of 12 showings wrong"]


def test_the_page_has_room_for_any_number_of_parts_in_doubt(checking: Visit, folder: StationFolder) -> None:
    sql = """WITH RECURSIVE n(seq) AS (SELECT 2 UNION ALL SELECT seq + 1 FROM n WHERE seq < 30000)
        INSERT INTO part ({0}) SELECT n.seq, {1} FROM n, part WHERE part.seq = 1"""
    with closing(sqlite3.connect(folder.database)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(part)")]
        assert names[0] == "seq"
        connection.execute(sql.format(", ".join(names), ", ".join(f"part.{name}" for name in names[1:])))
        connection.commit()
    checking.get("/shift")
    tracemalloc.start()
    try:
        checking.submit("/shift/begin")
        inspect(folder, [SHOWN[1], *SHOWN * 6][:12])
        checking.submit("/shift/end")
        text = checking.get("/shift").text
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "Parts in doubt: 30,000" in text
    assert "Released of them: 30,000" in text
    assert peak < 4_000_000  # they take 10 MB, and those of a day on a fast line more than the page may have


def test_parts_that_were_under_way_count_for_nothing(checking: Visit, folder: StationFolder) -> None:
    checking.submit("/shift/begin")
    inspect(folder, [Made(0.2), Made(0.2)])
    assert "0 of 12 shown" in checking.get("/shift/panel").text
    inspect(folder, [SHOWN[0]])
    assert "1 of 12 shown" in checking.get("/shift/panel").text


def test_nothing_is_written_down_before_all_was_shown(checking: Visit, folder: StationFolder) -> None:
    assert checking.submit("/shift/end").status_code == 409
    checking.submit("/shift/begin")
    inspect(folder, [*SHOWN * 5, SHOWN[0]])
    assert checking.submit("/shift/end").status_code == 409
    assert read_masters(folder).last is None


def test_who_may_sign_too_is_offered_at_the_station_and_not_told_to_the_network(
    checking: Visit, visit: MakeVisit
) -> None:
    checking.submit("/shift/begin")
    for address, names in (("127.0.0.1", ["abe"]), ("192.0.2.7", [])):
        browser = visit(address=address, second_person=True)
        browser.log_in("sato")
        assert re.findall("<option>(.+?)</option>", browser.get("/shift/give-up").text) == names


def test_giving_up_is_signed_and_kept(checking: Visit, folder: StationFolder) -> None:
    checking.submit("/shift/begin")
    inspect(folder, [SHOWN[1], SHOWN[1]])
    assert "2 of 12, 1 of them" in checking.get("/shift/give-up").text
    assert checking.submit("/shift/give-up", why="wrong part", pin="not-this").status_code == 401
    assert read_calibrating(folder) is not None
    checking.submit("/login", name="abe", pin=PIN)
    assert checking.submit("/shift/give-up", why="wrong part", pin=PIN).status_code == 303
    assert read_calibrating(folder) is None
    assert audited(folder) == [
        "given up after 2 of 12 showings, 1 of them wrong",
        "FAILED, 1 of 2 showings wrong",
    ]
    assert masters_due(folder, now_ms()) == "masters were never shown: M-02"
    assert checking.get("/shift/panel").status_code == 404


def test_the_station_stays_held_while_the_run_cannot_be_forgotten(
    checking: Visit, folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: the page goes on asking for masters, and the station would release them."""
    full = StoreError("the page's database is full", cure="make room")
    for begin, end in (("/shift/begin", "/shift/give-up"), ("/calibrate/begin", "/calibrate/end")):
        show_live(folder, texts={"model": "m", "bundle_sha256": BUNDLE, "precision": "int8"})
        assert checking.submit(begin).status_code == 303
        with monkeypatch.context() as patch:
            for runs in (ShiftRuns, Runs):
                patch.setattr(runs, "end", Mock(side_effect=full))
            assert checking.submit(end, why="test", pin=PIN).status_code == 503
        assert read_calibrating(folder) is not None
        assert checking.submit(end, why="test", pin=PIN).status_code == 303
        assert read_calibrating(folder) is None


@pytest.mark.parametrize(("shown", "due"), [(SHOWN, ""), (SHOWN[1:], "the last check of the masters failed")])
def test_a_check_in_which_a_master_passed_cannot_be_given_up_to_release_parts(
    checking: Visit, folder: StationFolder, shown: list[Made], due: str
) -> None:
    checking.submit("/shift/begin")
    inspect(folder, SHOWN * 6)
    checking.submit("/shift/end")
    inspect(folder, [Made(0.1)])
    checking.submit("/shift/begin")
    inspect(folder, shown)
    assert checking.submit("/shift/give-up", why="another time", pin=PIN).status_code == 303
    assert masters_due(folder, now_ms()) == due
    assert ("Parts in doubt: 1" in checking.get("/shift").text) == bool(due)


def test_a_check_of_other_masters_is_void(checking: Visit, folder: StationFolder) -> None:
    checking.submit("/shift/begin")
    inspect(folder, SHOWN * 6)
    remove_master(folder, "M-02", by="abe", why="lost")
    assert "begin anew" in checking.get("/shift").text
    assert checking.submit("/shift/end").status_code == 409
    assert read_masters(folder).last is None


def test_there_must_be_something_to_check_and_nobody_else_at_it(
    visit: MakeVisit, folder: StationFolder
) -> None:
    browser = visit()
    browser.log_in("sato")
    assert "No master is registered" in browser.submit("/shift/begin").text
    add_masters(folder)
    assert "no thresholds yet" in browser.submit("/shift/begin").text
    calibrate(folder)
    inspect(folder, [Made(0.2)])
    begin_calibrating(folder, "abe")
    assert browser.submit("/shift/begin").status_code == 409
    note = read_calibrating(folder)
    assert note is not None
    assert note.by == "abe"


def test_no_check_is_shown_where_the_station_was_not_told_of_it(
    checking: Visit, folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_folder: StationFolder, _by: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shift_page, "begin_calibrating", full)
        assert checking.submit("/shift/begin").status_code == 503
    assert shift_under_way(folder) is None
    checking.submit("/shift/begin")
    assert shift_under_way(folder) is not None
    assert read_calibrating(folder) is not None


def test_no_check_begins_with_cameras_that_are_set_otherwise(checking: Visit, folder: StationFolder) -> None:
    calibrate(folder, rev=2, cameras={"usb0": {"exposure_us": 900.0}})
    refused = checking.submit("/shift/begin")
    assert (refused.status_code, "set otherwise than at the sign-off" in refused.text) == (503, True)
    assert read_calibrating(folder) is None
    assert shift_under_way(folder) is None


def test_a_check_outlives_the_page(checking: Visit, visit: MakeVisit, folder: StationFolder) -> None:
    checking.submit("/shift/begin")
    inspect(folder, SHOWN)
    assert "2 of 12 shown" in visit().get("/shift").text


def test_a_master_is_taken_off_the_list_signed(checking: Visit, folder: StationFolder) -> None:
    assert 'href="/shift/remove?master=M-01"' in checking.get("/shift").text
    assert '<option value="M-01" selected>' in checking.get("/shift/remove?master=M-01").text
    wanted = {"master": "M-01", "why": "worn", "pin": PIN}
    assert checking.submit("/shift/remove", **{**wanted, "pin": "not-this"}).status_code == 401
    assert sorted(read_masters(folder).registered) == ["M-01", "M-02"]
    checking.submit("/login", name="abe", pin=PIN)
    assert checking.submit("/shift/remove", **wanted).status_code == 303
    assert list(read_masters(folder).registered) == ["M-02"]
    rows = audit.read_audit(folder, PublicKey.load(folder.public_key))
    assert [rows[-1][k] for k in ("what", "by", "old", "new", "why")] == [
        "masters",
        "abe",
        "M-01, scratch 0.3 mm, expected NG",
        "",
        "worn",
    ]
    assert checking.submit("/shift/remove", **wanted).status_code == 409
    assert checking.submit("/shift/remove", **{**wanted, "master": "M-02"}).status_code == 303
    assert checking.get("/shift/remove").status_code == 404


def test_the_masters_stay_as_they_are_while_they_are_shown(checking: Visit, folder: StationFolder) -> None:
    checking.submit("/shift/begin")
    assert checking.submit("/shift/remove", master="M-01", why="worn", pin=PIN).status_code == 409
    assert sorted(read_masters(folder).registered) == ["M-01", "M-02"]


def test_nobody_calibrates_during_a_check_by_the_command_line(checking: Visit, folder: StationFolder) -> None:
    """Its end would let the parts of the calibration be released."""
    texts = {"model": "m", "bundle_sha256": BUNDLE, "precision": "int8"}
    show_live(folder, texts=texts)
    begin_calibrating(folder, "abe (kenpin masters check)")
    assert checking.submit("/calibrate/begin").status_code == 409
    assert Runs(folder.root / "page.db").read() is None


def test_a_note_that_a_killed_check_has_left_is_seen_and_ended(checking: Visit, folder: StationFolder) -> None:
    begin_calibrating(folder, "abe (kenpin masters check)")
    shift = checking.get("/shift").text
    assert "abe (kenpin masters check) calibrates this station; no part is released." in shift
    assert ('href="/calibrate"' in shift, "/shift/begin" in shift) == (True, False)
    assert 'action="/calibrate/end"' in checking.get("/calibrate").text  # of a TRIAL it showed the fresh parts
    assert checking.submit("/calibrate/end").status_code == 303
    row = audit.read_audit(folder, PublicKey.load(folder.public_key))[-1]
    assert [row[k] for k in ("by", "old", "new")] == ["sato", "held by abe (kenpin masters check)", "given up"]
    assert "/shift/begin" in checking.get("/shift").text


@pytest.mark.parametrize("language", ["en", "ja", "de"])
def test_a_product_without_masters_says_so_where_others_have_some(
    checking: Visit, folder: StationFolder, language: str
) -> None:
    content = picture(7)
    other = make_master("M-01", "dent", "NG", picture=content, suffix=".png")
    manifest = folder.active / "manifest.json"
    manifest.write_text('{"product": "bracket-b"}')
    for name in ("M-01", "M-02"):
        remove_master(folder, name, by="sato", why="test")
    add_master(folder, other.model_copy(update={"product": "bracket-a"}), content, by="sato", why="test")
    checking.submit("/language", language=language, back="/shift")
    text = checking.get("/shift").text
    words = load_words()[language]
    assert words("due_product", product="bracket-b", others="bracket-a") in text
    assert words("shift_register") in text
    assert "/shift/begin" not in text
    manifest.write_text('{"product": "bracket-a"}')
    assert "dent" in checking.get("/shift").text


def test_an_interval_of_half_an_hour_is_told_as_such(checking: Visit, folder: StationFolder) -> None:
    for hours, told in ((0.5, "due every 0.5 h"), (8.0, "due every 8 h")):
        set_interval(folder, hours, by="sato", why="test")
        assert told in checking.get("/shift").text


def test_pictures_of_masters_are_shown(checking: Visit) -> None:
    assert checking.get("/shift/master/M-01").headers["content-type"] == "image/jpeg"
    for name in ("M-99", "..%2Fstation.key"):
        assert checking.get(f"/shift/master/{name}").status_code == 404


def test_a_spreadsheet_takes_no_identity_for_a_formula() -> None:
    text = suspects_csv([Suspect(7, "=1+1", 0, "OK", released=True)])
    assert text.splitlines()[1] == "7,'=1+1,1970-01-01T00:00:00.000Z,OK,True"


def test_nobody_calibrates_during_a_check(checking: Visit, folder: StationFolder) -> None:
    """The masters would be shown as good parts, and either's end would let the other's parts be released."""
    texts = {"model": "m", "bundle_sha256": BUNDLE, "precision": "int8"}
    show_live(folder, texts=texts, state="CALIBRATING")
    checking.submit("/shift/begin")
    answer = checking.submit("/calibrate/begin")
    assert (answer.status_code, "already calibrates or checks" in answer.text) == (409, True)
    assert Runs(folder.root / "page.db").read() is None
    assert 'action="/calibrate/end"' not in checking.get("/calibrate?step=camera").text
    assert checking.submit("/calibrate/end").status_code == 409
    assert read_calibrating(folder) is not None
    checking.submit("/shift/give-up", pin=PIN, why="test")
    assert read_calibrating(folder) is None
    assert checking.submit("/calibrate/begin").status_code == 303
