from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from kenpin.edge_runtime import command as rules
from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.command import Accepted, Context, Reason, Refused, check
from kenpin.edge_runtime.command_action import DEFAULT_ACTIONS, WRITE_ACTIONS, Ack, Command, Header, Shelve
from kenpin.edge_runtime.command_cli import command as command_group
from kenpin.edge_runtime.command_key import CommandKey, load_key, load_keys
from kenpin.edge_runtime.command_seen import KEEP_MS, is_seen, note_seen
from kenpin.edge_runtime.database import open_database, transaction
from kenpin.edge_runtime.sign_command import Sender, make_command, sign_command
from kenpin.errors import ConfigError, StoreError
from kenpin.events import now_ms

DOCUMENT = Path(__file__).parents[2] / "docs/commands.md"
NOW = 1_800_000_000_000
KEY = CommandKey("ops1", b"0123456789abcdef" * 4)
OTHER = CommandKey("ops1", b"fedcba9876543210" * 4)
HEADER = {
    "schema": "kenpin.command.v1",
    "cmd_id": "c-1",
    "action": "ack",
    "station": "st1",
    "actor": "佐藤",
    "issued_ms": NOW - 1000,
    "expires_ms": NOW + 30_000,
}
ACK = {**HEADER, "alarm": "ng_rate"}
# The arguments of each action, as an operator may give them.
ARGUMENTS: dict[str, dict[str, object]] = {
    "ack": {"alarm": "ng_rate"},
    "shelve": {"alarm": "ng_rate", "minutes": 30},
    "unshelve": {"alarm": "ng_rate"},
    "reset": {"alarm": "camera_lost"},
    "snapshot": {},
    "resend_state": {},
    "replay": {"since_seq": 41, "count": 500},
    "set_threshold": {"t1": 1.5, "t2": 2, "why": "new material"},
    "pause": {"paused": True},
    "activate_model": {"bundle_sha256": "a1" * 32},
}


def context(**changes: Any) -> Context:
    fields: dict[str, Any] = {
        "keys": {"ops1": KEY},
        "station": "st1",
        "now_ms": NOW,
        "clock_ok": True,
        "seen": lambda _cmd_id: False,
        "allowance": Allowance(rules.PER_S),
    }
    return Context(**{**fields, **changes})


def seal(body: str, key: CommandKey = KEY, **changes: object) -> bytes:
    return json.dumps({"body": body, "kid": key.kid, "sig": key.sign(body), **changes}).encode()


def signed(fields: dict[str, Any], **changes: Any) -> bytes:
    return seal(json.dumps({**fields, **changes}))


def reason(message: bytes, *, retained: bool = False, **changes: Any) -> str:
    verdict = check(message, retained=retained, context=context(**changes))
    if isinstance(verdict, Accepted):
        return "accepted"
    assert verdict.sentence
    return verdict.reason


@pytest.mark.parametrize("action", ARGUMENTS)
def test_each_action_comes_through_as_its_model(action: str) -> None:
    message = signed(HEADER, action=action, **ARGUMENTS[action])
    verdict = check(message, retained=False, context=context(remote_write=True))
    assert isinstance(verdict, Accepted), verdict
    assert type(verdict.command) is {**DEFAULT_ACTIONS, **WRITE_ACTIONS}[action]
    assert verdict.kid == "ops1"
    assert verdict.command.actor == "佐藤"
    told = verdict.command.model_dump(by_alias=True, exclude_unset=True)
    assert told == {**HEADER, "action": action, **ARGUMENTS[action]}


def test_every_action_is_tried_and_those_that_write_are_off_by_default() -> None:
    assert ARGUMENTS.keys() == DEFAULT_ACTIONS.keys() | WRITE_ACTIONS.keys()
    found = {name: reason(signed(HEADER, action=name, **more)) for name, more in ARGUMENTS.items()}
    assert {name for name, word in found.items() if word == "not_allowed"} == set(WRITE_ACTIONS)
    assert set(WRITE_ACTIONS) == {"set_threshold", "pause", "activate_model"}
    assert reason(signed(HEADER, action="shut_down"), remote_write=True) == "not_allowed"


