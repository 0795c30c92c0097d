from __future__ import annotations

import csv
import io
import json
import re

import pytest

from kenpin import audit
from kenpin.calibration.web.log_rows import Log, LogRow, read_log, to_csv
from kenpin.calibration.web.words import load_words
from kenpin.canonical_json import canonical_json
from kenpin.record import append_record, head
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key
from tests import specimens
from tests.calibration.web.page_station import MakeVisit


def note(folder: StationFolder, *, what: str = "masters", new: str = "", why: str = "new lot") -> None:
    audit.append(folder, audit.Entry(what, "sato", "before", new, why))


def add_record(folder: StationFolder, rev: int) -> None:
    place = {"rev": rev, "created_ms": 1000 + rev, "previous_sha256": head(folder.records)}
    record = specimens.record(**place, t1=0.35, t2=0.45, by="abe", why="first time")
    append_record(folder.records, record, station_key(folder))


def test_nothing_was_changed_yet(visit: MakeVisit) -> None:
    assert "Nothing was changed yet." in visit().get("/log").text


def test_changes_come_newest_first_with_what_they_changed(visit: MakeVisit, folder: StationFolder) -> None:
    note(folder, new="M-01")
    note(folder, new="M-02 <dent>")
    text = visit().get("/log").text
    assert text.index("M-02 &lt;dent&gt;") < text.index("M-01")
    for word in ("sato", "before", "new lot"):
        assert word in text
    assert "マスター" in visit(language="ja").get("/log").text


