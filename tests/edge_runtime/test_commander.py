"""Commands at a real broker: what they do to the station, and what is answered."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kenpin.activation import read_activation
from kenpin.bundle import install_bundle
from kenpin.edge_runtime import commander
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.evidence import Evidence
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.station import Station
from kenpin.errors import StoreError
from kenpin.hold import read_hold
from tests.edge_runtime.command_desk import Desk
from tests.edge_runtime.conftest import brightness_model

pytestmark = pytest.mark.usefixtures("synchronised")


@pytest.fixture
def desk(workshop: Any, key: Path) -> Desk:
    return Desk(workshop, key)


@pytest.fixture
def raised(desk: Desk) -> Iterator[sqlite3.Connection]:
    """A station with an alarm."""
    with closing(connect(desk.folder.database)) as connection:
        AlarmBoard(connection, Identity("st1")).come_round({"engine_integrity": [1.0]})
        yield connection


def state_of(connection: sqlite3.Connection, alarm: str) -> str:
    sql = "SELECT body FROM state WHERE topic = ?"
    ((body,),) = connection.execute(sql, (f"alarm/{alarm}",)).fetchall()
    return str(json.loads(body)["state"])


def test_an_alarm_is_acknowledged_audited_and_answered(desk: Desk, raised: sqlite3.Connection) -> None:
    answer = desk.send("ack", alarm="engine_integrity")
    assert (answer["ok"], answer["action"], answer["reason"]) == (True, "ack", "")
    assert state_of(raised, "engine_integrity") == "ACKED"
    assert desk.audit() == [("Sato (key ops1)", "ack alarm=engine_integrity")]
    assert desk.commander.done == 1


def test_a_key_that_is_taken_away_commands_no_more_and_a_new_one_does(
    workshop: Any, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commander, "_KEYS_S", 0.0)
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o755)
    (mine := key.replace(folder / key.name)).chmod(0o600)
    desk = Desk(workshop, mine)
    desk.commander._order = replace(desk.commander._order, keys=folder)
    assert desk.send("resend_state")["ok"]
    secret = mine.read_text()
    mine.unlink()
    desk.take("resend_state", desk.sign("resend_state"))
    other = folder / "ops2.key"
    other.touch(mode=0o600)
    other.write_text("x" * 64)
    desk.take("resend_state", desk.sign("resend_state"))
    assert (desk.commander.refusals["unknown_key"], desk.commander.done) == (2, 1)
    mine.touch(mode=0o600)
    mine.write_text(secret)
    assert desk.send("resend_state")["ok"]


def test_a_late_acknowledgement_leaves_a_newer_raise_alone(desk: Desk, raised: sqlite3.Connection) -> None:
    board = AlarmBoard(raised, Identity("st1"))
    assert desk.send("ack", alarm="engine_integrity", occurrence="1")["ok"]
    board.come_round({"engine_integrity": [0.0]})
    assert desk.send("reset", alarm="engine_integrity")["ok"]
    board.come_round({"engine_integrity": [1.0]})
    answer = desk.send("ack", alarm="engine_integrity", occurrence="1")
    assert (answer["reason"], "raised anew" in answer["message"]) == ("rejected", True)
    assert state_of(raised, "engine_integrity") == "UNACK"
    assert desk.send("ack", alarm="engine_integrity", occurrence="2")["ok"]


def test_what_the_alarm_rejects_is_answered_in_words(desk: Desk, raised: sqlite3.Connection) -> None:
    answer = desk.send("reset", alarm="engine_integrity")
    assert (answer["ok"], answer["reason"]) == (False, "rejected")
    assert answer["message"]
    assert state_of(raised, "engine_integrity") == "UNACK"
    assert (desk.commander.done, desk.commander.refusals["rejected"]) == (0, 1)


def test_a_shelved_alarm_comes_back(desk: Desk, raised: sqlite3.Connection) -> None:
    AlarmBoard(raised, Identity("st1")).come_round({"ng_rate": [0.5]})
    assert desk.send("shelve", alarm="ng_rate", minutes="30")["ok"]
    assert state_of(raised, "ng_rate") == "SHELVED"
    assert desk.send("unshelve", alarm="ng_rate")["ok"]


def test_a_command_is_carried_out_once(desk: Desk, raised: sqlite3.Connection) -> None:
    message = desk.sign("ack", alarm="engine_integrity")
    desk.take("ack", message)
    desk.take("ack", message)
    assert [r["reason"] for r in desk.replies()] == ["", "replayed"]
    assert desk.commander.refusals == {"replayed": 1}
    assert len(desk.audit()) == 1


def test_a_topic_that_names_another_action_is_refused(desk: Desk, raised: sqlite3.Connection) -> None:
    """A broker's rules go by the topic."""
    desk.take("snapshot", desk.sign("ack", alarm="engine_integrity"))
    assert state_of(raised, "engine_integrity") == "UNACK"
    assert desk.replies()[-1]["reason"] == "bad_arguments"
    assert desk.commander.refusals["bad_arguments"] == 1