def spent() -> Allowance:
    allowance = Allowance(1, clock_s=lambda: 0.0)
    allowance.take()
    return allowance


# In the order of the checks: what is wrong in the fields, the envelope, the text around it, or the context.
DEFECTS: list[tuple[str, str, Any]] = [
    ("too_large", "text", lambda text: text + b" " * rules.MAX_BYTES),
    ("retained", "retained", True),
    ("not_json", "text", lambda text: text.replace(b'{"body"', b'{"kid": "x", "body"')),
    ("unknown_key", "envelope", {"kid": "nobody"}),
    ("bad_signature", "envelope", {"sig": "0" * 64}),
    ("wrong_station", "fields", {"station": "st2"}),
    ("clock_not_set", "context", {"clock_ok": False}),
    ("expired", "context", {"now_ms": NOW + 30_000}),
    ("replayed", "context", {"seen": lambda cmd_id: cmd_id == "c-1"}),
    ("not_allowed", "fields", {"action": "pause"}),
    ("bad_arguments", "fields", {"more": 1}),
    ("too_fast", "context", {"allowance": spent()}),
]


@pytest.mark.parametrize("first", range(len(DEFECTS)), ids=[word for word, _, _ in DEFECTS])
def test_the_checks_come_in_their_order(first: int) -> None:
    """With everything wrong from one check on, that check speaks."""
    wrong: dict[str, Any] = {"fields": dict(ACK), "envelope": {}, "context": {}, "retained": False}
    edits = []
    for _, place, defect in DEFECTS[first:]:
        if place == "text":
            edits.append(defect)
        elif place == "retained":
            wrong["retained"] = defect
        else:
            wrong[place].update(defect)
    message = seal(json.dumps(wrong["fields"]), **wrong["envelope"])
    for edit in edits:
        message = edit(message)
    assert reason(message, retained=wrong["retained"], **wrong["context"]) == DEFECTS[first][0]


def test_every_reason_is_reached_and_in_the_document() -> None:
    words = {word for word, _, _ in DEFECTS} | {"not_yet_valid"}
    assert set(get_args(Reason)) == words
    told = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text().split("## Refusals")[1], re.M))
    assert told == words | {"rejected", "failed"}  # these two come after the check


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b'"x"',
        b"\xff",
        b"\xef\xbb\xbf" + signed(ACK),
        signed(ACK).decode().encode("utf-16"),
        signed(ACK) + b"x",
        signed(ACK)[:-1],
        seal("{}", more="x"),
        seal("{}", kid=1),
        seal("{}", sig=None),
        seal("{}", sig=["0" * 64]),
        b'{"body": "{}", "kid": "ops1"}',
        seal("{}").replace(b'"ops1"', b'"\\ud800"'),
        seal("{}").replace(b'"{}"', b'"\\ud800"'),
        seal("{}").replace(b'"ops1"', b"NaN"),
        b"[" * 4000,
        b'{"a":' * 700,
        # A valid command, but its body is not the text of one plain object.
        seal(""),
        seal("[]"),
        seal(json.dumps(ACK) + "{}"),
        seal("\ufeff" + json.dumps(ACK)),
        seal(json.dumps(ACK)[:-1] + ', "alarm": "ng_rate"}'),
        seal(json.dumps(ACK)[:-1] + ', "more": NaN}'),
        seal(json.dumps(ACK)[:-1] + ', "more": -Infinity}'),
        seal(json.dumps(ACK)[:-1] + ', "more": 1e999}'),
        seal(json.dumps(ACK)[:-1] + ', "more": {"a": {"b": {}}}}'),
        seal(json.dumps(ACK)[:-1] + ', "more": [[[]]]}'),
        seal(json.dumps(ACK)[:-1] + ', "more": ["\\ud800"]}'),
        seal(json.dumps(ACK)[:-1] + ', "\\udc00": 1}'),
        seal("[" * 3900),
    ],
)
def test_what_is_not_strict_json_is_refused(message: bytes) -> None:
    assert reason(message) == "not_json"


