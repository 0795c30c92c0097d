"""Alarms at the page: acknowledged in the audit, with the effect of a command, and never a raise too many."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import Any

import pytest

from kenpin import audit
from kenpin.calibration.web import alarm_deed
from kenpin.calibration.web.line_alarms import shown_alarms
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import connect, open_database, reading
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import MakeVisit, Visit, raise_alarms, show_live

SESSION = "01980000-0000-7000-8000-000000000001"


class Raised:
    """The alarms of a station, stepped as by its watchman."""

    def __init__(self, folder: StationFolder) -> None:
        open_database(folder.database).close()
        self.folder = folder
        self._connection = connect(folder.database)
        self._board = AlarmBoard(self._connection, Identity("L2-03"))

    def step(self, **values: float) -> None:
        self._board.come_round({key: [value] for key, value in values.items()})

    def close(self) -> None:
        self._connection.close()

    def state(self, key: str) -> str:
        """As a subscriber is told."""
        return str(self.told(f"alarm/{key}")["state"])

    def told(self, topic: str) -> dict[str, Any]:
        with reading(self.folder.database) as connection:
            ((body,),) = connection.execute("SELECT body FROM state WHERE topic = ?", (topic,)).fetchall()
        return dict(json.loads(body))

    def transitions(self) -> list[dict[str, Any]]:
        with reading(self.folder.database) as connection:
            sql = "SELECT body FROM outbox WHERE topic = 'event/alarm' ORDER BY seq"
            return [json.loads(body) for (body,) in connection.execute(sql)]


@pytest.fixture
def raised(folder: StationFolder) -> Any:
    made = Raised(folder)
    made.step(engine_integrity=1.0)
    yield made
    made.close()


@pytest.fixture
def sato(visit: MakeVisit, raised: Raised) -> Visit:
    browser = visit()
    browser.log_in("sato")
    return browser


def audited(folder: StationFolder) -> list[tuple[str, str, str]]:
    rows = audit.read_audit(folder, PublicKey.load(folder.public_key))
    return [(row["by"], row["old"], row["new"]) for row in rows if row["what"] == "alarm"]


def form_of(browser: Visit, key: str, path: str = "/line/alarms") -> dict[str, str]:
    """The fields of the form that a page offers for an alarm."""
    forms = re.findall(r'<form method="post" action="/line/alarm">(.*?)</form>', browser.get(path).text, re.S)
    found = [dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)) for form in forms]
    return next(fields for fields in found if fields["alarm"] == key)


def press(browser: Visit, fields: dict[str, str], **changes: str) -> Any:
    return browser.submit("/line/alarm", **{**fields, "token": browser.token(), **changes})


def test_an_alarm_is_acknowledged_as_by_a_command(sato: Visit, raised: Raised) -> None:
    show_live(raised.folder, session_id=SESSION, texts={"test": "1"})
    where = {path: form_of(sato, "engine_integrity", path) for path in ("/line", "/line/panel", "/line/alarms")}
    assert [fields.pop("back") for fields in where.values()] == ["/line", "/line", "/line/alarms"]
    assert where["/line"] == where["/line/panel"] == where["/line/alarms"]
    answer = press(sato, where["/line"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/line")
    assert raised.state("engine_integrity") == "ACKED"
    assert raised.told("alarm_summary")["unacked_count"] == 0
    told = raised.transitions()[-1]
    assert (told["transition"], told["acked_by"]) == ("ack", "sato")
    assert (told["session_id"], told["test"]) == (SESSION, True)  # as the station itself speaks
    was = "engine_integrity UNACK, raise 1"
    assert audited(raised.folder) == [("sato", was, "engine_integrity acknowledged")]
    raised.step(engine_integrity=1.0)  # the running station takes it over
    assert raised.state("engine_integrity") == "ACKED"
    assert "✓ sato" in sato.get("/line/panel").text


def test_it_is_kept_where_no_station_runs(sato: Visit, raised: Raised) -> None:
    fields = form_of(sato, "engine_integrity")
    raised.close()
    assert press(sato, fields).status_code == 303
    started = Raised(raised.folder)
    started.step(engine_integrity=1.0)
    assert started.state("engine_integrity") == "ACKED"
    started.close()


def test_a_raise_that_nobody_saw_is_not_acknowledged(sato: Visit, raised: Raised) -> None:
    fields = form_of(sato, "engine_integrity")
    assert fields["occurrence"] == "1"
    press(sato, fields)
    raised.step(engine_integrity=0.0)
    press(sato, form_of(sato, "engine_integrity"))  # reset
    raised.step(engine_integrity=1.0)
    answer = press(sato, fields)
    assert answer.status_code == 409
    assert "nothing was done" in answer.text
    assert raised.state("engine_integrity") == "UNACK"
    assert [new for _, _, new in audited(raised.folder)] == [
        "engine_integrity acknowledged",
        "engine_integrity reset",
    ]


def test_a_raise_between_looking_and_writing_is_not_acknowledged(
    sato: Visit, raised: Raised, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = form_of(sato, "engine_integrity")
    append = audit.append

    def and_raise_anew(*args: Any) -> Any:
        monkeypatch.setattr(alarm_deed.audit, "append", append)
        raised.step(engine_integrity=0.0)
        with closing(connect(raised.folder.database)) as connection:
            anew = "UPDATE alarm SET json = json_set(json, '$.state', 'UNACK', '$.occurrence', 2) WHERE key = ?"
            connection.execute(anew, ("engine_integrity",))
        return append(*args)

    monkeypatch.setattr(alarm_deed.audit, "append", and_raise_anew)
    assert press(sato, fields).status_code == 409
    (alarm,) = shown_alarms(raised.folder.database)
    assert alarm.is_to_ack
    assert audited(raised.folder)[-1][2] == "not done"


def test_a_latched_alarm_is_acknowledged_and_then_reset(sato: Visit, raised: Raised) -> None:
    raised.step(engine_integrity=0.0)
    assert raised.state("engine_integrity") == "LATCH_UNACK"
    assert press(sato, form_of(sato, "engine_integrity")).status_code == 303
    fields = form_of(sato, "engine_integrity", "/line")
    assert fields["deed"] == "reset"
    assert press(sato, fields).status_code == 303
    assert raised.state("engine_integrity") == "NORM"
    assert "No alarm." in sato.get("/line/alarms").text


def test_an_alarm_is_set_aside_and_brought_back(sato: Visit, raised: Raised) -> None:
    raise_alarms(raised.folder, {"disk_low": "ACKED"})
    fields = form_of(sato, "disk_low")
    assert fields["deed"] == "shelve"
    assert press(sato, fields).status_code == 303
    assert raised.state("disk_low") == "SHELVED"
    (aside,) = shown_alarms(raised.folder.database)
    assert aside.standing.shelved_s == 1800
    assert "Alarms set aside: 1" in sato.get("/line").text
    assert press(sato, form_of(sato, "disk_low")).status_code == 303
    assert raised.state("disk_low") == "UNACK"  # its condition is still there


def test_what_makes_no_sense_changes_nothing(sato: Visit, raised: Raised) -> None:
    fields = form_of(sato, "engine_integrity")  # an alarm that must not be shelved
    wrong = [
        {"alarm": "unknown"},
        {"alarm": "camera_lost"},
        *({"deed": d} for d in ("reset", "shelve", "unshelve")),
    ]
    for changes in wrong:
        assert press(sato, fields, **changes).status_code == 409, changes
    assert press(sato, fields, deed="other").status_code == 422
    assert raised.state("engine_integrity") == "UNACK"
    assert audited(raised.folder) == []


def test_without_the_audit_nothing_is_acknowledged(sato: Visit, raised: Raised) -> None:
    fields = form_of(sato, "engine_integrity")
    raised.folder.key.unlink()
    answer = press(sato, fields)
    assert answer.status_code == 503
    assert raised.state("engine_integrity") == "UNACK"


def test_who_may_not_sees_no_button_and_who_has_not_logged_in_is_asked(
    visit: MakeVisit, raised: Raised
) -> None:
    viewer = visit()
    viewer.log_in("vera")
    assert 'action="/line/alarm"' not in viewer.get("/line").text
    anybody = visit()
    answer = press(anybody, form_of(anybody, "engine_integrity"))
    assert answer.status_code == 401
    assert "Please log in first." in answer.text
    assert raised.state("engine_integrity") == "UNACK"


def test_all_alarms_have_sheets(sato: Visit, folder: StationFolder, raised: Raised) -> None:
    raise_alarms(folder, {alarm.key: "UNACK" for alarm in CATALOGUE})
    texts = [sato.get(f"/line/alarms?sheet={k}").text for k in (1, 2, 9)]
    assert [text.count('value="ack"') for text in texts[:2]] == [12, len(CATALOGUE) - 12]
    assert texts[1].count("2 / 2") == texts[2].count("2 / 2") == 1


def test_a_flood_is_not_over_because_one_alarm_is_acknowledged(sato: Visit, raised: Raised) -> None:
    with closing(connect(raised.folder.database)) as connection:
        sql = "UPDATE state SET body = json_set(body, '$.flood', json('true')) WHERE topic = 'alarm_summary'"
        connection.execute(sql)
    press(sato, form_of(sato, "engine_integrity"))
    assert raised.told("alarm_summary")["flood"] is True
