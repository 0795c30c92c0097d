"""The Calibrate page without a script, at a running station: every step by its forms, and what is refused."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from kenpin import audit
from kenpin.calibrating import begin_calibrating, end_calibrating, read_calibrating
from kenpin.calibration.masters_book import add_master, make_master
from kenpin.calibration.web import calibrate_change, calibrate_shown, calibrate_sign
from kenpin.calibration.web.app import create_app
from kenpin.calibration.web.calibrate_run import Label, Runs, Start
from kenpin.calibration.web.page_database import page_database, prepare_page_database
from kenpin.calibration.words import warnings_about
from kenpin.config import WebSection
from kenpin.edge_runtime.database import open_database, reading
from kenpin.errors import StoreError
from kenpin.masters import read_masters
from kenpin.record import CalibrationRecord, load_records
from kenpin.sight import read_sight
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import BUNDLE, Made, inspect
from tests.calibration.web.page_station import PIN, MakeVisit, Visit, show_live
from tests.calibration.web.shown_line import ShownLine

WORDS = Path(calibrate_sign.__file__).parent
STRENGTHS = (0.6, 0.7, 0.8, 0.9, 1.0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, users_file: Path) -> Iterator[ShownLine]:
    line = ShownLine(tmp_path_factory.mktemp("shown"), users_file)
    yield line
    line.close()


@pytest.fixture
def line(running: ShownLine) -> Iterator[ShownLine]:
    """The station, with no calibration going on and none signed."""
    yield running
    end_calibrating(running.folder)
    Runs(running.folder.root / "page.db").end()
    for name in ("calibration.jsonl", "masters.jsonl"):
        (running.folder.root / name).unlink(missing_ok=True)
    running.wait(lambda: running.state() == "FAULT", "the end of the calibration")


@pytest.fixture
def browser(line: ShownLine) -> Visit:
    made = page_of(line.folder)
    made.log_in("sato")
    return made


def page_of(folder: StationFolder, **section: Any) -> Visit:
    app = create_app(folder, WebSection(**section), station="L2-03")
    return Visit(app, base_url="https://127.0.0.1", client=("127.0.0.1", 50000), follow_redirects=False)


def begin(browser: Visit, line: ShownLine, good: int = 12) -> None:
    line.wait(lambda: browser.submit("/calibrate/begin").status_code == 303, "the begin")
    line.wait(lambda: line.state() == "CALIBRATING", "the calibration")
    line.good(good)


def show_masters(browser: Visit, line: ShownLine) -> list[int]:
    assert browser.submit("/calibrate/step", step="masters").status_code == 303
    seqs = []
    for number, strength in enumerate(STRENGTHS, start=1):
        line.bad(strength)
        seqs.append(max(map(int, re.findall(r'name="seq" value="(\d+)"', browser.get("/calibrate").text))))
        said = {"kind": "master", "name": f"M-{number:02}", "type": "stain"}
        assert browser.submit("/calibrate/label", seq=str(seqs[-1]), **said).status_code == 303
    assert browser.submit("/calibrate/step", step="limits").status_code == 303
    return seqs


def places(browser: Visit) -> tuple[float, float]:
    text = browser.get("/calibrate").text
    found = re.findall(r'name="(t[12])" type="number" step="any" value="([^"]+)"', text)
    values = {name: float(value) for name, value in found}
    return values["t1"], values["t2"]


def shown_to_sign(browser: Visit) -> str:
    """What the form says that whoever signs has seen."""
    return "".join(re.findall(r'name="seen" value="([^"]+)"', browser.get("/calibrate").text))


def sign(browser: Visit, **fields: str) -> Any:
    said = {"pin": PIN, "why": "x", "seen": shown_to_sign(browser), **fields}
    return browser.submit("/calibrate/sign", **said)


def records(folder: StationFolder) -> list[CalibrationRecord]:
    return load_records(folder.records, PublicKey.load(folder.public_key))


def hashes(line: ShownLine) -> list[str]:
    """Of the pictures of all parts."""
    with reading(line.folder.database) as connection:
        return [row[0] for row in connection.execute("SELECT image_sha256 FROM part ORDER BY seq")]


def test_the_whole_way_by_forms(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    assert line.verdicts()[:12] == ["NO_DECISION"] * 12
    show_masters(browser, line)
    t1, t2 = places(browser)
    browser = page_of(line.folder)  # the page's process was started anew
    browser.log_in("sato")
    assert browser.submit("/calibrate/limits", t1=str(t1), t2=str(t2), do="accept").status_code == 303
    assert "PIN of sato" in browser.get("/calibrate").text
    signed = sign(browser, why="first time")
    assert signed.headers["location"] == "/calibrate?step=confirm"
    (record,) = records(line.folder)  # one: the fields were sent back as they were, and moved nothing
    assert (record.rank, record.state, record.by, record.why) == (1, "TRIAL", "sato", "first time")
    assert t1 <= record.t1 < t1 + 0.1
    assert t2 <= record.t2 < t2 + 0.1
    assert len(record.good) == 12
    assert sorted(name.split()[0] for name in record.masters) == ["M-01", "M-02", "M-03", "M-04", "M-05"]
    assert read_calibrating(line.folder) is None
    assert not read_masters(line.folder).registered
    line.wait(lambda: line.state() == "RUNNING", "the station by its new record")
    line.good(3)
    assert line.verdicts()[:3] == ["OK"] * 3
    assert "15 <small>/ 299" in browser.get("/calibrate").text


def test_nobody_signs_what_somebody_else_has_changed_meanwhile(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    masters = show_masters(browser, line)
    t1, t2 = places(browser)
    good = re.findall(r"/calibrate/look/(\d+)", browser.get("/calibrate").text)[0]
    assert browser.submit("/calibrate/limits", t1=str(t1), t2=str(t2 - 0.1), do="accept").status_code == 303

    before = shown_to_sign(browser)
    other = page_of(line.folder)
    other.log_in("abe")
    assert other.submit("/calibrate/label", seq=good, kind="left").status_code == 303
    refused = sign(browser, seen=before)
    assert (refused.status_code, "changed meanwhile" in refused.text) == (409, True)
    assert not line.folder.records.exists()
    assert shown_to_sign(browser) != before
    before = shown_to_sign(browser)
    said = {"kind": "master", "name": "M-98", "type": "dent"}  # neither a number nor a threshold changes
    assert other.submit("/calibrate/label", seq=str(masters[0]), **said).status_code == 303
    assert sign(browser, seen=before).status_code == 409
    for nothing in ({}, {"seen": ""}):
        unseen = browser.submit("/calibrate/sign", pin=PIN, why="x", **nothing)
        assert unseen.status_code == 409
    assert sign(browser).status_code == 303
    assert len(records(line.folder)) == 1


def test_the_record_knows_light_and_focus_and_the_masters_are_kept(browser: Visit, line: ShownLine) -> None:
    begin(browser, line, good=25)
    show_masters(browser, line)
    browser.submit("/calibrate/step", step="sign")
    line.wait(lambda: "few-pictures" not in browser.get("/calibrate").text, "the note of all pictures")
    assert sign(browser, keep="yes").status_code == 303
    (record,) = records(line.folder)
    assert record.quality is not None
    assert record.quality.pictures == 25
    known = read_masters(line.folder).registered
    assert sorted(known) == ["M-01", "M-02", "M-03", "M-04", "M-05"]
    weakest = min(record.masters, key=record.masters.__getitem__).split()[0]
    assert record.t2 == min(record.masters.values())
    assert {name for name, master in known.items() if master.expected == "REVIEW"} == {weakest}
    assert (line.folder.root / known["M-01"].picture).exists()
    assert "masters must be shown first" in browser.get("/calibrate").text
    begin(browser, line, good=8)  # anew: another one is the weakest
    browser.submit("/calibrate/step", step="masters")
    line.bad(1.0)
    seq = max(re.findall(r'name="seq" value="(\d+)"', browser.get("/calibrate").text), key=int)
    browser.submit("/calibrate/label", seq=seq, kind="master", name="M-04", type="stain")
    browser.submit("/calibrate/step", step="sign")
    assert sign(browser, keep="yes").status_code == 303
    expected = {name: master.expected for name, master in read_masters(line.folder).registered.items()}
    assert sorted(expected) == sorted(known)
    assert {name for name in expected if expected[name] == "REVIEW"} == {weakest, "M-04"}


def test_a_master_whose_picture_has_given_way_is_named_before_signing(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    second = show_masters(browser, line)[1]
    browser.submit("/calibrate/step", step="sign")
    assert 'id="unpictured"' not in browser.get("/calibrate").text
    with reading(line.folder.database) as connection:
        ((ref,),) = connection.execute("SELECT image_ref FROM part WHERE seq = ?", (second,))
    (line.folder.images / ref).unlink()
    assert "will not know these masters: M-02." in browser.get("/calibrate").text
    assert sign(browser, keep="yes").status_code == 303
    assert sorted(read_masters(line.folder).registered) == ["M-01", "M-03", "M-04", "M-05"]


def test_a_name_of_the_shift_check_is_not_given_to_another_part(browser: Visit, line: ShownLine) -> None:
    known = make_master("M-01", "dent", "NG", picture=b"x", suffix=".png")
    add_master(line.folder, known, b"x", by="sato", why="limit sample")
    begin(browser, line)
    browser.submit("/calibrate/step", step="masters")
    line.bad(0.9)
    text = browser.get("/calibrate").text
    assert 'name="name" value="M-02"' in text
    (seq,) = re.findall(r'name="seq" value="(\d+)"', text)
    assert 'name="name" value="M-02"' in browser.get(f"/calibrate/look/{seq}").text
    said = {"seq": seq, "kind": "master", "name": "M-01"}
    refused = browser.submit("/calibrate/label", **said, type="stain")
    assert (refused.status_code, "M-01 is registered already: dent." in refused.text) == (409, True)
    assert browser.submit("/calibrate/label", **said, type="dent").status_code == 303  # the same part again


def test_a_damaged_picture_is_none_for_the_page_and_for_the_signature(browser: Visit, line: ShownLine) -> None:
    first = line.parts()  # of other tests
    begin(browser, line, good=25)
    show_masters(browser, line)
    browser.submit("/calibrate/step", step="sign")
    line.wait(lambda: "few-pictures" not in browser.get("/calibrate").text, "the note of all pictures")
    with reading(line.folder.database) as connection:
        sql = "SELECT image_ref FROM part WHERE seq > ? ORDER BY seq LIMIT 6"
        kept = [row[0] for row in connection.execute(sql, (first,))]
    for ref in kept:
        (line.folder.images / ref).write_bytes((line.folder.images / ref).read_bytes()[:40])

    def told() -> str:
        return browser.get("/calibrate").text.partition('id="few-pictures">')[2].partition("<")[0]

    line.wait(lambda: "19" in told(), "the count")
    assert sign(browser).status_code == 303
    assert records(line.folder)[0].quality is None


def test_parts_that_nobody_has_named_are_told_and_stand_in_the_record(browser: Visit, line: ShownLine) -> None:
    """Else many bad parts could be shown, and those alone be named that the station catches."""
    begin(browser, line)
    assert 'id="unnamed"' not in browser.get("/calibrate").text
    show_masters(browser, line)
    line.bad(0.0)
    line.bad(0.9)
    line.good()
    assert browser.submit("/calibrate/step", step="sign").status_code == 303
    assert "3, 2 of them below T1" in browser.get("/calibrate").text
    assert sign(browser, why="first").status_code == 303
    told = "first (shown after the good parts and not named: 3, 2 of them below T1)"
    assert records(line.folder)[0].why == told
    assert audit.read_audit(line.folder, PublicKey.load(line.folder.public_key))[-1]["why"] == told


def test_a_signing_that_broke_off_is_not_given_up(
    browser: Visit, line: ShownLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(browser, line)
    show_masters(browser, line)
    t1, t2 = places(browser)
    browser.submit("/calibrate/limits", t1=str(t1 - 20), t2=str(t2), do="accept")
    full = StoreError("the audit cannot be written", where="audit.jsonl", cure="make room")
    with monkeypatch.context() as disk:
        disk.setattr(calibrate_sign, "record_placed", Mock(side_effect=full))
        assert sign(browser).status_code == 503
    (suggested,) = records(line.folder)  # by the rule, which the technician did not mean
    refused = browser.submit("/calibrate/end")
    assert refused.status_code == 409
    assert f"T1 {suggested.t1:.6g} and T2 {suggested.t2:.6g} were written already" in refused.text
    with monkeypatch.context() as odd:
        left = suggested.model_copy(update={"t1": 1.25, "t2": 2.5})
        odd.setattr(calibrate_change, "half_signed", lambda *_: left)
        browser.cookies.set("__Host-language", "de")
        assert "als T1 1,25 und T2 2,5 schon geschrieben waren" in browser.submit("/calibrate/end").text
        browser.cookies.delete("__Host-language")
    assert read_calibrating(line.folder) is not None
    assert sign(browser).status_code == 303
    assert records(line.folder)[-1].t1 == pytest.approx(t1 - 20, abs=0.1)
    begin(browser, line)  # another one, after a whole signature
    assert browser.submit("/calibrate/end").status_code == 303


def test_pictures_that_gave_way_are_not_counted_where_limits_are_learned(
    browser: Visit, line: ShownLine
) -> None:
    begin(browser, line, good=25)
    show_masters(browser, line)
    browser.submit("/calibrate/step", step="sign")
    line.wait(lambda: "few-pictures" not in browser.get("/calibrate").text, "all pictures")
    with reading(line.folder.database) as connection:
        rows = connection.execute("SELECT image_ref FROM part ORDER BY seq DESC LIMIT 6 OFFSET 5")
        for (ref,) in rows.fetchall():
            (line.folder.images / ref).unlink()
    assert "Pictures of the good parts: 19. Below 20, no limits" in browser.get("/calibrate").text
    assert sign(browser).status_code == 303
    (record,) = records(line.folder)
    assert record.quality is None


def test_a_master_that_would_pass_blocks_the_page_and_the_server(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    show_masters(browser, line)
    shown = browser.get("/calibrate/limits", params={"t1": "250", "t2": "250"}).text
    assert "NG masters would be let through: M-01" in shown
    assert 'id="accept" disabled' in shown
    refused = browser.submit("/calibrate/limits", t1="250", t2="250", do="accept")
    assert refused.status_code == 409
    assert "M-01" in refused.text
    browser.submit("/calibrate/step", step="sign")  # past the button
    assert sign(browser).status_code == 409
    assert not line.folder.records.exists()
    assert read_calibrating(line.folder) is not None


def test_thresholds_move_by_arrows_and_back_to_the_suggestion(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    show_masters(browser, line)
    t1, t2 = places(browser)
    where = {"t1": str(t1), "t2": str(t2), "by": "0.5"}
    browser.submit("/calibrate/limits", do="t1_down", **where)
    assert places(browser) == pytest.approx((t1 - 0.5, t2))
    assert "Nothing is proved" in browser.get("/calibrate").text
    browser.submit("/calibrate/limits", do="t2_up", **where)
    assert places(browser) == pytest.approx((t1, t2 + 0.5))
    browser.submit("/calibrate/limits", do="t1_up", t1=str(t2), t2=str(t2), by="0.5")
    assert places(browser) == pytest.approx((t2 + 0.5, t2 + 0.5))
    browser.submit("/calibrate/limits", do="t2_down", t1=str(t1), t2=str(t1), by="0.5")
    assert places(browser) == pytest.approx((t1 - 0.5, t1 - 0.5))
    assert browser.submit("/calibrate/limits", do="place", t1="9", t2="8").status_code == 422
    assert browser.submit("/calibrate/limits", do="t2_up", t1="9", t2="1e308", by="1e308").status_code == 422
    browser.submit("/calibrate/limits", do="suggest", **where)
    assert places(browser) == (t1, t2)


def test_the_product_is_signed_and_parts_of_another_one_are_asked_after(
    browser: Visit, line: ShownLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(browser, line)
    asked = "is this the product of this model?"
    model = "<b>lamp-1.0</b>, "
    assert asked not in browser.get("/calibrate/shown").text
    browser.submit("/calibrate/step", step="sign")
    assert model in browser.get("/calibrate").text
    browser.submit("/calibrate/step", step="good")
    stats = {"mean": 0.5, "std": 0.1, "p99": 1.0, "count": 26.0}
    monkeypatch.setattr(calibrate_shown, "_manifest", lambda *_: {"score_stats": stats})
    assert asked in browser.get("/calibrate/shown").text
    browser.submit("/calibrate/step", step="sign")
    assert asked in browser.get("/calibrate").text


def test_pictures_that_the_model_was_trained_on_prove_nothing(
    browser: Visit, line: ShownLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(browser, line)
    line.wait(lambda: hashes(line)[-2], "the pictures' hashes")  # written down with the next part
    known = frozenset(hashes(line)[-3:-1])
    show_masters(browser, line)
    monkeypatch.setattr(calibrate_shown, "_manifest", lambda *_: {"learned_from": known})
    said = "The model was trained on 2 of these pictures, so their scores prove nothing"
    text = browser.get("/calibrate").text
    assert said in text
    assert 'id="accept" disabled' in text
    t1, t2 = places(browser)
    refused = browser.submit("/calibrate/limits", t1=str(t1), t2=str(t2), do="accept")
    assert refused.status_code == 409
    assert said in refused.text
    browser.submit("/calibrate/step", step="sign")  # past the button
    assert sign(browser).status_code == 409
    browser.submit("/calibrate/step", step="good")
    text = browser.get("/calibrate/shown").text
    assert said in text
    for seq in set(re.findall(r"/calibrate/look/(\d+)", text)):
        browser.submit("/calibrate/label", seq=seq, kind="left")
    assert said not in browser.get("/calibrate/shown").text
    browser.submit("/calibrate/step", step="sign")
    assert sign(browser).status_code == 303


def test_the_lots_are_asked_for_and_stand_in_the_record(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    assert "within 1 min; better two lots" in browser.get("/calibrate/shown").text
    show_masters(browser, line)
    assert "All within 1 min: proved for such parts only." in browser.get("/calibrate").text
    browser.submit("/calibrate/step", step="sign")
    text = browser.get("/calibrate").text
    assert "One lot or one time of day" in text
    assert 'id="few-pictures"' in text
    assert '<select name="lots" form="signing">' in text
    assert sign(browser, lots="10").status_code == 422
    assert sign(browser, lots="2").status_code == 303
    (record,) = records(line.folder)
    assert record.origin is not None
    assert record.origin.lots == 2
    assert not any("all good parts are from" in sentence for sentence in warnings_about(record))


def test_a_doubtful_part_can_be_left_out_or_become_a_master(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    line.bad(0.9)
    text = browser.get("/calibrate/shown").text
    assert "Is this one good?" in text
    (seq,) = re.findall(r"/calibrate/look/(\d+)", text)
    assert "It is a good part" in browser.get(f"/calibrate/look/{seq}").text
    browser.submit("/calibrate/label", seq=seq, kind="left")
    panel = browser.get("/calibrate/shown").text
    assert "1 left out" in panel
    assert f'href="/calibrate/look/{seq}"' in panel  # a slip can be taken back
    assert "Leave it out" in browser.get(f"/calibrate/look/{seq}").text
    browser.submit("/calibrate/label", seq=seq)  # taken back
    assert "Is this one good?" in browser.get("/calibrate/shown").text
    browser.submit("/calibrate/label", seq=seq, kind="good")
    assert "Is this one good?" not in browser.get("/calibrate/shown").text
    browser.submit("/calibrate/label", seq=seq, kind="master", name="M-09", type="dent")
    browser.submit("/calibrate/step", step="masters")
    assert "<b>M-09</b> dent" in browser.get("/calibrate").text


def test_parts_after_the_good_ones_do_not_count_as_good(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    browser.submit("/calibrate/step", step="masters")
    line.good(4)
    browser.submit("/calibrate/step", step="limits")
    browser.submit("/calibrate/step", step="good")
    assert "12 <small>/ 50" in browser.get("/calibrate/shown").text


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"kind": "master", "name": "M 1", "type": "dent"}, 422),
        ({"kind": "master", "name": "M-1", "type": " "}, 422),
        ({"kind": "other"}, 422),
        ({"kind": "left", "seq": "1"}, 409),
    ],
)
def test_what_makes_no_sense_is_refused(
    browser: Visit, line: ShownLine, said: dict[str, str], status: int
) -> None:
    begin(browser, line, good=1)
    (seq,) = set(re.findall(r"/calibrate/look/(\d+)", browser.get("/calibrate/shown").text))
    assert browser.submit("/calibrate/label", **{"seq": seq, **said}).status_code == status
    assert browser.submit("/calibrate/step", step="masters").status_code == 409
    assert browser.submit("/calibrate/begin").status_code == 409


def test_nothing_can_be_done_where_no_calibration_goes_on(browser: Visit) -> None:
    for path in ("step", "label", "limits", "sign"):
        fields = {"seq": "1", "step": "sign", "pin": PIN, "why": "x"}
        assert browser.submit(f"/calibrate/{path}", **fields).status_code == 409
    assert browser.get("/calibrate/shown").status_code == 204
    assert browser.get("/calibrate/limits?t1=1&t2=2").status_code == 409
    assert browser.get("/calibrate/look/1").status_code == 404


def test_giving_up_is_asked_again(browser: Visit, line: ShownLine) -> None:
    assert browser.get("/calibrate/end").status_code == 404
    begin(browser, line)
    for step in ("good", "masters", "sign"):
        browser.submit("/calibrate/step", step=step)
        text = browser.get("/calibrate").text
        assert 'href="/calibrate/end"' in text
        assert 'action="/calibrate/end"' not in text
    text = browser.get("/calibrate/end").text
    assert "Good parts shown: 12, masters: 0" in text
    assert 'action="/calibrate/end"' in text
    assert read_calibrating(line.folder) is not None


def test_few_masters_are_no_pass(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    show_masters(browser, line)  # 5 of the 10 that are wanted, all of them caught
    card = browser.get("/calibrate").text.partition('id="escapes"')[2]
    assert re.findall(r'class="tag \w+">([^<]*)', card)[0] == "NOT PROVED"


def test_a_refused_form_leads_back_to_its_page(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    fields = {"token": browser.token(), "step": "nowhere"}
    own = str(browser.base_url).rstrip("/")
    for before, leads_back in (
        (f"{own}/calibrate?x=1", True),
        ("http://elsewhere/calibrate", False),
        ("", False),
    ):
        sent = browser.post("/calibrate/step", data=fields, headers={"Origin": own, "Referer": before})
        assert sent.status_code == 422
        assert ('href="/calibrate?x=1" data-back' in sent.text) == leads_back
        assert ('name="back" value="/calibrate?x=1"' in sent.text) == leads_back
    foreign = {"Origin": own, "Referer": f"{own}//elsewhere"}
    assert "data-back" not in browser.post("/calibrate/step", data=fields, headers=foreign).text


def test_a_page_of_another_step_is_told_so(browser: Visit, line: ShownLine) -> None:
    assert browser.get("/calibrate/light?step=camera").status_code == 200
    assert browser.get("/calibrate/light?step=held").status_code == 204
    begin(browser, line)  # by somebody else, while the camera check stands open
    assert browser.get("/calibrate/light?step=camera").status_code == 204
    assert browser.get("/calibrate/shown?step=good").status_code == 200
    browser.submit("/calibrate/step", step="masters")
    assert browser.get("/calibrate/shown?step=good").status_code == 204
    assert browser.get("/calibrate/shown?step=masters").status_code == 200


def test_signing_needs_pin_reason_and_a_second_person_where_one_is_wanted(line: ShownLine) -> None:
    browser = page_of(line.folder, second_person=True)
    browser.log_in("sato")
    begin(browser, line)
    show_masters(browser, line)
    browser.submit("/calibrate/step", step="sign")
    assert sign(browser, why="").status_code == 422
    assert sign(browser).status_code == 422
    second = {"second_name": "abe", "second_pin": PIN}
    assert sign(browser, **second).status_code == 303
    assert records(line.folder)[0].by == "sato + abe"


def test_another_bundle_meanwhile_is_not_signed_for(browser: Visit, line: ShownLine) -> None:
    begin(browser, line)
    show_masters(browser, line)
    assert browser.submit("/calibrate/step", step="sign").status_code == 303
    seen = shown_to_sign(browser)
    active = line.folder.active.resolve()
    other = line.folder.bundles / ("e" * 64)
    other.mkdir(exist_ok=True)
    line.folder.activate(other)
    try:
        refused = sign(browser, seen=seen)
    finally:
        line.folder.activate(active)
    assert refused.status_code == 503
    assert "another bundle" in refused.text
    assert not line.folder.records.exists()


def test_a_station_that_gives_no_sign_of_life_is_not_calibrated(
    browser: Visit, line: ShownLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_change, "_STALE_S", 0.0)
    assert line.state() == "FAULT"
    assert browser.submit("/calibrate/begin").status_code == 409
    assert read_calibrating(line.folder) is None


def test_nothing_is_signed_while_the_station_does_not_run(
    browser: Visit, line: ShownLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record would not say how the cameras are set, and hold for any other way."""
    begin(browser, line)
    show_masters(browser, line)
    browser.submit("/calibrate/step", step="sign")
    with monkeypatch.context() as dead:
        dead.setattr(calibrate_change, "_STALE_S", 0.0)
        refused = sign(browser)
    assert (refused.status_code, "nobody knows how its cameras are set" in refused.text) == (409, True)
    assert not line.folder.records.exists()
    assert sign(browser).status_code == 303