def test_the_largest_message_and_depth_are_read() -> None:
    message = signed(ACK)
    assert reason(message + b" " * (4096 - len(message))) == "accepted"
    assert reason(message + b" " * (4097 - len(message))) == "too_large"
    assert reason(signed(ACK, more={"a": {}})) == "bad_arguments"


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "kenpin.command.v2"},
        {"schema": None},
        {"cmd_id": ""},
        {"cmd_id": "a b"},
        {"cmd_id": "x" * 65},
        {"cmd_id": "c-1\n"},
        {"cmd_id": 1},
        {"action": "reply/#"},
        {"action": ["ack"]},
        {"station": "st/1"},
        {"actor": ""},
        {"actor": "a\nb"},
        {"actor": "a\u202eb"},
        {"actor": "x" * 65},
        {"issued_ms": float(NOW)},
        {"issued_ms": str(NOW)},
        {"issued_ms": True},
        {"issued_ms": -1},
        {"expires_ms": 10**400},
        {"expires_ms": NOW + 59_001},
        {"expires_ms": NOW - 1000},
        {"alarm": ""},
        {"alarm": "P/#"},
        {"alarm": None},
        {"alarm": "ng_rate", "Alarm": "x"},
        {"action": "shelve"},
        {"action": "shelve", "minutes": 0},
        {"action": "shelve", "minutes": 481},
        {"action": "shelve", "minutes": 30.0},
        {"action": "shelve", "minutes": "30"},
        {"action": "snapshot"},
    ],
)
def test_arguments_are_taken_strictly(changes: dict[str, Any]) -> None:
    assert reason(signed(ACK, **changes)) == "bad_arguments"


@pytest.mark.parametrize(
    ("action", "changes"),
    [
        ("replay", {"since_seq": -1}),
        ("replay", {"count": 10_001}),
        ("replay", {"since_seq": 2**63}),
        ("set_threshold", {"t1": 3.0}),
        ("set_threshold", {"t1": "1"}),
        ("set_threshold", {"t1": True}),
        ("set_threshold", {"t2": 10**400}),
        ("set_threshold", {"why": ""}),
        ("pause", {"paused": 1}),
        ("activate_model", {"bundle_sha256": "A1" * 32}),
        ("activate_model", {"bundle_sha256": "../../x"}),
    ],
)
def test_arguments_of_the_other_actions_as_well(action: str, changes: dict[str, Any]) -> None:
    fields = {**HEADER, "action": action, **ARGUMENTS[action], **changes}
    assert reason(signed(fields), remote_write=True) == "bad_arguments"


@pytest.mark.parametrize("missing", ACK)
def test_nothing_may_be_missing(missing: str) -> None:
    fields = {name: value for name, value in ACK.items() if name != missing}
    assert reason(signed(fields)) == "bad_arguments"


def test_the_sentence_names_the_argument_that_is_wrong() -> None:
    verdict = check(signed(HEADER, alarn="ng_rate"), retained=False, context=context())
    assert isinstance(verdict, Refused)
    assert verdict.sentence.startswith("'alarn': ")
    hostile = check(signed(ACK, **{"x\n\u202e" + "y" * 900: 1}), retained=False, context=context())
    assert isinstance(hostile, Refused)
    assert hostile.sentence.isascii()
    assert hostile.sentence.isprintable()
    assert len(hostile.sentence) < 200


def test_the_time_a_command_is_good_for() -> None:
    def at(offset_ms: int) -> str:
        return reason(signed(ACK, issued_ms=NOW, expires_ms=NOW + 60_000), now_ms=NOW + offset_ms)

    found = [at(offset_ms) for offset_ms in (-5001, -5000, 0, 59_999, 60_000)]
    assert found == ["not_yet_valid", "accepted", "accepted", "accepted", "expired"]
    assert reason(signed(ACK, issued_ms=NOW, expires_ms=NOW + 60_001)) == "bad_arguments"


