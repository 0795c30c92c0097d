"""The audit: what is altered, removed, inserted or cut off is found, back to the last witnessed head."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kenpin import audit, ledger
from kenpin.audit import CHECKPOINT, CHECKPOINT_MS, Entry, append, audit_file, checkpoint, head, verify
from kenpin.audit_cli import audit as audit_command
from kenpin.canonical_json import canonical_json
from kenpin.errors import ConfigError, KenpinError, StoreError
from kenpin.ledger import Head
from kenpin.signing import PublicKey, SecretKey
from kenpin.station_folder import StationFolder


@pytest.fixture
def station(tmp_path: Path) -> StationFolder:
    folder = StationFolder(tmp_path / "station")
    folder.create()
    return folder


@pytest.fixture
def five(station: StationFolder) -> StationFolder:
    for k in range(1, 6):
        append(station, Entry("thresholds", "愛子", f"T1 {k}", f"T1 {k + 1}", "new lamp"))
    return station


def public(folder: StationFolder) -> PublicKey:
    return PublicKey.load(folder.public_key)


def run(folder: StationFolder, *arguments: str) -> Result:
    verb, *rest = arguments
    return CliRunner().invoke(audit_command, [verb, "--state", str(folder.root), *rest])


def test_rows_come_back_and_nothing_is_found(five: StationFolder) -> None:
    rows = audit.read_audit(five, public(five))
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    assert (rows[1]["by"], rows[1]["old"], rows[1]["new"], rows[1]["why"]) == (
        "愛子",
        "T1 2",
        "T1 3",
        "new lamp",
    )
    report = verify(five, public(five), [head(five)])
    assert (report.rows, report.findings, report.notes) == (5, (), ())
    assert report.head == head(five)


def test_no_audit_is_no_finding_but_a_witnessed_one_that_is_gone_is(five: StationFolder) -> None:
    seen = head(five)
    audit_file(five).unlink()
    assert verify(five, public(five)).findings == ()
    assert "the end was cut off: row 5 was witnessed" in verify(five, public(five), [seen]).findings[0]


def without(line: bytes, *names: str, **said: object) -> bytes:
    """A line as its writer would write it, without some of what it says, and with something else."""
    found = json.loads(line)
    row = {name: value for name, value in found["row"].items() if name not in names}
    return canonical_json({**found, "row": {**row, **said}})


Tamper = Callable[[list[bytes]], list[bytes]]
TAMPERED: dict[str, tuple[Tamper, int]] = {
    "altered": (lambda ls: [ls[0], ls[1].replace(b"new lamp", b"old lamp"), *ls[2:]], 2),
    "first altered": (lambda ls: [ls[0].replace(b"T1 1", b"T1 9"), *ls[1:]], 1),
    "last altered": (lambda ls: [*ls[:4], ls[4].replace(b"new lamp", b"old lamp")], 5),
    "first removed": (lambda ls: ls[1:], 1),
    "middle removed": (lambda ls: [*ls[:2], *ls[3:]], 3),
    "exchanged": (lambda ls: [ls[0], ls[2], ls[1], *ls[3:]], 2),
    "twice": (lambda ls: [*ls, ls[4]], 6),
    "an empty line": (lambda ls: [*ls[:2], b"", *ls[2:]], 3),
    "a space": (lambda ls: [ls[0], ls[1] + b" ", *ls[2:]], 2),
    "a key twice": (lambda ls: [ls[0].replace(b'{"row"', b'{"row":{},"row"'), *ls[1:]], 1),
    "nested without end": (lambda ls: [b"[" * 100_000, *ls[1:]], 1),
    "no JSON": (lambda ls: [*ls[:4], b"\xff\x00"], 5),
    "a number": (lambda ls: [*ls[:4], b"5"], 5),
    "no row": (lambda ls: [*ls[:4], b"{}"], 5),
    "no previous row": (lambda ls: [*ls[:4], without(ls[4], "previous_sha256")], 5),
    "a number of words": (lambda ls: [*ls[:4], without(ls[4], seq="5")], 5),
    "a time of words": (lambda ls: [*ls[:4], without(ls[4], ts_ms="now")], 5),
    "a time without end": (lambda ls: [*ls[:4], without(ls[4], ts_ms=1 << 80)], 5),
    "a time before all": (lambda ls: [*ls[:4], without(ls[4], ts_ms=-(1 << 80))], 5),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_found_without_a_witness(five: StationFolder, how: str) -> None:
    tamper, row = TAMPERED[how]
    lines = tamper(audit_file(five).read_bytes().splitlines())
    audit_file(five).write_bytes(b"".join(line + b"\n" for line in lines))
    findings = verify(five, public(five)).findings
    assert findings[0].startswith(f"row {row} ")
    done = run(five, "verify", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["findings"] == list(findings)
    assert "1970" not in done.stderr
    assert isinstance(run(five, "export", "--csv").exception, StoreError)


@pytest.mark.parametrize("kept", range(5))
def test_a_cut_end_is_found_by_every_later_witness(five: StationFolder, kept: int) -> None:
    seen = head(five)
    lines = audit_file(five).read_bytes().splitlines(keepends=True)
    audit_file(five).write_bytes(b"".join(lines[:kept]))
    assert verify(five, public(five)).findings == ()
    done = run(five, "verify", "--witness", f"{seen.seq}:{seen.sha256}")
    assert done.exit_code == 1
    assert f"row 5 was witnessed, but row {kept} is the last" in done.stderr


def test_a_file_written_anew_with_the_key_is_found_by_the_witness(five: StationFolder) -> None:
    seen = [Head(line.number, line.sha256) for line in ledger.lines_of(audit_file(five))]
    lines = audit_file(five).read_bytes().splitlines(keepends=True)
    audit_file(five).write_bytes(b"".join(lines[:2]))
    for _ in range(4):
        append(five, Entry("thresholds", "Eve"))
    assert verify(five, public(five), seen[:2]).findings == ()
    (finding,) = verify(five, public(five), [seen[4], seen[1]]).findings
    assert finding == "row 5 is not the one that was witnessed: a row after 2 was altered"


def test_a_stranger_cannot_append(five: StationFolder) -> None:
    ledger.append_row(audit_file(five), {"what": "thresholds"}, SecretKey.generate())
    (finding,) = verify(five, public(five)).findings
    assert finding.startswith("row 6 is not signed by this station")
    with pytest.raises(StoreError, match="row 6"):
        audit.read_audit(five, public(five))


def test_a_key_that_was_exchanged_is_found_with_ones_own_copy(five: StationFolder, tmp_path: Path) -> None:
    copy = tmp_path / "mine.pub"
    copy.write_text(public(five).dumps())
    for path in (audit_file(five), five.key, five.public_key):
        path.unlink()
    append(five, Entry("thresholds", "Eve"))
    assert run(five, "verify").exit_code == 0
    assert run(five, "verify", "--key", str(copy)).exit_code == 1


def test_a_row_that_a_power_cut_left_unfinished_is_taken_off_and_said(five: StationFolder) -> None:
    with audit_file(five).open("ab") as out:
        out.write(b'{"row":{"by":"A')
    assert "unfinished row of 15 bytes stands at the end" in verify(five, public(five)).notes[0]
    assert len(audit.read_audit(five, public(five))) == 5
    assert append(five, Entry("masters", "Aiko")).seq == 6
    report = verify(five, public(five))
    assert (report.rows, report.findings) == (6, ())
    assert "before row 6 an unfinished row of 15 bytes was taken off" in report.notes[0]


def test_an_unfinished_first_row(station: StationFolder) -> None:
    SecretKey.generate().save(station.key)
    audit_file(station).write_bytes(b'{"row"')
    assert head(station) == Head()
    assert append(station, Entry("masters", "Aiko")).seq == 1
    report = verify(station, public(station))
    assert report.findings == ()
    assert "before row 1 an unfinished row of 6 bytes was taken off" in report.notes[0]


def test_what_follows_a_line_is_read_as_in_one_go(five: StationFolder) -> None:
    lines = list(ledger.lines_of(audit_file(five)))
    for place, line in enumerate(lines, start=1):
        assert list(ledger.lines_of(audit_file(five), after=line)) == lines[place:]


@pytest.mark.parametrize("how", ["no JSON", "a number of words", "a time of words"])
def test_nothing_is_appended_to_a_damaged_row(five: StationFolder, how: str) -> None:
    lines = TAMPERED[how][0](audit_file(five).read_bytes().splitlines())
    audit_file(five).write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(StoreError, match="row 5"):
        append(five, Entry("masters", "Aiko"))


def test_rows_longer_than_a_block(station: StationFolder) -> None:
    for k in range(3):
        append(station, Entry("masters", "Aiko", why="x" * (70_000 * k)))
    assert verify(station, public(station)).findings == ()


def test_a_lost_key_is_not_replaced(five: StationFolder) -> None:
    five.key.unlink()
    with pytest.raises(StoreError, match="key is gone"):
        append(five, Entry("masters", "Aiko"))
    assert not five.key.exists()


def test_what_a_person_types_stays_in_one_line(station: StationFolder) -> None:
    append(station, Entry("masters", "A\udc80iko", why="a\nb\x00c"))
    (row,) = audit.read_audit(station, public(station))
    assert (row["by"], row["why"]) == ("A iko", "a b c")


def test_a_checkpoint_once_an_hour(station: StationFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000_000

    def at(moved_ms: int) -> Head | None:
        for module in (audit, ledger):
            monkeypatch.setattr(module, "now_ms", lambda: now + moved_ms)
        return checkpoint(station, by="station")

    assert at(0) == head(station)
    assert at(CHECKPOINT_MS - 1) is None
    assert at(CHECKPOINT_MS) == head(station)
    # Set back by two hours: the station vouches anew.
    assert at(-CHECKPOINT_MS) == head(station)
    rows = audit.read_audit(station, public(station))
    assert [(row["what"], row["by"]) for row in rows] == [(CHECKPOINT, "station")] * 3


def test_who_appends_waits_for_the_other(station: StationFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest row is read slowly here: without a lock all would follow the same one."""
    SecretKey.generate().save(station.key)
    read = ledger._ending

    def slowly(path: Path) -> tuple[Head, int]:
        found = read(path)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(ledger, "_ending", slowly)
    with ThreadPoolExecutor(4) as pool:
        heads = list(pool.map(lambda _: append(station, Entry("masters", "Aiko")).seq, range(8)))
    assert sorted(heads) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert verify(station, public(station)).findings == ()