def test_scores_of_two_models_are_not_signed_for_one(browser: Visit, line: ShownLine) -> None:
    """Without a record the station takes the faster model at each start, which may be the other one."""
    begin(browser, line)
    show_masters(browser, line)
    browser.submit("/calibrate/step", step="sign")
    change = "UPDATE calibration_run SET precision = iif(precision = 'int8', 'fp32', 'int8')"
    with page_database(line.folder.root / "page.db") as connection:
        connection.execute(change)
    refused = sign(browser)
    assert (refused.status_code, "begin anew" in refused.text) == (409, True)
    assert not line.folder.records.exists()
    with page_database(line.folder.root / "page.db") as connection:
        connection.execute(change)
    assert sign(browser).status_code == 303


@pytest.mark.parametrize("same", ["{ }", ""])  # in other words; of before this was kept
def test_scores_of_cameras_that_were_set_otherwise_are_not_signed_for_their_settings_now(
    browser: Visit, line: ShownLine, same: str
) -> None:
    begin(browser, line)
    show_masters(browser, line)
    browser.submit("/calibrate/step", step="sign")
    change = "UPDATE calibration_run SET cameras = ?"
    with page_database(line.folder.root / "page.db") as connection:
        assert connection.execute("SELECT cameras FROM calibration_run").fetchone() == ("{}",)
        connection.execute(change, (json.dumps({"usb0": {"exposure_us": 900.0}}),))
    refused = sign(browser)
    assert (refused.status_code, "set otherwise now" in refused.text) == (409, True)
    assert not line.folder.records.exists()
    with page_database(line.folder.root / "page.db") as connection:
        connection.execute(change, (same,))
    assert sign(browser).status_code == 303


