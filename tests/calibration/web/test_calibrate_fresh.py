"""Fresh parts in production confirm a calibration by themselves, or show that it does not hold."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from kenpin import audit
from kenpin.book import calibration_lock, open_book
from kenpin.calibrating import begin_calibrating
from kenpin.calibration.fit import Basis, record_fit
from kenpin.calibration.masters_book import append_check
from kenpin.calibration.review import Label, keep_answer
from kenpin.calibration.review_bench import part_of
from kenpin.calibration.scores import PictureScore, ScoreSet
from kenpin.calibration.threshold import false_call_bound, parts_needed
from kenpin.calibration.web import calibrate_fresh, fresh_parts
from kenpin.calibration.web.app import create_app
from kenpin.calibration.web.calibrate_fresh import FreshCount, confirm_when_due, count_fresh, watch_fresh
from kenpin.config import WebSection
from kenpin.edge_runtime.database import open_database
from kenpin.masters import Check, Showing
from kenpin.placed import Placement, record_placed
from kenpin.record import Bound, CalibrationRecord, Origin
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import Made, calibrate, inspect
from tests.calibration.web.page_station import MakeVisit

GOOD = [10.0 + 0.1 * k for k in range(50)]
Judge = Callable[..., None]


@pytest.fixture
def record(station: StationFolder) -> CalibrationRecord:
    """50 good parts, T1 = T2 just above the highest."""
    scores = ScoreSet(tuple(PictureScore(f"seq {k + 1}", score, f"p{k}") for k, score in enumerate(GOOD)))
    basis = Basis(station.active.resolve().name, "int8", "sato", "test")
    with calibration_lock(station):
        return record_fit(station, scores, basis)


@pytest.fixture
def judge(station: StationFolder, write_grey: Callable[[Path, int], None]) -> Judge:
    """Let the station judge parts in production, numbers from 1001 on."""
    write_grey(station.images / "day" / "one.png", 90)

    def parts(record: CalibrationRecord, verdicts: Sequence[str], *, part_id: str = "") -> None:
        sql = """INSERT INTO part (seq, part_id, ts_ms, verdict, reason, cause, score, camera, session_id,
            captured_mono_ns, decided_mono_ns, decided_ns, t1, t2, threshold_rev, bundle_sha256, latency_ms,
            frame_id, image_ref)
            VALUES (?, ?, 0, ?, '', '', ?, 'c', 's', 0, 0, 0, ?, ?, ?, ?, 1, 1, 'day/one.png')"""
        with closing(open_database(station.database)) as connection:
            (last,) = connection.execute("SELECT coalesce(max(seq), 1000) FROM part").fetchone()
            score = {"OK": record.t1 - 1, "NG": record.t2, "REVIEW": record.t1, "NO_DECISION": record.t2}
            limits = (record.t1, record.t2, record.rev, record.bundle_sha256)
            connection.execute("BEGIN")
            for seq, verdict in enumerate(verdicts, start=last + 1):
                connection.execute(sql, (seq, part_id or f"f{seq}", verdict, score[verdict], *limits))
            connection.execute("COMMIT")

    return parts


def answer(station: StationFolder, seq: int, label: Label) -> None:
    part = part_of(station, seq)
    assert part is not None
    keep_answer(station, part, label, name="abe", is_master=False)


def confirm(station: StationFolder) -> CalibrationRecord:
    record = confirm_when_due(station)
    assert record is not None
    return record


def counted(station: StationFolder) -> FreshCount:
    found = count_fresh(station)
    assert found is not None
    return found


def place(station: StationFolder, record: CalibrationRecord, *, looks: int) -> CalibrationRecord:
    """Place T1 below the fitted one by hand."""
    placement = Placement(record.t1 - 0.5, record.t2, looks=looks, by="sato", why="closer")
    with calibration_lock(station):
        return record_placed(open_book(station), record.bundle_sha256, placement)


def test_enough_fresh_parts_confirm(station: StationFolder, record: CalibrationRecord, judge: Judge) -> None:
    judge(record, ["OK"] * 248 + ["NO_DECISION"])
    assert (counted(station).parts, counted(station).needed) == (298, 299)
    assert confirm_when_due(station) is None
    judge(record, ["OK"])
    confirmed = confirm(station)
    assert (confirmed.state, confirmed.rev, confirmed.t1) == ("CONFIRMED", 2, record.t1)
    assert confirmed.false_calls is not None
    assert (confirmed.false_calls.seen, confirmed.false_calls.of) == (0, 299)
    assert confirm_when_due(station) is None
    assert counted(station).record.state == "CONFIRMED"


@pytest.mark.parametrize(("last_s", "is_narrow"), [(480, True), (10_800, False)])
def test_what_parts_of_ten_minutes_prove_holds_for_such_parts_only(
    station: StationFolder, record: CalibrationRecord, judge: Judge, last_s: int, *, is_narrow: bool
) -> None:
    with calibration_lock(station):
        book = open_book(station)
        record = book.append({**record.model_dump(by_alias=True), "origin": Origin(lots=0, minutes=2)})
    judge(record, ["OK"] * 249)
    with closing(open_database(station.database)) as connection:
        late = f"captured_mono_ns = {last_s} * 1000000000, ts_ms = 1795810000000"
        connection.execute(f"UPDATE part SET {late} WHERE seq > 1200")  # the clock is set meanwhile
    app = create_app(station, WebSection(), station="L2-03")
    page = TestClient(app, base_url="https://127.0.0.1", client=("127.0.0.1", 50000))
    for state in ("TRIAL", "CONFIRMED"):
        shown = page.get("/calibrate/fresh").text
        assert (state in shown, "within 8 min at a time: proved for such parts only" in shown) == (
            True,
            is_narrow,
        )
        confirm_when_due(station)
    confirmed = counted(station)
    assert confirmed.record.origin == Origin(lots=0, minutes=last_s / 60)
    judge(confirmed.record, ["OK"] * 2)
    with closing(open_database(station.database)) as connection:
        connection.execute("UPDATE part SET captured_mono_ns = 90000 * 1000000000 WHERE seq = 1251")
    assert counted(station).origin == confirmed.record.origin  # what comes later proves nothing


def test_a_part_whose_picture_was_trained_on_is_not_fresh(
    station: StationFolder, record: CalibrationRecord, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(record, ["OK"] * 3)
    with closing(open_database(station.database)) as connection:
        connection.execute("UPDATE part SET image_sha256 = ? WHERE seq = 1002", ("ab" * 32,))
    assert counted(station).parts == 53
    monkeypatch.setattr(fresh_parts, "learned_from", lambda *_: frozenset({"ab" * 32}))
    assert counted(station).parts == 52


def test_a_picture_that_was_shown_for_thresholds_before_is_not_fresh(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    fields = record.model_dump(by_alias=True)
    with calibration_lock(station):
        open_book(station).append({**fields, "shown_sha256": ("ab" * 32,)})
        newest = open_book(station).append(fields)
    judge(newest, ["OK"] * 3)
    with closing(open_database(station.database)) as connection:
        connection.execute("UPDATE part SET image_sha256 = ? WHERE seq = 1002", ("ab" * 32,))
    assert counted(station).parts == 52


def test_pictures_that_are_shown_again_count_once(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    """Twenty recorded parts, played again and again under new numbers, would be 300 fresh ones."""
    judge(record, ["OK"] * 300)
    with closing(open_database(station.database)) as connection:
        sql = "UPDATE part SET score_coarse = 0.25, score_mid = seq % 20, score_fine = 1, light = 90, focus = 1"
        connection.execute(sql)
        for changes, again in (
            ("", 280),
            ("score_fine = 1.5", 279),
            ("score = 9.5", 278),
            ("score_mid = 99", 277),
        ):
            if changes:
                seq = 1300 - 279 + again  # each of another picture
                connection.execute(f"UPDATE part SET {changes} WHERE seq = {seq}")
            assert (counted(station).parts, counted(station).again) == (350 - again, again)
    assert confirm_when_due(station) is None


def test_a_picture_that_the_station_has_seen_for_the_thresholds_is_not_fresh(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    judge(record, ["OK"] * 3)
    with closing(open_database(station.database)) as connection:
        connection.execute("UPDATE part SET score_coarse = 1, score_mid = 2, score_fine = 3, light = seq")
        connection.execute("UPDATE part SET seq = 7, light = 1002 WHERE seq = 1001")  # one of the 50
    assert (counted(station).parts, counted(station).again) == (51, 1)


def test_pictures_that_the_thresholds_were_fitted_to_are_not_fresh_where_none_is_kept(
    station: StationFolder, judge: Judge
) -> None:
    fitted = tuple(
        PictureScore(f"{k}.png", score, f"p{k}", "", (0.1, 0.2, score)) for k, score in enumerate(GOOD)
    )
    basis = Basis(station.active.resolve().name, "int8", "sato", "test")
    with calibration_lock(station):
        record = record_fit(station, ScoreSet(fitted), basis)
    judge(record, ["OK"] * 3)
    with closing(open_database(station.database)) as connection:
        levels = "score_coarse = 0.1, score_mid = 0.2"
        connection.execute(f"UPDATE part SET score = 10.1, {levels}, score_fine = 10.1 WHERE seq = 1002")
        connection.execute(f"UPDATE part SET score = 10.1, {levels}, score_fine = 10.2 WHERE seq = 1003")
    assert (counted(station).parts, counted(station).again) == (52, 1)


def test_a_stopped_part_waits_for_an_answer_and_counts_as_it_says(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    judge(record, ["OK"] * 300 + ["NG"])
    assert [part.seq for part in counted(station).waiting] == [1301]
    assert confirm_when_due(station) is None
    answer(station, 1301, "good")
    assert (counted(station).stopped, counted(station).parts, counted(station).needed) == (1, 351, 473)
    assert confirm_when_due(station) is None
    answer(station, 1301, "bad")
    assert (counted(station).stopped, counted(station).parts) == (0, 350)
    confirmed = confirm(station)
    assert confirmed.why == (
        "300 fresh parts in production, seq 1001 to 1300; "
        "stopped, found bad by people and not counted: 1, seq 1301"
    )


def test_an_escape_counts_for_nothing_and_keeps_all_from_being_confirmed(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    judge(record, ["OK"] * 300)
    assert counted(station).is_due
    answer(station, 1005, "bad")
    count = counted(station)
    assert ([part.seq for part in count.escaped], count.parts, count.stopped) == ([1005], 349, 0)
    assert confirm_when_due(station) is None
    app = create_app(station, WebSection(), station="L2-03")
    shown = TestClient(app, base_url="https://127.0.0.1", client=("127.0.0.1", 50000)).get("/calibrate/fresh")
    assert "Released, and found bad on the review bench: 1" in shown.text
    part = part_of(station, 1005)
    assert part is not None
    keep_answer(station, part, "good", name="sato", is_master=False)  # now they do not agree
    count = counted(station)
    assert ([part.seq for part in count.escaped], count.waiting, count.parts) == ([1005], [], 349)
    assert confirm_when_due(station) is None
    answer(station, 1005, "good")
    assert counted(station).parts == 350
    confirmed = confirm(station)
    judge(confirmed, ["OK"])
    answer(station, 1301, "bad")  # this is told afterwards, too
    shown = TestClient(app, base_url="https://127.0.0.1", client=("127.0.0.1", 50000)).get("/calibrate/fresh")
    assert "Released, and found bad on the review bench: 1" in shown.text


def test_a_false_call_does_not_leave_the_count_while_it_waits(
    station: StationFolder, record: CalibrationRecord, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_parts, "_PARTS", 400)
    judge(record, ["NG"] + ["OK"] * 500)
    assert [part.seq for part in counted(station).waiting] == [1001]
    assert counted(station).parts == 50 + 399
    assert confirm_when_due(station) is None


def test_fresh_parts_are_found_without_reading_all_others(station: StationFolder) -> None:
    with closing(open_database(station.database)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {fresh_parts._JUDGED}", (1, "ab" * 32, 1.0, 2.0, 9))
        assert [row[3] for row in plan] == ["SEARCH part USING INDEX part_judged (threshold_rev=?)"]


@pytest.mark.parametrize(("language", "told"), [("en", "1,234 <small>/ 1,"), ("de", "1.234 <small>/ 1.")])
def test_the_count_is_written_as_the_language_writes_numbers(
    people: StationFolder, visit: MakeVisit, language: str, told: str
) -> None:
    inspect(people, [Made(None)])
    calibrate(people, rank=10, false_calls=Bound(seen=9, of=1234, bound=0.02, confidence=0.95))
    assert told in visit(language=language).get("/calibrate?step=confirm").text


def test_a_false_call_needs_more_parts(station: StationFolder, record: CalibrationRecord, judge: Judge) -> None:
    judge(record, ["OK"] * 422 + ["NG"])
    answer(station, 1423, "good")
    confirmed = confirm(station)
    assert confirmed.false_calls is not None
    assert (confirmed.state, confirmed.false_calls.seen) == ("CONFIRMED", 1)


def test_one_part_shown_again_and_again_counts_once(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    judge(record, ["OK"] * 400, part_id="same")
    assert counted(station).parts == 51


def test_parts_that_were_shown_in_a_check_of_the_masters_are_not_fresh(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    """The same good part after every showing, in production with `kenpin masters check`."""
    judge(record, ["OK"] * 3 + ["NG", "OK"] * 3)
    showings = [
        Showing(master="M-1" if seq % 2 else "", expected="NG", verdict="NG", seq=seq, score=1.0)
        for seq in range(1004, 1010)
    ]
    check = Check(passed=True, bundle_sha256=record.bundle_sha256, t1=1.0, t2=2.0, showings=tuple(showings))
    assert (counted(station).parts, len(counted(station).waiting)) == (56, 3)
    append_check(station, check, by="sato")
    assert (counted(station).parts, counted(station).waiting) == (53, [])


def test_nothing_is_confirmed_while_somebody_calibrates(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    judge(record, ["OK"] * 300)
    begin_calibrating(station, "sato")
    assert confirm_when_due(station) is None


def test_parts_judged_by_another_record_do_not_count(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    judge(record.model_copy(update={"rev": 7}), ["OK"] * 300)
    assert counted(station).parts == 50


def test_parts_judged_by_a_record_that_was_cut_off_do_not_count(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    """The record after it has the same number."""
    judge(record.model_copy(update={"t1": record.t1 - 0.5}), ["OK"] * 200)
    judge(record, ["OK"])
    assert counted(station).parts == 51


def test_a_station_without_calibration_counts_nothing(station: StationFolder) -> None:
    assert count_fresh(station) is None
    assert confirm_when_due(station) is None


@pytest.mark.parametrize("stopped", [0, 1])
def test_by_hand_fresh_parts_alone_are_looked_at_once(
    station: StationFolder, record: CalibrationRecord, judge: Judge, stopped: int
) -> None:
    placed = place(station, record, looks=1)
    judge(placed, ["OK"] * (298 - stopped) + ["NG"] * stopped)
    for seq in range(1299 - stopped, 1299):
        answer(station, seq, "good")
    assert (counted(station).parts, counted(station).needed) == (298, 299)
    assert confirm_when_due(station) is None
    judge(placed, ["OK"])
    looked = confirm(station)
    assert looked.state == ("TRIAL" if stopped else "CONFIRMED")
    judge(looked, ["OK"] * 400)
    assert counted(station).is_used_up
    assert confirm_when_due(station) is None


def test_a_look_counts_the_parts_up_to_it_however_late_the_stopped_ones_are_answered(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    """Who answers only when later parts have made up for a false call has looked until the count fits."""
    placed = place(station, record, looks=1)
    judge(placed, ["OK"] * 99 + ["NG"] + ["OK"] * 400)  # 473 parts prove the rate with one stopped
    assert confirm_when_due(station) is None
    answer(station, 1100, "good")
    assert (counted(station).parts, counted(station).stopped) == (299, 1)
    looked = confirm(station)
    assert looked.fresh is not None
    assert (looked.state, looked.fresh.parts, looked.fresh.stopped) == ("TRIAL", 299, 1)
    assert counted(station).is_used_up


def test_the_page_watches_by_itself(
    station: StationFolder, record: CalibrationRecord, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate_fresh, "EVERY_S", 0.01)
    judge(record, ["OK"] * 249)
    stopping = threading.Event()
    thread = threading.Thread(target=watch_fresh, args=(station, stopping))
    thread.start()
    while counted(station).record.state == "TRIAL":
        stopping.wait(0.05)
    stopping.set()
    thread.join()


def test_the_page_begins_to_watch_as_it_is_served(station: StationFolder) -> None:
    def watchers() -> int:
        return sum(thread.name == "fresh parts" for thread in threading.enumerate())

    with TestClient(create_app(station, WebSection(), station="L2-03")):
        assert watchers() == 1
    assert watchers() == 0


def test_what_is_confirmed_is_counted_no_more(
    station: StationFolder, record: CalibrationRecord, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every five seconds for years: 20,000 parts to read, and a lock to write."""
    judge(record, ["OK"] * 249)
    confirm(station)
    monkeypatch.setattr(calibrate_fresh, "judged_by", None)
    lock = station.root / "calibration.lock"
    lock.write_text("as it was")
    assert confirm_when_due(station) is None
    assert lock.read_text() == "as it was"