def test_a_clock_that_was_set_back_hides_no_change(
    folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board without a battery begins in 1970: the newest change would stand on the last sheet."""
    for k, clock_ms in enumerate((9_000, 5, 10_000, 7)):
        monkeypatch.setattr("kenpin.ledger.now_ms", lambda clock_ms=clock_ms: clock_ms)
        note(folder, new=f"M-{k}")
    assert [row.now for row in read_log(folder).rows] == ["M-3", "M-2", "M-1", "M-0"]


def test_records_from_before_the_audit_are_told_and_later_ones_not_twice(folder: StationFolder) -> None:
    add_record(folder, 1)
    note(folder, what="thresholds", new="record 2, TRIAL, bundle 7f7f7f7f7f7f7f7f, T1 0.35, T2 0.45")
    add_record(folder, 2)
    log = read_log(folder)
    assert log.fault == ""
    assert [row.now.partition(",")[0] for row in log.rows] == ["record 2", "record 1"]
    assert log.rows[1] == LogRow(
        1001, "abe", "thresholds", "", "record 1, TRIAL, T1 0.35, T2 0.45", "first time"
    )


def test_the_hourly_signs_of_life_are_left_out(folder: StationFolder) -> None:
    audit.checkpoint(folder, by="station")
    note(folder)
    assert [row.what for row in read_log(folder).rows] == ["masters"]


def test_who_logged_in_and_out_and_who_did_not_get_in(people: StationFolder, visit: MakeVisit) -> None:
    browser = visit()
    browser.submit("/logout")  # of nobody
    browser.log_in("abe", "wrong-pin")
    browser.log_in("sato")
    browser.submit("/logout")
    rows = [(row.who, row.what, row.now) for row in read_log(people).rows]
    assert rows == [
        ("sato", "login", "logged out"),
        ("sato", "login", "logged in"),
        ("abe", "login", "wrong PIN: 1"),
    ]
    assert "ログイン" in visit(language="ja").get("/log").text


def test_who_cannot_be_written_down_is_not_logged_in(people: StationFolder, visit: MakeVisit) -> None:
    note(people)
    people.key.unlink()
    browser = visit()
    assert browser.log_in("sato").status_code == 503
    assert browser.submit("/calibrate/begin").status_code == 401


def test_records_that_were_altered_say_so_and_the_rest_is_shown(
    visit: MakeVisit, folder: StationFolder
) -> None:
    add_record(folder, 1)
    note(folder, new="M-01")
    folder.records.write_bytes(folder.records.read_bytes().replace(b"first", b"third"))
    text = visit().get("/log").text
    assert "The log cannot be believed:" in text
    assert "first time" not in text
    assert "M-01" in text
    assert "⚠" not in text
    assert visit().get("/log.csv").text.splitlines()[1].startswith(',,NOT VERIFIED,,"')


def alter(lines: list[bytes], how: str) -> list[bytes]:
    """The third of five rows."""
    if how == "altered":
        return [*lines[:2], lines[2].replace(b"M-3", b"M-9"), *lines[3:]]
    if how == "removed":
        return [*lines[:2], *lines[3:]]
    if how == "damaged":
        return [*lines[:2], b"no row\n", *lines[3:]]
    if how == "moved":
        return [*lines[:2], lines[3], lines[2], *lines[4:]]
    # Written anew with its time, and without what a row must say; nobody has the key.
    row = json.loads(lines[2])
    row["row"] = {k: v for k, v in row["row"].items() if k != "by"} | {"ts_ms": 1 << 80}
    return [*lines[:2], canonical_json(row) + b"\n", *lines[3:]]


@pytest.mark.parametrize("how", ["altered", "removed", "damaged", "moved", "forged"])
def test_a_log_that_was_altered_is_shown_and_says_since_when(
    visit: MakeVisit, folder: StationFolder, how: str
) -> None:
    for k in range(1, 6):
        note(folder, new=f"M-{k}")
    path = audit.audit_file(folder)
    path.write_bytes(b"".join(alter(path.read_bytes().splitlines(keepends=True), how)))
    log = read_log(folder)
    assert log.last is not None
    assert (log.last.number, log.last.now) == (2, "M-2")
    assert [row.is_doubted for row in log.rows] == [True] * (len(log.rows) - 2) + [False] * 2
    assert len(log.rows) == (4 if how == "removed" else 5)
    for language in ("en", "ja", "de"):
        text = visit(language=language).get("/log").text
        assert text.count('<tr class="doubted">') == len(log.rows) - 2
        assert load_words()[language].time(log.last.ts_ms) in text
    rows = list(csv.reader(io.StringIO(visit().get("/log.csv").content.decode("utf-8-sig"))))
    assert [row[2].startswith("NOT VERIFIED") for row in rows[1:]] == [
        True,
        *(row.is_doubted for row in log.rows),
    ]


def test_on_a_log_with_a_fault_there_is_room_for_six_rows(visit: MakeVisit, folder: StationFolder) -> None:
    for number in range(18):
        note(folder, new=f"M-{number:02}")
    folder.public_key.write_bytes(b"no key")
    browser = visit()
    sheets = [browser.get(f"/log?sheet={k}").text.count('<tr class="doubted">') for k in (1, 2, 3)]
    assert sheets == [6, 6, 6]
    assert "3 / 3" in browser.get("/log?sheet=9").text


def test_a_public_key_that_is_gone_is_made_of_the_secret_one(visit: MakeVisit, folder: StationFolder) -> None:
    note(folder, new="M-1")
    folder.public_key.unlink()
    assert "doubted" not in visit().get("/log").text


@pytest.mark.parametrize("content", [None, b"no key"])
def test_without_the_public_key_no_row_can_be_believed(
    visit: MakeVisit, folder: StationFolder, content: bytes | None
) -> None:
    note(folder, new="M-1")
    folder.public_key.unlink()
    if content is None:
        folder.key.unlink()
    else:
        folder.public_key.write_bytes(content)
    text = visit().get("/log").text
    assert "No row of the log can be believed" in text
    assert text.count('<tr class="doubted">') == 1


def test_a_long_log_has_sheets(visit: MakeVisit, folder: StationFolder) -> None:
    for number in range(18):
        note(folder, new=f"M-{number:02}")
    browser = visit()
    sheets = [browser.get(f"/log?sheet={k}").text for k in (1, 2, 3)]
    assert [text.count("M-") for text in sheets] == [2 * 8, 2 * 8, 2 * 2]
    assert "M-17" in sheets[0]
    assert "M-00" in sheets[2]
    assert browser.get("/log?sheet=99").text.count("M-00") == 2
    assert browser.get("/log?sheet=x").status_code == 422


@pytest.mark.parametrize(("language", "separator"), [("en", ","), ("ja", ","), ("de", ";")])
def test_the_csv_holds_all_rows(
    visit: MakeVisit,
    folder: StationFolder,
    monkeypatch: pytest.MonkeyPatch,
    language: str,
    separator: str,
) -> None:
    """In the cells of that country's spreadsheets."""
    monkeypatch.setattr("kenpin.ledger.now_ms", lambda: 5)  # all in one millisecond
    for number in range(12):
        note(folder, new=f"良品 {number}")
    answer = visit(language=language).get("/log.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="L2-03-log.csv"'
    rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig")), delimiter=separator))
    assert rows[0] == ["time", "who", "what", "was", "now", "why"]
    assert rows[1][4] == "良品 11"
    assert len(rows) == 13


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_what_somebody_typed_is_no_formula(text: str) -> None:
    (_, row) = csv.reader(
        io.StringIO(to_csv(Log([LogRow(0, "sato", "masters", "", "", text)]), separator=","), newline="")
    )
    assert row[-1].lstrip() == f"'{text.lstrip()}"


def test_another_language_leaves_the_sheet_where_it_is(visit: MakeVisit, folder: StationFolder) -> None:
    for number in range(18):
        note(folder, new=f"M-{number:02}")
    browser = visit()
    (back,) = re.findall('name="back" value="(.*)"', browser.get("/log?sheet=2&x=%22").text)
    assert back == "/log?sheet=2&amp;x=%22"
    answer = browser.submit("/language", language="de", back=back.replace("&amp;", "&"))
    assert answer.headers["location"] == "/log?sheet=2&x=%22"


def test_a_login_leads_to_the_sheet_that_was_asked_for(visit: MakeVisit, folder: StationFolder) -> None:
    browser = visit(open_view=False)
    assert 'name="back" value="/log?sheet=2"' in browser.get("/log?sheet=2").text