def test_begin_and_end_stand_in_the_audit(browser: Visit, line: ShownLine) -> None:
    begin(browser, line, good=0)
    browser.submit("/calibrate/end")
    rows = audit.read_audit(line.folder, PublicKey.load(line.folder.public_key))
    said = [(row["by"], row["new"]) for row in rows if row["what"] == "calibrating"][-2:]
    assert said == [("sato", "begun: no part is released"), ("sato", "given up")]


def test_a_view_is_drawn_saved_and_carried_away(browser: Visit, line: ShownLine) -> None:
    begin(browser, line, good=2)
    line.wait(lambda: "data-drawing" in browser.get("/calibrate/view").text, "a picture to draw on")
    (seq,) = re.findall(r'name="seq" value="(\d+)"', browser.get("/calibrate/view").text)
    drawn = {"seq": seq, "roi": "10, 20, 200, 180", "ignore": "30,40 60,40 60,80\n100,100 120,100 120,130"}
    assert browser.submit("/calibrate/view", **drawn).status_code == 303
    saved = read_sight(line.folder.root / "view").view
    assert tuple(saved.roi) == (10, 20, 200, 180)
    assert saved.ignore[1] == ((100, 100), (120, 100), (120, 130))
    assert saved.align is None
    assert 'value="10,20,200,180"' in browser.get("/calibrate/view").text
    followed = {"seq": seq, "roi": "40,40,170,170", "part": "70,70,110,110", "shift": "12", "turn": "7.5"}
    assert browser.submit("/calibrate/view", **followed).status_code == 303
    saved = read_sight(line.folder.root / "view").view
    assert saved.align is not None
    assert (tuple(saved.align.template), saved.align.max_shift_px, saved.align.max_turn_deg) == (
        (70, 70, 110, 110),
        12,
        7.5,
    )
    shown = browser.get("/calibrate/view").text
    for field, value in (("part", "70,70,110,110"), ("shift", "12"), ("turn", "7.5")):
        assert re.search(rf'name="{field}"[^>]* value="{value}"', shown)
    packed = zipfile.ZipFile(io.BytesIO(browser.get("/calibrate/view.zip").content))
    assert json.loads(packed.read("view/view.json"))["frame_size"] == [256, 256]
    assert packed.read("view/reference.png").startswith(b"\x89PNG")