def test_the_watch_outlives_what_nobody_foresaw(
    station: StationFolder, record: CalibrationRecord, judge: Judge, caplog: pytest.LogCaptureFixture
) -> None:
    judge(record, ["OK"] * 249)
    manifest = station.active / "manifest.json"
    content = manifest.read_bytes()
    looks = []

    class Mended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.append(timeout)
            manifest.write_bytes(b'{"learned_from": 1}' if len(looks) < 3 else content)
            return len(looks) == 4

    watch_fresh(station, Mended())
    assert counted(station).record.state == "CONFIRMED"
    assert caplog.text.count("cannot be counted") == 1


def test_what_cannot_be_read_is_said_once(
    station: StationFolder, record: CalibrationRecord, caplog: pytest.LogCaptureFixture
) -> None:
    class Twice(threading.Event):
        looks = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.looks += 1
            return self.looks > 3

    assert record.rev == 1
    station.records.write_text("{}\n")
    watch_fresh(station, Twice())
    assert caplog.text.count("cannot be counted") == 1


@pytest.fixture
def proved(station: StationFolder) -> CalibrationRecord:
    """299 good parts, none of them stopped: they prove 10 per 1,000 without a fresh one."""
    scores = ScoreSet(tuple(PictureScore(f"g{k}", 10 + k / 100, f"p{k}") for k in range(299)))
    with calibration_lock(station):
        return record_fit(station, scores, Basis(station.active.resolve().name, "int8", "sato", "test"))