def test_a_signature_is_of_this_text_by_this_key_in_this_form() -> None:
    assert reason(seal(json.dumps(ACK), OTHER)) == "bad_signature"
    message = signed(ACK)
    assert reason(message.replace(b"ng_rate", b"ng_ratf")) == "bad_signature"
    sig = json.loads(message)["sig"]
    for other in (sig.upper(), sig[:-1], sig + " ", "", "é" * 64):
        assert reason(seal(json.dumps(ACK), sig=other)) == "bad_signature"
    second = replace(OTHER, kid="ops2")
    keys = {"ops1": KEY, "ops2": second}
    assert reason(seal(json.dumps(ACK), second), keys=keys) == "accepted"
    assert reason(seal(json.dumps(ACK), second, kid="ops1"), keys=keys) == "bad_signature"


def test_only_a_holder_of_a_key_is_answered() -> None:
    def answer(message: bytes, **changes: Any) -> tuple[str, str]:
        verdict = check(message, retained=False, context=context(**changes))
        assert isinstance(verdict, Refused)
        return verdict.cmd_id, verdict.action

    assert answer(signed(ACK), clock_ok=False) == ("c-1", "ack")
    assert answer(signed(ACK, more=1)) == ("c-1", "ack")
    assert answer(seal(json.dumps(ACK), OTHER)) == ("", "")
    assert answer(signed(ACK), keys={}) == ("", "")


def test_five_commands_in_any_second() -> None:
    times_s = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 1.0, 1.1, 1.2)
    allowance = Allowance(rules.PER_S, clock_s=iter(times_s).__next__)
    found = [reason(signed(ACK), allowance=allowance) == "accepted" for _ in times_s]
    assert found == [True] * 5 + [False, False, True, False, True]


def test_refused_commands_use_up_nothing() -> None:
    allowance = Allowance(rules.PER_S, clock_s=lambda: 0.0)
    for _ in range(20):
        reason(signed(ACK, more=1), allowance=allowance)
    assert reason(signed(ACK), allowance=allowance) == "accepted"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_database(tmp_path / "station.db")
    columns = "cmd_id TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL"
    connection.execute(f"CREATE TABLE IF NOT EXISTS cmd_seen ({columns}) WITHOUT ROWID")
    yield connection
    connection.close()


def ack(cmd_id: str, expires_ms: int = NOW + 30_000) -> Command:
    return Ack.model_validate({**ACK, "cmd_id": cmd_id, "expires_ms": expires_ms})


def test_a_command_counts_once_over_a_restart(database: sqlite3.Connection, tmp_path: Path) -> None:
    with transaction(database):
        note_seen(database, ack("c-1"), now_ms=NOW)
    database.close()
    with contextlib.closing(open_database(tmp_path / "station.db")) as again:
        assert reason(signed(ACK), seen=lambda cmd_id: is_seen(again, cmd_id)) == "replayed"
        assert reason(signed(ACK, cmd_id="c-2"), seen=lambda cmd_id: is_seen(again, cmd_id)) == "accepted"


def act(database: sqlite3.Connection, *, failing: bool = False) -> None:
    """What a command does and the note of it, in one transaction."""
    with transaction(database):
        database.execute("UPDATE counter SET value = value + 1 WHERE name = 'outbox_dropped'")
        note_seen(database, ack("c-1"), now_ms=NOW)
        if failing:
            raise sqlite3.OperationalError("disk full")


def test_what_was_rolled_back_was_not_carried_out(database: sqlite3.Connection) -> None:
    with pytest.raises(StoreError, match="disk full"):
        act(database, failing=True)
    assert not is_seen(database, "c-1")


def test_the_second_of_two_notes_undoes_its_whole_transaction(database: sqlite3.Connection) -> None:
    act(database)
    with pytest.raises(StoreError):
        act(database)
    assert database.execute("SELECT value FROM counter WHERE name = 'outbox_dropped'").fetchone() == (1,)