def test_a_view_saved_anew_keeps_the_match_that_is_in_use(browser: Visit, line: ShownLine) -> None:
    begin(browser, line, good=1)
    line.wait(lambda: "data-drawing" in browser.get("/calibrate/view").text, "a picture to draw on")
    (seq,) = re.findall(r'name="seq" value="(\d+)"', browser.get("/calibrate/view").text)
    still = {"seq": seq, "roi": "40,40,170,170"}
    followed = {**still, "part": "70,70,110,110", "shift": "12"}
    file = line.folder.root / "view" / "view.json"

    def saved(**drawn: str) -> float | None:
        assert browser.submit("/calibrate/view", **drawn).status_code == 303
        align = read_sight(file.parent).view.align
        return align.min_match if align else None

    assert saved(**still) is None
    assert saved(**followed) == 0.7
    file.write_text(file.read_text().replace('"max_shift_px"', '"min_match": 0.45, "max_shift_px"', 1))
    assert saved(**followed) == 0.45
    assert saved(**followed) == 0.45
    active = line.folder.active.resolve()
    other = line.folder.bundles / ("e" * 64)
    other.mkdir(exist_ok=True)
    (other / "manifest.json").write_text('{"view": {"align": {"min_match": 0.3}}}')
    line.folder.activate(other)
    try:
        assert saved(**followed) == 0.45
        assert saved(**still) is None  # what was drawn follows no part any more: the bundle's own is left
        assert saved(**followed) == 0.3
    finally:
        line.folder.activate(active)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
