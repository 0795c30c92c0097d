"""The review bench without a page: what waits, what people said, and the folder that comes of it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from kenpin.calibration.review import Label, find_picture, keep_answer, picture_path, reviewed_parts
from kenpin.calibration.review_bench import near_misses, part_of, waiting_parts
from kenpin.calibration.review_cli import review as review_command
from kenpin.calibration.review_export import export_review
from kenpin.calibration.review_room import gone_pictures, make_room
from kenpin.calibration.what_if import known_parts
from kenpin.errors import DataError, StoreError
from kenpin.events import now_ms
from kenpin.pictures import read_data
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import BUNDLE, HOUR_MS, T1, Made, calibrate, inspect


@pytest.fixture
def folder(tmp_path: Path) -> StationFolder:
    made = StationFolder(tmp_path / "state")
    made.create()
    calibrate(made)
    return made


def say(folder: StationFolder, seq: int, label: Label, name: str = "sato", *, is_master: bool = False) -> None:
    part = part_of(folder, seq)
    assert part is not None
    keep_answer(folder, part, label, name=name, is_master=is_master)


def test_parts_from_before_a_start_in_the_past_still_wait(folder: StationFolder) -> None:
    """A board without a battery begins in 1970, until its clock is set."""
    before = inspect(folder, [Made(0.9, HOUR_MS)] * 20)
    inspect(folder, [Made(0.2, now_ms() - 60_000, has_picture=False)] * 30)
    after = inspect(folder, [Made(0.9)] * 5)
    assert [p.seq for p in waiting_parts(folder, (), limit=50)] == [*after[::-1], *before[::-1]]


def test_stopped_parts_wait_newest_first(folder: StationFolder) -> None:
    scores = (0.2, 0.4, 0.9, None)
    ok, review, ng, none = inspect(folder, [Made(s, cause="" if s else "blurred") for s in scores])
    assert [part.seq for part in waiting_parts(folder, [], limit=9)] == [none, ng, review]
    assert [part.seq for part in waiting_parts(folder, [ng], limit=9)] == [none, review]
    assert [part.seq for part in waiting_parts(folder, [], limit=2)] == [none, ng]
    assert ok not in [part.seq for part in waiting_parts(folder, [], limit=9)]


def test_what_nobody_can_answer_does_not_wait(folder: StationFolder) -> None:
    inspect(folder, [Made(0.9, age_ms=7 * 24 * HOUR_MS + 60_000), Made(0.9, has_picture=False)])
    _, gone = inspect(folder, [Made(0.9, cause="calibrating"), Made(0.9)])
    part = part_of(folder, gone)
    assert part is not None
    (folder.images / part.image_ref).unlink()
    assert not waiting_parts(folder, [], limit=9)


def test_near_misses_are_the_nearest_of_this_bundle(folder: StationFolder) -> None:
    near = inspect(folder, [Made(s) for s in (0.34, 0.36, 0.1, 0.9, 0.352)])
    inspect(folder, [Made(0.351, cause="calibrating"), Made(0.351, has_picture=False)])
    found = near_misses(folder, BUNDLE, T1, limit=3)
    assert [part.seq for part in found] == [near[0], near[4], near[1]]
    assert not near_misses(folder, "0" * 64, T1, limit=3)


def test_an_answer_keeps_its_picture(folder: StationFolder) -> None:
    (seq,) = inspect(folder, [Made(0.9)])
    part = part_of(folder, seq)
    assert part is not None
    content = (folder.images / part.image_ref).read_bytes()
    answer = keep_answer(folder, part, "bad", name="sato", is_master=False)
    (folder.images / part.image_ref).unlink()
    assert picture_path(folder, answer).read_bytes() == content
    (reviewed,) = reviewed_parts(folder)
    assert reviewed.newest == answer
    assert (answer.label, answer.verdict, answer.score, answer.name) == ("bad", "NG", 0.9, "sato")


def test_an_answer_needs_the_very_picture(folder: StationFolder) -> None:
    (seq,) = inspect(folder, [Made(0.9)])
    altered = part_of(folder, seq)
    assert altered is not None
    (folder.images / altered.image_ref).write_bytes(b"another")
    with pytest.raises(DataError, match="altered"):
        keep_answer(folder, altered, "good", name="sato", is_master=False)
    assert not reviewed_parts(folder)


def test_a_part_in_the_hand_can_be_answered_without_a_picture(folder: StationFolder, tmp_path: Path) -> None:
    (seq,) = inspect(folder, [Made(0.9, has_picture=False)])
    with pytest.raises(DataError, match="no picture of part"):
        say(folder, seq, "bad", is_master=True)
    say(folder, seq, "good")
    (reviewed,) = reviewed_parts(folder)
    assert (reviewed.label, reviewed.newest.picture_sha256) == ("good", "")
    counts = export_review(folder, tmp_path / "out")
    assert counts == {"good": 0, "bad": 0, "disputed": 0, "without_picture": 1, "gone": 0}


def test_a_second_opinion_uses_the_picture_of_the_first(folder: StationFolder) -> None:
    (seq,) = inspect(folder, [Made(0.9)])
    say(folder, seq, "bad", "sato", is_master=True)
    part = part_of(folder, seq)
    assert part is not None
    (folder.images / part.image_ref).unlink()
    say(folder, seq, "bad", "abe")
    (reviewed,) = reviewed_parts(folder)
    first, second = reviewed.answers
    assert first.picture_sha256 == second.picture_sha256 != ""


def test_the_newest_answer_of_each_person_counts(folder: StationFolder) -> None:
    first, second = inspect(folder, [Made(0.4), Made(0.4)])
    say(folder, first, "bad")
    say(folder, first, "good")
    say(folder, second, "bad", "sato")
    say(folder, second, "good", "abe")
    changed, disputed = reviewed_parts(folder)
    assert (changed.label, len(changed.answers)) == ("good", 1)
    assert disputed.label is None
    assert disputed.awaits("vera")
    say(folder, second, "bad", "abe")
    assert reviewed_parts(folder)[1].label == "bad"


def test_a_third_person_settles_what_two_do_not_agree_on(folder: StationFolder, tmp_path: Path) -> None:
    (seq,) = inspect(folder, [Made(0.9)])
    for label, name in (("good", "sato"), ("bad", "abe"), ("bad", "vera"), ("good", "sato")):
        say(folder, seq, label, name)
    (settled,) = reviewed_parts(folder)
    assert (settled.label, settled.newest.label) == ("bad", "good")
    assert not settled.awaits("kimura")
    assert known_parts([settled], BUNDLE, {}).bad == [settled.answers[1]]
    assert export_review(folder, tmp_path / "out")["bad"] == 1
    assert ",abe+vera," in (tmp_path / "out/manifest.csv").read_text()
    say(folder, seq, "good", "kimura")  # two against two
    assert reviewed_parts(folder)[0].label is None


def test_a_master_to_be_wants_somebody_else(folder: StationFolder) -> None:
    (seq, plain) = inspect(folder, [Made(0.9), Made(0.9)])
    say(folder, seq, "bad", is_master=True)
    say(folder, plain, "bad")
    wanted, other = reviewed_parts(folder)
    assert wanted.awaits("abe")
    assert not wanted.awaits("sato")
    assert not other.awaits("abe")
    say(folder, seq, "bad", "abe")
    assert not reviewed_parts(folder)[0].awaits("vera")
    assert reviewed_parts(folder)[0].is_master


def test_without_answers_there_are_none(folder: StationFolder) -> None:
    assert reviewed_parts(folder) == ()
    assert not (folder.root / "review.db").exists()
    (folder.root / "review.db").write_bytes(b"no database, but long enough to be looked at" * 9)
    with pytest.raises(StoreError):
        reviewed_parts(folder)


def test_the_export_is_a_folder_to_train_on(folder: StationFolder, tmp_path: Path) -> None:
    seqs = inspect(folder, [Made(0.4)] * 4 + [Made(0.9)] * 2)
    for seq in seqs[:4]:
        say(folder, seq, "good")
    say(folder, seqs[4], "bad")
    say(folder, seqs[5], "bad")
    say(folder, seqs[5], "good", "abe")
    out = tmp_path / "out"
    answer = CliRunner().invoke(
        review_command, ["export", "--state", str(folder.root), "--out", str(out), "--json"]
    )
    assert answer.exit_code == 0
    assert json.loads(answer.stdout) == {
        "out": str(out),
        "good": 4,
        "bad": 1,
        "disputed": 1,
        "without_picture": 0,
        "gone": 0,
    }
    data = read_data(out)
    assert {p.label for p in data.test} == {"good", "bad"}
    assert {p.group for p in (*data.train, *data.test)} == {f"A-{seq:05}" for seq in seqs[:5]}
    with (out / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["label"] for row in rows] == ["good"] * 4 + ["bad"]
    assert rows[0]["by"] == "sato"


def test_a_spreadsheet_takes_no_identity_for_a_formula(folder: StationFolder, tmp_path: Path) -> None:
    (seq,) = inspect(folder, [Made(0.9)])
    part = part_of(folder, seq)
    assert part is not None
    keep_answer(folder, replace(part, part_id="=1+1"), "bad", name="sato", is_master=False)
    export_review(folder, tmp_path / "out")
    assert "'=1+1" in (tmp_path / "out" / "manifest.csv").read_text()


def kept(folder: StationFolder) -> list[int]:
    """Numbers of the parts whose pictures are still there."""
    return [r.newest.part_seq for r in reviewed_parts(folder) if picture_path(folder, r.newest).is_file()]


def aged(folder: StationFolder, seqs: Sequence[int]) -> int:
    """Pictures labelled one second after the other; their size."""
    found = {r.newest.part_seq: picture_path(folder, r.newest) for r in reviewed_parts(folder)}
    for second, seq in enumerate(seqs):
        os.utime(found[seq], (second, second))
    return sum(found[seq].stat().st_size for seq in seqs)


def test_the_oldest_that_nobody_has_to_judge_give_way_first(folder: StationFolder) -> None:
    disputed, master, old, new = inspect(folder, [Made(0.9)] * 4)
    for seq in (disputed, old, new):
        say(folder, seq, "bad")
    say(folder, disputed, "good", "abe")
    say(folder, master, "bad", is_master=True)
    size = aged(folder, [disputed, master, old, new])
    make_room(folder, size)
    assert (kept(folder), gone_pictures(folder)) == ([disputed, master, old, new], frozenset())
    for left in ([disputed, master, new], [disputed, master], [master], []):
        make_room(folder, sum(p.stat().st_size for p in (folder.root / "review").iterdir()) - 1)
        assert kept(folder) == left
    assert gone_pictures(folder) == {r.newest.picture_sha256 for r in reviewed_parts(folder)}
    assert len(reviewed_parts(folder)) == 4


def test_a_picture_that_gave_way_is_not_exported_and_said(folder: StationFolder, tmp_path: Path) -> None:
    first, second = inspect(folder, [Made(0.9)] * 2)
    say(folder, first, "bad")
    say(folder, second, "bad")
    make_room(folder, aged(folder, [first, second]) - 1)
    out = tmp_path / "out"
    answer = CliRunner().invoke(review_command, ["export", "--state", str(folder.root), "--out", str(out)])
    assert f"pictures in {out}: 0 good, 1 bad" in answer.stderr
    assert "gave way to newer ones: 1" in answer.stderr
    assert [path.name for path in (out / "bad").iterdir()] == [f"{second:09}.png"]


def test_a_picture_that_gave_way_and_comes_again_counts(folder: StationFolder, tmp_path: Path) -> None:
    (seq,) = inspect(folder, [Made(0.9)])
    say(folder, seq, "bad")
    make_room(folder, 0)
    assert len(gone_pictures(folder)) == 1
    say(folder, seq, "bad")  # the line's own picture is still there
    assert (kept(folder), gone_pictures(folder)) == ([seq], frozenset())


def test_a_part_whose_picture_gave_way_is_answered_without(folder: StationFolder) -> None:
    (seq,) = inspect(folder, [Made(0.9)])
    say(folder, seq, "bad")
    make_room(folder, 0)
    part = part_of(folder, seq)
    assert part is not None
    (folder.images / part.image_ref).unlink()
    assert find_picture(folder, seq, part.image_ref) is None
    say(folder, seq, "good", "abe")
    assert reviewed_parts(folder)[0].newest.picture_sha256 == ""


def test_what_cannot_be_exported_is_said(folder: StationFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no part was looked at"):
        export_review(folder, tmp_path / "out")
    (seq,) = inspect(folder, [Made(0.9)])
    say(folder, seq, "bad")
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    with pytest.raises(DataError, match="not empty"):
        export_review(folder, full)
    picture_path(folder, reviewed_parts(folder)[0].newest).write_bytes(b"another")
    with pytest.raises(DataError, match="altered since it was labelled"):
        export_review(folder, tmp_path / "out")