def test_a_row_is_never_left_out(five: StationFolder) -> None:
    """Not even by who has the key."""
    row = {"seq": 7, "ts_ms": 1, "torn_bytes": 0, "previous_sha256": head(five).sha256, "what": "x"}
    signature = SecretKey.load(five.key).sign(canonical_json(row), comment="")
    with audit_file(five).open("ab") as out:
        out.write(canonical_json({"row": row, "signature": signature}) + b"\n")
    assert verify(five, public(five)).findings[0].startswith("row 6 does not follow")


def test_a_table_is_utf_8_whatever_the_terminal_is(five: StationFolder) -> None:
    append(five, Entry("masters", "山田", why="grün"))
    command = [sys.executable, "-m", "kenpin", "audit", "export", "--csv", "--state", str(five.root)]
    for encoding in ("latin-1", "shift_jis"):
        done = subprocess.run(
            command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding}
        )
        assert "山田,masters,,,grün" in done.stdout.decode()


def test_a_folder_that_is_no_station_is_told_as_such(tmp_path: Path) -> None:
    done = run(StationFolder(tmp_path / "typo"), "verify")
    assert isinstance(done.exception, ConfigError)
    assert (done.exception.what, done.exception.cure) == (
        "no station's key is there",
        "give the station's folder: --state DIR; or put station.pub back from a copy",
    )


