"""The calibration record: what is altered, removed, inserted or moved is found."""

from __future__ import annotations

import math
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kenpin.canonical_json import canonical_json
from kenpin.errors import CalibrationError
from kenpin.record import CalibrationRecord, append_record, head, load_records
from kenpin.signing import SecretKey
from tests import specimens

KEY = SecretKey.generate()


def record(rev: int, previous: str, **changes: Any) -> CalibrationRecord:
    place = {"rev": rev, "created_ms": 1000 + rev, "previous_sha256": previous, "by": "Aiko", "why": ""}
    scores = {"good": {"a.png": 1.0, "良品.png": 1.25}, "masters": {"m.png": 3.0}, "t1": 1.5, "t2": 2.5}
    return specimens.record(**{**place, **scores, **changes})


@pytest.fixture
def four(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.jsonl"
    for rev in range(1, 5):
        append_record(path, record(rev, head(path)), KEY)
    return path


def test_records_come_back_in_order(four: Path) -> None:
    records = load_records(four, KEY.public)
    assert [r.rev for r in records] == [1, 2, 3, 4]
    assert records[0] == record(1, "")
    assert four.read_bytes().count(b"\n") == 4


def test_a_record_of_a_newer_kenpin_is_not_called_damaged(four: Path) -> None:
    body = {**record(5, head(four)).model_dump(mode="json", by_alias=True), "came_in_2031": {"größe": 1.5}}

    def append(signature: str) -> CalibrationError:
        line = canonical_json({"record": body, "signature": signature}) + b"\n"
        four.write_bytes(b"".join(four.read_bytes().splitlines(keepends=True)[:4]) + line)
        with pytest.raises(CalibrationError) as refused:
            load_records(four, KEY.public)
        return refused.value

    newer = append(KEY.sign(canonical_json(body), comment="calibration rev 5"))
    assert newer.what == "the calibration record is of another version of kenpin"
    assert "move the file away" not in newer.cure
    assert append(SecretKey.generate().sign(canonical_json(body), comment="")).what.endswith("is damaged")


def test_an_older_record_says_nothing_of_levels_and_a_new_one_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "calibration.jsonl"
    append_record(path, record(1, ""), KEY)
    assert b"good_levels" not in path.read_bytes()
    levels = {"a.png": (1.0, 0.5, 0.25), "良品.png": (1.25, 0.0, -1.0)}
    append_record(path, record(2, head(path), good_levels=levels), KEY)
    assert [r.good_levels for r in load_records(path, KEY.public)] == [None, levels]


def test_no_file_holds_no_record(tmp_path: Path) -> None:
    assert load_records(tmp_path / "none", KEY.public) == []
    assert head(tmp_path / "none") == ""


def _alter(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"t1":1.5', b'"t1":2.0'), *lines[2:]]


TAMPERED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "a number altered": (_alter, 2),
    "last line altered": (lambda ls: [*ls[:3], ls[3].replace(b"Aiko", b"Eve")], 4),
    "first removed": (lambda ls: ls[1:], 1),
    "middle removed": (lambda ls: [ls[0], *ls[2:]], 2),
    "a line inserted twice": (lambda ls: [ls[0], ls[0], *ls[1:]], 2),
    "an old line appended again": (lambda ls: [*ls, ls[1]], 5),
    "two exchanged": (lambda ls: [ls[0], ls[2], ls[1], ls[3]], 2),
    "last line cut": (lambda ls: [*ls[:3], ls[3][:100]], 4),
    "an empty line": (lambda ls: [*ls[:2], b"", *ls[2:]], 3),
    "no JSON": (lambda ls: [*ls[:3], b"\xff\x00"], 4),
    "an unknown field": (lambda ls: [*ls[:3], ls[3].replace(b'"by":', b'"bye":1,"by":')], 4),
    "spaces in a middle line": (lambda ls: [ls[0], ls[1] + b" ", *ls[2:]], 3),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_found_and_the_line_named(four: Path, how: str) -> None:
    tamper, line = TAMPERED[how]
    four.write_bytes(b"".join(part + b"\n" for part in tamper(four.read_bytes().splitlines())))
    with pytest.raises(CalibrationError) as caught:
        load_records(four, KEY.public)
    assert caught.value.where.endswith(f"line {line}")
    assert "calibrate" in caught.value.cure


def test_every_byte_counts(four: Path) -> None:
    """Flip a bit in many places of the last line: no other record is ever accepted."""
    content = four.read_bytes()
    start = content[:-1].rfind(b"\n") + 1
    genuine, refused = load_records(four, KEY.public), 0
    for position in range(start, len(content) - 1, 7):
        flipped = bytearray(content)
        flipped[position] ^= 1
        four.write_bytes(flipped)
        # The untrusted comment of the signature alone may change.
        try:
            assert load_records(four, KEY.public) == genuine
        except CalibrationError:
            refused += 1
    assert refused > 100


def append_on_a_full_disk(path: Path, *, room: int) -> None:
    """The fifth record, of which only so many bytes find room."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, usual[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            append_record(path, record(5, head(path), why="not finished"), KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [0, 1, 300])
def test_a_record_that_found_no_room_costs_none_that_was_there(four: Path, room: int) -> None:
    before = four.read_bytes()
    append_on_a_full_disk(four, room=room)
    assert len(four.read_bytes()) == len(before) + room
    assert [r.rev for r in load_records(four, KEY.public)] == [1, 2, 3, 4]
    append_record(four, record(5, head(four), why="finished"), KEY)
    assert [r.why for r in load_records(four, KEY.public)] == ["", "", "", "", "finished"]
    assert four.read_bytes().startswith(before)


def test_wherever_the_last_line_was_torn_the_ones_before_stay_and_the_next_one_follows(four: Path) -> None:
    whole = four.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in {*range(start, len(whole), 53), len(whole) - 1}:
        four.write_bytes(whole[:end])
        assert [r.rev for r in load_records(four, KEY.public)] == [1, 2, 3]
        append_record(four, record(4, head(four), why="again"), KEY)
        assert [r.why for r in load_records(four, KEY.public)] == ["", "", "", "again"]


def test_the_very_first_record_may_be_torn(tmp_path: Path) -> None:
    path = tmp_path / "calibration.jsonl"
    path.write_bytes(b'{"record":')
    assert load_records(path, KEY.public) == []
    assert head(path) == ""
    append_record(path, record(1, head(path)), KEY)
    assert [r.rev for r in load_records(path, KEY.public)] == [1]


def test_a_stranger_cannot_append(four: Path) -> None:
    append_record(four, record(5, head(four)), SecretKey.generate())
    with pytest.raises(CalibrationError, match="not trusted here"):
        load_records(four, KEY.public)


def test_a_number_is_never_left_out(four: Path) -> None:
    append_record(four, record(6, head(four)), KEY)
    with pytest.raises(CalibrationError, match="removed or inserted"):
        load_records(four, KEY.public)


@pytest.mark.parametrize(
    "changes",
    [
        {"t1": 3.0},
        {"t1": math.nan},
        {"t2": math.inf},
        {"good": {"a": math.nan}},
        {"masters": {"a": math.inf}},
        {"bundle_sha256": "short"},
        {"precision": "fp64"},
        {"false_calls": {"seen": 1, "of": 0, "bound": 0.5, "confidence": 0.95}},
    ],
)
def test_impossible_records_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        record(1, "", **changes)