def test_a_manifest_that_was_damaged_is_told_with_the_cure(
    browser: Visit, line: ShownLine, content: bytes
) -> None:
    begin(browser, line)
    show_masters(browser, line)
    line.wait(lambda: "data-drawing" in browser.get("/calibrate/view").text, "a picture to draw on")
    (seq,) = re.findall(r'name="seq" value="(\d+)"', browser.get("/calibrate/view").text)
    (line.folder.root / "view/view.json").unlink(missing_ok=True)  # or its own match would do
    manifest = line.folder.active / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(content)
    try:
        answers = [
            browser.get("/calibrate"),
            sign(browser),
            browser.submit("/calibrate/view", seq=seq, roi="40,40,170,170", part="70,70,110,110"),
        ]
    finally:
        manifest.write_bytes(whole)
    for answer in answers:
        assert answer.status_code == 503
        assert "the manifest of the bundle is damaged" in answer.text
        assert "kenpin bundle install FILE" in answer.text
    assert not line.folder.records.exists()


@pytest.mark.parametrize(
    "drawn",
    [
        {"roi": "0,0,900,900"},
        {"roi": "1,2,3"},
        {"roi": "a,b,c,d"},
        {"roi": "0,0,inf,9"},
        {"roi": "0,0,9,9", "ignore": "1,1 2,2"},
        {"roi": ""},
        {"roi": "40,40,170,170", "part": "70,70,110"},
        {"roi": "40,40,170,170", "part": "70,70,110,110", "shift": "far"},
        {"roi": "40,40,170,170", "part": "70,70,110,110", "shift": "inf"},
        {"roi": "40,40,170,170", "part": "70,70,110,110", "shift": "90"},
        {"roi": "40,40,170,170", "part": "70,70,110,110", "turn": "360"},
    ],
)
def test_a_view_that_cannot_be_used_is_not_saved(
    browser: Visit, line: ShownLine, drawn: dict[str, str]
) -> None:
    begin(browser, line, good=1)
    line.wait(lambda: "data-drawing" in browser.get("/calibrate/view").text, "a picture to draw on")
    (seq,) = re.findall(r'name="seq" value="(\d+)"', browser.get("/calibrate/view").text)
    view = line.folder.root / "view" / "view.json"
    before = view.read_bytes() if view.exists() else b""
    assert browser.submit("/calibrate/view", seq=seq, **drawn).status_code == 422
    assert (view.read_bytes() if view.exists() else b"") == before
    assert browser.submit("/calibrate/view", seq="999999", roi="0,0,9,9").status_code == 404