def test_without_a_key_there_is_no_answer(desk: Desk) -> None:
    for body in (b"", b"{}", b"\xff", desk.sign("snapshot").replace(b"Sato", b"Abes")):
        desk.take("snapshot", body)
    desk.take("snapshot", desk.sign("snapshot"), retained=True)
    assert desk.replies() == []
    assert sum(desk.commander.refusals.values()) == 5
    assert not (desk.folder.run / "snapshot").exists()


def test_answers_to_refusals_are_few(desk: Desk) -> None:
    message = desk.sign("snapshot")
    for _ in range(50):
        desk.take("snapshot", message)
    assert len(desk.replies()) <= 1 + 2 * commander._ANSWERS_PER_S


def test_events_are_sent_again(desk: Desk) -> None:
    with closing(connect(desk.folder.database)) as connection:
        outbox = Outbox(connection)
        with transaction(connection):
            numbers = [outbox.append("event/audit", "{}") for _ in range(6)]
        outbox.mark_acked(numbers)
        assert desk.send("replay", since_seq="2", count="3")["ok"]
        again = [entry.seq for entry in outbox.waiting(after=0, up_to=6, limit=9)]
    assert (again, desk.looked_back) == ([2, 3, 4], 1)


def test_every_retained_topic_is_sent_again(desk: Desk, raised: sqlite3.Connection) -> None:
    (highest,) = raised.execute("SELECT max(ver) FROM state").fetchone()
    assert desk.send("resend_state")["ok"]
    (lowest,) = raised.execute("SELECT min(ver) FROM state").fetchone()
    assert lowest > highest
    assert desk.told_again == 1


def test_after_many_times_a_changed_alarm_is_still_sent(desk: Desk, raised: sqlite3.Connection) -> None:
    desk.commander._allowance = Allowance(10_000)
    outbox = Outbox(raised)
    topics = [value.topic for value in outbox.retained(after=0)]
    for _ in range(100):
        seen_to = max(value.version for value in outbox.retained(after=0))
        assert desk.send("resend_state")["ok"]
        assert [value.topic for value in outbox.retained(after=seen_to)] == topics
    seen_to = max(value.version for value in outbox.retained(after=0))
    assert desk.send("ack", alarm="engine_integrity")["ok"]
    assert "alarm/engine_integrity" in [value.topic for value in outbox.retained(after=seen_to)]


def test_the_next_picture_is_kept(desk: Desk, workshop: Any) -> None:
    workshop.ready()
    assert desk.send("snapshot")["ok"]
    with Station(workshop.config(f"folder:{workshop.pictures(10, 20)}")) as station:
        station.run()
    with closing(sqlite3.connect(desk.folder.database)) as connection:
        kept = [bool(ref) for (ref,) in connection.execute("SELECT image_ref FROM part ORDER BY seq")]
    assert kept == [True, False]


def test_actions_that_change_verdicts_are_off(desk: Desk) -> None:
    assert desk.send("pause", paused="true")["reason"] == "not_allowed"
    assert read_hold(desk.folder.paused) is None


def test_a_paused_station_releases_nothing(workshop: Any, key: Path) -> None:
    workshop.ready()
    desk = Desk(workshop, key, remote_write=True)
    assert desk.send("pause", paused="true")["ok"]
    assert _verdicts(workshop) == [("NO_DECISION", "paused by Sato")]
    assert desk.send("pause", paused="false")["ok"]
    assert _verdicts(workshop)[-1] == ("OK", "")