def test_notes_stay_a_month_longer_than_the_command_is_good_for(database: sqlite3.Connection) -> None:
    note_seen(database, ack("old", NOW), now_ms=NOW)
    note_seen(database, ack("new", NOW + 1), now_ms=NOW + KEEP_MS)
    assert is_seen(database, "old")
    note_seen(database, ack("third", NOW + 2), now_ms=NOW + KEEP_MS + 1)
    assert [is_seen(database, name) for name in ("old", "new", "third")] == [False, True, True]


def test_a_clock_that_is_set_back_by_weeks_lets_no_command_count_again(database: sqlite3.Connection) -> None:
    week_ms = 7 * 86_400_000
    for k in range(4):
        note_seen(database, ack(f"c-{k}", NOW + k * week_ms), now_ms=NOW + k * week_ms)
    for k in range(4):  # as they were heard then, by the clock of then
        again = signed(ACK, cmd_id=f"c-{k}")
        assert reason(again, seen=lambda cmd_id: is_seen(database, cmd_id)) == "replayed"


def test_a_database_that_cannot_tell_is_an_error_and_no_refusal(database: sqlite3.Connection) -> None:
    database.close()
    with pytest.raises(StoreError):
        reason(signed(ACK), seen=lambda cmd_id: is_seen(database, cmd_id))


def write_key(path: Path, text: str = "k" * 32 + "\n", mode: int = 0o600) -> Path:
    path.write_bytes(text.encode("latin-1"))
    path.chmod(mode)
    return path


def test_keys_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    write_key(tmp_path / "ops1.key")
    write_key(tmp_path / "line-2.scada.key", "s" * 64 + "\r\n", mode=0o400)
    (tmp_path / "README").write_text("no key")
    assert load_keys(tmp_path / "ops1.key") == {"ops1": CommandKey("ops1", b"k" * 32)}
    found = load_keys(tmp_path)
    assert found.keys() == {"ops1", "line-2.scada"}
    assert found["line-2.scada"].secret == b"s" * 64


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_key(tmp_path / "ops1.key", mode=mode)
    for load in (load_key, load_keys):
        with pytest.raises(ConfigError, match="can be read by others") as error:
            load(path)
        assert "chmod 600" in error.value.cure
    with pytest.raises(ConfigError, match="can be read by others"):
        load_keys(tmp_path)


def test_a_folder_in_which_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    write_key(folder / "ops1.key")
    folder.chmod(0o770)
    with pytest.raises(ConfigError, match="others can add command keys"):
        load_keys(folder)
    folder.chmod(0o750)
    assert load_keys(folder)


@pytest.mark.parametrize("text", ["", "\n", "k" * 31, "k" * 32 + " ", "k" * 32 + "\nk", "é" * 32, "k" * 1025])
def test_a_poor_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = write_key(tmp_path / "ops1.key", text)
    with pytest.raises(ConfigError, match="one line of 32 to 1024") as error:
        load_key(path)
    assert "kkk" not in str(error.value)


def test_a_key_that_is_not_there_or_has_no_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the command key: No such file"):
        load_keys(tmp_path / "ops1.key")
    with pytest.raises(ConfigError, match="cannot read the command key: Not a directory"):
        load_keys(write_key(tmp_path / "file") / "keys")
    with pytest.raises(ConfigError, match="there is no command key"):
        load_keys(tmp_path)
    for name in ("ops1.txt", "ops 1.key", "x" * 65 + ".key"):
        with pytest.raises(ConfigError, match="no proper name"):
            load_key(write_key(tmp_path / name))
    (tmp_path / "folder.key").mkdir()
    with pytest.raises(ConfigError, match="cannot read the command key: Is a directory"):
        load_key(tmp_path / "folder.key")


def test_a_key_never_shows_in_a_log() -> None:
    secret = KEY.secret.decode()
    assert secret not in repr(KEY) + str(KEY) + repr(context())
    verdict = check(seal(json.dumps(ACK), OTHER), retained=False, context=context())
    assert secret not in repr(verdict)