@pytest.mark.parametrize("language", ["en", "ja", "de"])
def test_what_is_wrong_with_a_view_is_said_in_the_language_of_the_page(
    visit: MakeVisit, folder: StationFolder, language: str
) -> None:
    (seq,) = inspect(folder, [Made(0.1)])
    picture = np.full((256, 256, 3), 90, np.uint8)
    cv2.circle(picture, (80, 80), 16, (255, 255, 255), -1)
    for left in (176, 192):
        cv2.rectangle(picture, (left, 56), (left + 7, 63), (255, 255, 255), -1)
    cv2.imwrite(str(folder.images / f"day/{seq}.png"), picture)
    visitor = visit(language=language)
    visitor.log_in("sato")
    texts, roi = json.loads((WORDS / f"{language}.json").read_text(encoding="utf-8")), "40,40,170,170"
    for key, drawn in (
        ("unfit_roi_outside", {"roi": "0,0,900,900"}),
        ("unfit_roi_room", {"roi": roi, "part": "70,70,110,110", "shift": "50"}),
        ("unfit_mask_corners", {"roi": roi, "ignore": "1,1 2,2"}),
        ("unfit_mask_outside", {"roi": roi, "ignore": "1,1 2,2 300,2"}),
        ("unfit_mask_all", {"roi": "9,9,9,9", "ignore": "0,0 99,0 99,99 0,99"}),
        ("unfit_part_small", {"roi": roi, "part": "70,70,9,90"}),
        ("unfit_part_room", {"roi": roi, "part": "0,0,110,110"}),
        ("unfit_part_masked", {"roi": roi, "part": "70,70,110,110", "ignore": "80,80 90,80 90,90"}),
        ("unfit_part_plain", {"roi": roi, "part": "150,150,32,32"}),
        ("unfit_part_alike", {"roi": roi, "part": "172,52,16,16"}),
        ("unfit_part_round", {"roi": roi, "part": "56,56,48,48", "turn": "180"}),
        ("unfit_greater_than_equal", {"roi": roi, "part": "70,70,110,110", "shift": "0"}),
        ("unfit_less_than_equal", {"roi": roi, "part": "70,70,110,110", "turn": "360"}),
        ("view_not_numbers", {"roi": roi, "ignore": "1,1,1 2,2,2 3,3,3"}),
    ):
        told = visitor.submit("/calibrate/view", seq=str(seq), **drawn)
        pieces = re.split(r"\{\w+\}", texts[key])
        assert told.status_code == 422, key
        assert re.search(".*".join(map(re.escape, pieces)), told.text), key


