"""A shift check with a real station: it releases nothing before and meanwhile, and what it scored decides."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from kenpin.calibration.masters_book import add_master, make_master
from kenpin.calibration.web.app import create_app
from kenpin.calibration.web.users import Users
from kenpin.config import WebSection
from kenpin.edge_runtime.station import Station
from kenpin.events import now_ms
from kenpin.masters import read_masters
from kenpin.masters_due import masters_due
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PIN, Visit
from tests.edge_runtime.conftest import Workshop, grey_png

GOOD, BAD = 20, 250


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A station below 100 OK and from 200 on NG, with one master."""
    made = Workshop(tmp_path).ready()
    content = grey_png(BAD)
    master = make_master("M-1", "too bright", "NG", picture=content, suffix=".png")
    add_master(made.folder, master, content, by="sato", why="limit sample")
    Users(made.folder).add("sato", "technician", PIN, by="test")
    return made


def inspect(workshop: Workshop, *brightness: int) -> None:
    with Station(workshop.config(f"folder:{workshop.pictures(*brightness)}")) as station:
        station.run()


def verdicts(folder: StationFolder) -> list[tuple[str, int]]:
    with sqlite3.connect(folder.database) as connection:
        found = connection.execute("SELECT verdict, released FROM part ORDER BY seq").fetchall()
    connection.close()
    return found


def test_a_station_that_is_due_releases_nothing_until_it_was_checked(workshop: Workshop) -> None:
    folder = workshop.folder
    inspect(workshop, GOOD, GOOD)
    browser = Visit(
        create_app(folder, WebSection(), station="st1"), base_url="https://127.0.0.1", follow_redirects=False
    )
    browser.log_in("sato")
    assert browser.submit("/shift/begin").status_code == 303
    inspect(workshop, BAD, GOOD, BAD, GOOD, BAD, GOOD)
    assert 'data-done="yes"' in browser.get("/shift").text
    assert browser.get("/review/small/3.jpg").headers["content-type"] == "image/jpeg"
    assert browser.submit("/shift/end").status_code == 303
    assert verdicts(folder) == [("NO_DECISION", 0)] * 8  # two while it was due, six while it went on
    check = read_masters(folder).last
    assert check is not None
    assert check.passed
    assert [s.verdict for s in check.showings] == ["NG", "OK"] * 3
    assert masters_due(folder, now_ms()) == ""
    inspect(workshop, *[GOOD] * 6)
    assert [verdict for verdict, _ in verdicts(folder)[8:]] == ["OK"] * 6
    assert "Waiting: 2" in browser.get("/review").text  # not those that were shown in the check