def _verdicts(workshop: Any) -> list[tuple[str, str]]:
    with Station(workshop.config(f"folder:{workshop.pictures(10)}")) as station:
        station.run()
    with closing(sqlite3.connect(workshop.folder.database)) as connection:
        return connection.execute("SELECT verdict, reason FROM part ORDER BY seq").fetchall()


def test_a_bundle_is_activated_if_it_is_here(workshop: Any, key: Path) -> None:
    workshop.ready()
    desk = Desk(workshop, key, remote_write=True)
    new = workshop.bundle(model=brightness_model(breaks_at=1e6), version="2.0")
    assert "no bundle" in desk.send("activate_model", bundle_sha256=new.sha256)["message"]
    install_bundle(new, desk.folder.bundles)
    assert desk.send("activate_model", bundle_sha256=new.sha256)["ok"]
    assert read_activation(desk.folder).candidate == new.sha256


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreError("the disk is full"), "the disk is full"),
        (OSError(28, "No space left on device", "/a"), "No space left on device: /a"),
    ],
)
def test_what_cannot_be_written_down_is_not_done(
    desk: Desk, raised: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def full(*_arguments: Any) -> None:
        raise error

    monkeypatch.setattr(commander, "append", full)
    answer = desk.send("ack", alarm="engine_integrity")
    assert (answer["ok"], answer["reason"], answer["message"]) == (False, "failed", told)
    assert state_of(raised, "engine_integrity") == "UNACK"


def test_act_answer_and_note_are_one(desk: Desk, raised: sqlite3.Connection) -> None:
    condition = "BEFORE INSERT ON outbox WHEN new.topic = 'reply/ack'"
    raised.execute(f"CREATE TRIGGER full {condition} BEGIN SELECT RAISE(ABORT, 'full'); END")
    message = desk.sign("ack", alarm="engine_integrity")
    with pytest.raises(StoreError):
        desk.take("ack", message)  # nor can it be answered that it failed
    assert state_of(raised, "engine_integrity") == "UNACK"
    raised.execute("DROP TRIGGER full")
    desk.take("ack", message)  # it was not carried out, so it may come again
    assert state_of(raised, "engine_integrity") == "ACKED"


def test_over_a_real_broker(
    workshop: Any, key: Path, mosquitto: Any, make_subscriber: Callable[[int], Any], wait_for: Any
) -> None:
    workshop.port = mosquitto.port
    workshop.ready()
    subscriber = make_subscriber(mosquitto.port)
    desk = Desk(workshop, key)
    config = workshop.config(f"folder:{workshop.pictures(250, 10)}?rate=5&loop=1")
    commands = config.commands.model_copy(update={"keys": key})
    config = config.model_copy(update={"commands": commands})
    sent: list[str] = []

    def on_part(_part: Any) -> None:
        status = subscriber.payloads("status")
        if not sent and status and status[-1]["online"]:
            sent.append("snapshot")
            desk.publish(mosquitto.port, "snapshot")

    with Station(config, on_part=on_part) as station:
        station.run(max_parts=200, stopping=lambda: bool(subscriber.payloads("reply/snapshot")))
    wait_for(lambda: subscriber.payloads("event/audit"), "the audit")
    assert subscriber.payloads("reply/snapshot")[0]["ok"]
    assert subscriber.payloads("event/audit")[0]["new"] == "snapshot"
    meta = subscriber.payloads("meta")[-1]
    assert (meta["model_id"], meta["threshold_rev"]) == ("lamp-1.0", 1)
    assert subscriber.payloads("alarm_summary")


def test_a_picture_that_was_asked_for_is_one(tmp_path: Path, workshop: Any) -> None:
    section = workshop.config("synthetic:fabric").evidence.model_copy(update={"keep": "none"})
    with closing(Evidence(tmp_path / "images", section, asked=tmp_path / "snapshot")) as evidence:
        (tmp_path / "snapshot").touch()
        assert [bool(evidence.name_for(Verdict.OK)) for _ in range(3)] == [True, False, False]