def test_export(five: StationFolder) -> None:
    append(five, Entry("masters", "Aiko", why="=HYPERLINK(1)"))
    rows = json.loads(run(five, "export", "--json").stdout)["rows"]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5, 6]
    table = list(csv.reader(io.StringIO(run(five, "export", "--csv").stdout)))
    assert table[0] == ["seq", "ts", "by", "what", "old", "new", "why"]
    assert table[1][2:] == ["愛子", "thresholds", "T1 1", "T1 2", "new lamp"]
    assert table[6][6] == "'=HYPERLINK(1)"
    done = run(five, "export")
    assert (done.stdout, "愛子: thresholds T1 1 -> T1 2 new lamp" in done.stderr) == ("", True)


@pytest.mark.parametrize("witness", ["5", "x:" + "a" * 64, "5:abc", ""])
def test_a_witness_that_is_none(five: StationFolder, witness: str) -> None:
    assert isinstance(run(five, "verify", "--witness", witness).exception, ConfigError)


def test_a_folder_that_cannot_be_written(station: StationFolder) -> None:
    """A folder in the place of the file: what even root cannot write."""
    SecretKey.generate().save(station.key)
    audit_file(station).mkdir()
    with pytest.raises(KenpinError, match="cannot be read or written"):
        append(station, Entry("masters", "Aiko"))