def test_a_view_is_drawn_on_a_picture_of_a_part_that_was_not_stopped(
    visit: MakeVisit, folder: StationFolder
) -> None:
    parts = [Made(0.1), Made(0.2), Made(0.4), Made(0.5), Made(0.1), Made(0.1, has_picture=False)]
    seqs = inspect(folder, parts)
    (folder.images / f"day/{seqs[4]}.png").unlink()
    browser = visit()
    browser.log_in("sato")

    def shown(query: str = "") -> int:
        return int(re.findall(r'name="seq" value="(\d+)"', browser.get(f"/calibrate/view{query}").text)[0])

    older = [shown(f"?before={seq}") for seq in seqs[:2]]
    assert (shown(), older) == (seqs[1], [0, seqs[0]])
    for gone in seqs[4:]:
        assert browser.submit("/calibrate/view", seq=str(gone), roi="0,0,9,9").status_code == 404
    assert browser.submit("/calibrate/view", seq=str(seqs[0]), roi="9,9,90,90").status_code == 303
    assert 'value="9,9,90,90"' in browser.get("/calibrate/view").text
    rows = audit.read_audit(folder, PublicKey.load(folder.public_key))
    assert [row["by"] for row in rows if row["what"] == "view"] == ["sato"]
    other = np.zeros((80, 100, 3), np.uint8)  # the camera gives another size from now on
    assert cv2.imwrite(str(folder.images / f"day/{seqs[1]}.png"), other)
    assert 'value="0,0,100,80"' in browser.get("/calibrate/view").text
    (folder.root / "view/view.json").write_text("{")
    assert "kenpin train --view" not in browser.get("/calibrate/view").text


