"""Thresholds by command: signed, audited, within reach of what a person set at the station, or not at all."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kenpin.audit import read_audit
from kenpin.book import calibration_lock, open_book
from kenpin.calibrating import begin_calibrating
from kenpin.config import CommandsSection, WebSection
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.commander import Commander
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.remote_threshold import Reach
from kenpin.edge_runtime.site import make_publisher
from kenpin.edge_runtime.station import Station
from kenpin.placed import Placement, record_placed
from kenpin.record import CalibrationRecord, Fresh, append_record, head, station_records
from kenpin.signing import PublicKey
from tests.calibration.inspected import LIMITS, Made, inspect
from tests.edge_runtime.command_desk import Desk

pytestmark = pytest.mark.usefixtures("synchronised")

GOOD = {f"{k}.png": 90.0 + k for k in range(10)}
STEP = statistics.stdev(GOOD.values())  # 3.03: the tests' stations allow one standard deviation
T1, T2 = 100.0, 120.0


@pytest.fixture
def desk(workshop: Any, key: Path) -> Desk:
    workshop.calibrated(good=GOOD, masters={"scratch": 110.0}, t1=T1, t2=T2)
    return Desk(workshop, key, remote_write=True)


def move(desk: Desk, t1: float, t2: float = T2, why: str = "new material") -> dict[str, Any]:
    return desk.send("set_threshold", t1=str(t1), t2=str(t2), why=why)


def newest(desk: Desk) -> CalibrationRecord:
    return station_records(desk.folder)[-1]


def test_a_command_signs_a_new_record(desk: Desk) -> None:
    assert move(desk, 98.0, 121.5)["ok"]
    record = newest(desk)
    assert (record.rev, record.state, record.t1, record.t2) == (2, "TRIAL", 98.0, 121.5)
    assert (record.by, record.why) == ("Sato (key ops1)", "new material")
    assert (record.method, record.rank, record.false_calls) == ("placed by command", 0, None)
    rows = read_audit(desk.folder, PublicKey.load(desk.folder.public_key))
    assert [(row["what"], row["by"], row["why"]) for row in rows] == [
        ("command", "Sato (key ops1)", "new material"),
        ("thresholds", "Sato (key ops1)", "new material"),
    ]
    assert "T1 100, T2 120" in str(rows[-1]["old"])
    assert "T1 98, T2 121.5" in str(rows[-1]["new"])


def test_the_running_station_judges_by_it(workshop: Any, desk: Desk) -> None:
    config = workshop.config(f"folder:{workshop.pictures(98)}")
    verdicts = []
    for t1 in (T1, 97.5):
        assert move(desk, t1)["ok"]
        with Station(config) as station:
            station.run()
        with closing(sqlite3.connect(desk.folder.database)) as connection:
            sql = "SELECT verdict, threshold_rev FROM part ORDER BY seq DESC LIMIT 1"
            verdicts += connection.execute(sql).fetchall()
    assert verdicts == [("OK", 2), ("REVIEW", 3)]


@pytest.mark.parametrize(("t1", "t2"), [(T1 - 1.01 * STEP, T2), (T1, T2 - 1.01 * STEP), (T1, T2 + 1.01 * STEP)])
def test_none_goes_further_than_its_reach(desk: Desk, t1: float, t2: float) -> None:
    answer = move(desk, t1, t2)
    assert (answer["ok"], answer["reason"]) == (False, "rejected")
    assert "threshold_step is 1 standard deviations" in answer["message"]
    assert len(station_records(desk.folder)) == 1


def test_many_small_steps_lead_no_further(desk: Desk) -> None:
    assert move(desk, T1 - 0.6 * STEP)["ok"]
    assert not move(desk, T1 - 1.2 * STEP)["ok"]
    assert newest(desk).t1 == T1 - 0.6 * STEP
    with calibration_lock(desk.folder):  # a person sets it there, and so gives a new place to go from
        record_placed(
            open_book(desk.folder),
            newest(desk).bundle_sha256,
            Placement(T1 - 0.6 * STEP, T2, 1, "Aiko", "seen"),
        )
    assert move(desk, T1 - 1.2 * STEP)["ok"]


def test_thresholds_that_fresh_parts_have_confirmed_are_still_those_of_a_command(
    desk: Desk, workshop: Any
) -> None:
    fresh = Fresh(of_rev=2, parts=9, stopped=0, looks=1, scores={}, at_most=0.01)
    assert move(desk, T1 - STEP)["ok"]
    confirmed = newest(desk).model_copy(
        update={"rev": 3, "fresh": fresh, "previous_sha256": head(desk.folder.records)}
    )
    append_record(desk.folder.records, confirmed, workshop.station_key)
    assert not move(desk, T1 - 1.5 * STEP)["ok"]
    assert move(desk, T1)["ok"]


def test_in_another_light_none_is_moved(desk: Desk, workshop: Any) -> None:
    workshop.calibrate(workshop.bundle(), rev=2, good=GOOD, t1=T1, t2=T2, quality=LIMITS)
    inspect(desk.folder, [Made(0.2, light=61.0)])
    assert "light 61, signed for 90 to 160" in move(desk, 99.0)["message"]
    inspect(desk.folder, [Made(0.2, light=120.0)])
    assert move(desk, 99.0)["ok"]


def test_no_known_bad_part_is_let_through(desk: Desk, workshop: Any) -> None:
    workshop.calibrate(workshop.bundle(), rev=2, good=GOOD, masters={"scratch": 101.0}, t1=T1, t2=T2)
    answer = move(desk, 102.0)
    assert answer["reason"] == "rejected"
    assert "1 known bad parts would pass at T1 = 102" in answer["message"]


def test_where_two_persons_sign_a_command_is_not_enough(workshop: Any, key: Path, desk: Desk) -> None:
    strict = Desk(workshop, key, remote_write=True, two_persons=True)
    assert "a second person" in move(strict, T1)["message"]


@pytest.mark.parametrize("allowed", [True, False])
def test_the_configuration_says_how_far_a_command_may_go(
    workshop: Any, key: Path, desk: Desk, *, allowed: bool
) -> None:
    config = workshop.config("synthetic:board", url="mqtt://127.0.0.1")
    wanted = {
        "commands": CommandsSection(keys=key, remote_write=allowed, threshold_step=0.5),
        "web": WebSection(second_person=True),
    }
    publisher = make_publisher(config.model_copy(update=wanted), Identity("st1"), Counters().snapshot)
    assert isinstance(publisher.listener, Commander)
    assert publisher.listener._order.reach == (Reach(0.5, two_persons=True) if allowed else None)


def test_a_station_without_calibration_has_nothing_to_move(workshop: Any, key: Path) -> None:
    assert "no bundle" in move(Desk(workshop, key, remote_write=True), T1)["message"]
    workshop.install()
    assert "never been calibrated" in move(Desk(workshop, key, remote_write=True), T1)["message"]


def test_one_good_part_shows_no_spread(desk: Desk, workshop: Any) -> None:
    workshop.calibrate(workshop.bundle(), rev=2, good={"a": 90.0}, t1=T1, t2=T2)
    assert move(desk, T1)["ok"]
    assert not move(desk, T1 - 0.001)["ok"]


def test_while_somebody_calibrates_a_command_waits_for_another_time(desk: Desk) -> None:
    with calibration_lock(desk.folder):
        answer = move(desk, 99.0)
    assert (answer["reason"], len(station_records(desk.folder))) == ("rejected", 1)
    assert "another calibration" in answer["message"]
    begin_calibrating(desk.folder, "sato")  # on the page, or masters are shown
    answer = move(desk, 99.0)
    assert (answer["reason"], len(station_records(desk.folder))) == ("rejected", 1)
    assert "sato calibrates or checks this station" in answer["message"]


def test_off_unless_the_station_allows_it(desk: Desk, workshop: Any, key: Path) -> None:
    assert move(Desk(workshop, key), 99.0)["reason"] == "not_allowed"
    assert len(station_records(desk.folder)) == 1


def test_over_a_real_broker(  # noqa: PLR0917 - one argument per fixture
    workshop: Any, key: Path, desk: Desk, mosquitto: Any, make_subscriber: Callable[[int], Any], wait_for: Any
) -> None:
    """The parts after the answer are judged by the new record, and SCADA is told who moved what."""
    workshop.port = mosquitto.port
    subscriber = make_subscriber(mosquitto.port)
    config = workshop.config(f"folder:{workshop.pictures(98)}?rate=5&loop=1", results="all")
    commands = config.commands.model_copy(update={"keys": key, "remote_write": True})
    sent: list[str] = []

    def on_part(_part: Any) -> None:
        status = subscriber.payloads("status")
        if not sent and status and status[-1]["online"]:
            sent.append("set_threshold")
            desk.publish(mosquitto.port, "set_threshold", t1="97.5", t2=str(T2), why="new material")

    def verdicts() -> list[tuple[str, int]]:
        return [(r["verdict"], r["threshold_rev"]) for r in subscriber.payloads("event/result")]

    with Station(config.model_copy(update={"commands": commands}), on_part=on_part) as station:
        station.run(max_parts=200, stopping=lambda: ("REVIEW", 2) in verdicts())
    assert subscriber.payloads("reply/set_threshold")[0]["ok"]
    assert set(verdicts()) == {("OK", 1), ("REVIEW", 2)}
    wait_for(lambda: len(subscriber.payloads("event/audit")) > 1, "the audit")
    ordered, done = subscriber.payloads("event/audit")[:2]
    assert (ordered["kind"], ordered["new"]) == ("command", "set_threshold t1=97.5 t2=120.0")
    assert (done["kind"], done["actor"], done["reason"]) == ("threshold", "Sato (key ops1)", "new material")
    assert "T1 100" in done["old"]
    assert "T1 97.5" in done["new"]