def test_the_signature_is_what_openssl_makes_of_it() -> None:
    body = json.dumps(ACK, ensure_ascii=False)
    command = ["openssl", "dgst", "-sha256", "-hmac", KEY.secret.decode()]
    done = subprocess.run(command, input=body.encode(), capture_output=True, check=True)
    assert done.stdout.decode().split("= ")[1].strip() == KEY.sign(body)


def test_the_sender_types_text_and_the_station_gets_types() -> None:
    typed = {"alarm": "ng_rate", "minutes": "30"}
    made = make_command("shelve", typed, Sender("st1", "佐藤", life_ms=30_000), now_ms=NOW)
    verdict = check(sign_command(made, KEY).encode(), retained=False, context=context())
    assert verdict == Accepted(made, "ops1")
    assert isinstance(made, Shelve)
    assert made.minutes == 30
    again = make_command("shelve", typed, Sender("st1", "佐藤", life_ms=30_000), now_ms=NOW)
    assert again.cmd_id != made.cmd_id


@pytest.mark.parametrize(
    ("action", "arguments", "what"),
    [
        ("shut_down", {}, "no such action"),
        ("shelve", {"alarm": "ng_rate", "minutes": "soon"}, "'minutes'"),
        ("ack", {"alarn": "ng_rate"}, "'alarn'"),
        ("ack", {}, "'alarm'"),
    ],
)
def test_the_sender_is_told_what_is_wrong(action: str, arguments: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        make_command(action, arguments, Sender("st1", "sato", life_ms=30_000), now_ms=NOW)
    assert error.value.cure


def sign(key: Path, *more: str) -> Any:
    arguments = ["sign", "--key", str(key), "--station", "st1", "--actor", "sato", "--action", "ack", *more]
    return CliRunner().invoke(command_group, arguments)


def test_the_printed_envelope_passes_a_broker(
    tmp_path: Path, mosquitto: Any, make_subscriber: Callable[[int], Any], wait_for: Any
) -> None:
    key = write_key(tmp_path / "ops1.key")
    subscriber = make_subscriber(mosquitto.port)
    done = sign(key, "--arg", "alarm=ng_rate")
    assert done.exit_code == 0
    publish = [
        "mosquitto_pub",
        "-h",
        "127.0.0.1",
        "-p",
        str(mosquitto.port),
        "-t",
        "plant/line/st1/cmd/ack",
        "-s",
    ]
    subprocess.run(publish, input=done.stdout.encode(), check=True)
    wait_for(lambda: subscriber.payloads("cmd/ack"), "the command")
    (message,) = [m["payload"] for m in subscriber.messages if m["topic"] == "plant/line/st1/cmd/ack"]
    assert reason(message.encode(), keys=load_keys(key), now_ms=now_ms()) == "accepted"


def test_the_command_says_what_was_typed_wrong(tmp_path: Path) -> None:
    key = write_key(tmp_path / "ops1.key")
    done = sign(key, "--arg", "alarm")
    assert isinstance(done.exception, ConfigError)
    assert "NAME=VALUE" in done.exception.cure
    assert sign(key, "--arg", "alarm=ng_rate", "--life-s", "61").exit_code == 2
    assert isinstance(sign(tmp_path / "none.key", "--arg", "alarm=ng_rate").exception, ConfigError)


def test_the_python_of_the_document_signs(tmp_path: Path) -> None:
    program = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    assert program is not None
    write_key(tmp_path / "ops1.key", KEY.secret.decode() + "\n")
    command = [sys.executable, "-c", program[1]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert reason(done.stdout, now_ms=now_ms()) == "accepted"


def test_the_document_names_every_action_and_argument() -> None:
    text = DOCUMENT.read_text().split("## Actions")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.M))
    models = {**DEFAULT_ACTIONS, **WRITE_ACTIONS}
    assert rows.keys() == models.keys()
    for action, model in models.items():
        own = model.model_fields.keys() - Header.model_fields.keys()
        assert set(re.findall(r"`(\w+)`", rows[action])) == own
    with pytest.raises(ValidationError):
        Ack.model_validate({**ACK, "minutes": 1})