def test_without_a_station_nothing_begins(visit: MakeVisit, folder: StationFolder) -> None:
    browser = visit()
    browser.log_in("sato")
    assert browser.submit("/calibrate/begin").status_code == 409
    assert "No picture comes" in browser.get("/calibrate").text
    assert browser.get("/calibrate/view").status_code == 200
    assert browser.get("/calibrate/view.zip").status_code == 404
    show_live(folder)
    assert "Flicker" in browser.get("/calibrate").text
    begin_calibrating(folder, "abe")
    assert "abe calibrates this station" in browser.get("/calibrate").text
    assert browser.submit("/calibrate/end").status_code == 303
    assert read_calibrating(folder) is None


def test_a_part_that_is_shown_again_counts_once_at_every_step(people: StationFolder, visit: MakeVisit) -> None:
    browser = visit()
    seqs = inspect(people, [Made(0.2, cause="calibrating")] * 12)
    with closing(open_database(people.database)) as connection:
        connection.execute("UPDATE part SET part_id = 'cavity-' || (seq % 6)")
    runs = Runs(people.root / "page.db")
    runs.begin(Start("sato", BUNDLE, "int8", 0))
    assert "6 <small>/ 50" in browser.get("/calibrate/shown").text
    runs.go("masters", newest_seq=seqs[9])
    for seq in seqs[10:]:
        runs.label(seq, Label("master", "M-01", "dent"))
    text = browser.get("/calibrate").text
    assert ("1 <small>/ 10" in text, "Good parts 6" in text) == (True, True)
    runs.go("limits", newest_seq=0)
    assert "of 6 good parts stopped" in browser.get("/calibrate").text


def test_a_label_means_the_suggestion_again(people: StationFolder, visit: MakeVisit) -> None:
    visit()
    runs = Runs(people.root / "page.db")
    runs.begin(Start("sato", "f" * 64, "int8", 0))
    for change in (lambda: runs.label(5, Label("left")), lambda: runs.unlabel(5)):
        runs.place(1.0, 2.0)
        change()
        run = runs.read()
        assert run is not None
        assert (run.t1, run.t2) == (None, None)


def test_a_calibration_that_cannot_begin_leaves_the_one_that_goes_on(people: StationFolder) -> None:
    prepare_page_database(people.root / "page.db")
    runs = Runs(people.root / "page.db")
    runs.begin(Start("sato", "7f" * 32, "int8", 3))
    runs.label(5, Label("left"))
    with pytest.raises(Exception, match="NOT NULL"):
        runs.begin(Start(None, "7f" * 32, "int8", 9))  # type: ignore[arg-type]
    kept = runs.read()
    assert kept is not None
    assert (kept.start.by, [*kept.labels]) == ("sato", [5])