def test_what_is_proved_without_fresh_parts_is_confirmed_by_the_first_one(
    station: StationFolder, proved: CalibrationRecord, judge: Judge
) -> None:
    judge(proved, [])
    assert (counted(station).parts, counted(station).needed) == (299, 299)
    assert confirm_when_due(station) is None
    judge(proved, ["OK"])
    confirmed = confirm(station)
    assert confirmed.state == "CONFIRMED"


def test_nothing_is_proved_while_stopped_parts_wait(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    """Those that passed would be counted alone, as if nothing had been stopped."""
    judge(record, ["OK"] * 300 + ["NG"])
    assert counted(station).bound is None
    answer(station, 1301, "good")
    assert counted(station).bound == false_call_bound(1, 351)


@pytest.mark.parametrize("looks", [1, 2])
def test_where_fresh_parts_alone_count_there_are_as_many_looks_as_planned(
    station: StationFolder, record: CalibrationRecord, judge: Judge, looks: int
) -> None:
    standing = place(station, record, looks=looks)
    judge(standing, [])
    for taken in range(looks):
        found = counted(station)
        assert found.needed == parts_needed(0.01, stopped=taken, confidence=1 - 0.05 / looks)
        judge(standing, ["OK"] * (found.needed - found.parts - 3) + ["NG"] * 2)
        with closing(open_database(station.database)) as connection:
            (last,) = connection.execute("SELECT max(seq) FROM part").fetchone()
        answer(station, last - 1, "good")
        answer(station, last, "good")
        assert (counted(station).is_due, counted(station).bound) == (False, None)
        judge(standing, ["OK"])
        looked = confirm(station)
        assert (looked.state, confirm_when_due(station)) == ("TRIAL", None)
        standing = looked
    judge(standing, ["OK"] * 400)
    found = counted(station)
    assert found.is_used_up
    assert found.bound == standing.false_calls
    assert standing.fresh is not None
    assert (found.parts, found.stopped) == (standing.fresh.parts, 2 * looks)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE answer SET label = 'bad' WHERE number = 1", True),
        ("UPDATE answer SET name = 'eve' WHERE number = 2", True),
        ("DELETE FROM answer WHERE number = 2", True),
        ("DROP TABLE answer", True),
        ("UPDATE answer SET label = 'bad' WHERE number = 3", False),  # nothing rests on that one
    ],
)
def test_answers_that_a_record_rests_on_cannot_be_changed_unseen(
    *, station: StationFolder, record: CalibrationRecord, judge: Judge, change: str, found: bool
) -> None:
    judge(record, ["OK"] * 450 + ["NG", "REVIEW"])
    answer(station, 1451, "good")
    assert confirm_when_due(station) is None
    answer(station, 1452, "bad")
    confirmed = confirm(station)
    assert confirmed.answers is not None
    assert confirmed.answers.upto == 2
    answer(station, 1451, "bad")  # who thinks better of it answers again: the record stands as it was made
    key = PublicKey.load(station.public_key)
    assert audit.verify(station, key).findings == ()
    with closing(sqlite3.connect(station.root / "review.db")) as connection, connection:
        connection.execute(change)
    assert bool(audit.verify(station, key).findings) == found
    (station.root / "review.db").unlink()
    (finding,) = audit.verify(station, key).findings
    assert "calibration record 2 rests on" in finding


def test_a_record_without_answers_pins_none(
    station: StationFolder, record: CalibrationRecord, judge: Judge
) -> None:
    judge(record, ["OK"] * 249)
    confirmed = confirm(station)
    assert confirmed.answers is None
    station.records.write_bytes(station.records.read_bytes().replace(b'"by":"sato"', b'"by":"eve!"'))
    (finding,) = audit.verify(station, PublicKey.load(station.public_key)).findings
    assert "calibration record" in finding
