"""The publisher's process uses the station's database: it makes none, and moves none aside."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kenpin.edge_runtime import database
from kenpin.edge_runtime.database import connect, open_database, require_current
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.vitals import Vitals, read_vitals, write_vitals
from kenpin.errors import StoreError
from tests.edge_runtime.conftest import Workshop, publisher_command
from tests.edge_runtime.publishing_line import FakeEvent

_PAGE = 4096


@pytest.fixture
def start(workshop: Workshop, mosquitto: Any, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Starts the publisher's process of a station."""
    workshop.port = mosquitto.port
    workshop.ready()
    config = workshop.toml(f"folder:{workshop.pictures(10)}")
    made: list[subprocess.Popen[bytes]] = []

    def popen() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            made.append(subprocess.Popen(publisher_command(config), stderr=log))
        return made[-1]

    yield popen
    for process in made:
        process.kill()
        process.wait()


def commit(store: Store) -> int:
    event: Any = FakeEvent()
    (seq,) = store.commit([(Part("p", "cam", "s", 0, 0, Decision(Verdict.NG)), event)])
    return seq


def damage_an_index(path: Path) -> None:
    """One bad page that the station's commits of such parts never come to."""
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sql = "SELECT rootpage FROM sqlite_master WHERE name = 'part_image'"
        (page,) = connection.execute(sql).fetchone()
    with path.open("r+b") as content:
        content.seek((page - 1) * _PAGE)
        content.write(b"\xff" * _PAGE)


def test_the_file_that_a_station_writes_into_stays_where_it_is(
    start: Any, workshop: Workshop, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(workshop.port)
    with closing(Store(workshop.folder.database)) as store:
        commit(store)
        damage_an_index(workshop.folder.database)
        start()
        wait_for(scada.events, "the event of before")
        commit(store)
        wait_for(lambda: scada.first_seqs() == [1, 2], "the next one")
    assert list(workshop.folder.root.glob("*.corrupt-*")) == []


def test_it_waits_for_the_station_and_begins_again_with_a_new_database(
    start: Any, workshop: Workshop, make_subscriber: Any, wait_for: Any, tmp_path: Path
) -> None:
    first, log, path = start(), tmp_path / "log", workshop.folder.database
    wait_for(lambda: "waits for the database" in log.read_text(), "the wait")
    assert not path.exists()
    Store(path).close()
    wait_for(lambda: "publisher" in read_vitals(workshop.folder.run), "the publisher")
    damage_an_index(path)
    with closing(Store(path)) as store:  # the station starts again
        assert list(path.parent.glob("*.corrupt-*"))
        assert first.wait(60) == 0
        assert "has begun a new database" in log.read_text()
        seq = commit(store)
        scada = make_subscriber(workshop.port)
        start()
        wait_for(lambda: len(scada.events()) == 1, "the event")
    assert scada.first_seqs() == [seq]


def test_what_it_says_is_of_the_station_that_runs_now(
    start: Any, workshop: Workshop, make_subscriber: Any, wait_for: Any
) -> None:
    scada = make_subscriber(workshop.port)
    Store(workshop.folder.database).close()
    workshop.folder.run.mkdir(parents=True, exist_ok=True)

    def told() -> tuple[str, bool]:
        newest = [status for status in scada.payloads("status") if status["online"]][-1:]
        return (newest[0]["session_id"], newest[0]["test"]) if newest else ("", False)

    def is_told_at_all() -> bool:
        write_vitals(workshop.folder.run, Vitals(role="station", pid=1, session_id="first"))
        return bool(scada.payloads("status"))

    assert not is_told_at_all()
    start()
    wait_for(is_told_at_all, "the status")
    assert [status["state"] for status in scada.payloads("status")] == ["RUNNING"]
    for session, test in (("first", "0"), ("second", "1")):  # the station was killed in between

        def is_told(session: str = session, test: str = test) -> bool:
            vitals = Vitals(role="station", pid=1, session_id=session, texts={"test": test})
            write_vitals(workshop.folder.run, vitals)
            return told() == (session, test == "1")

        wait_for(is_told, f"the {session} session")


def test_an_older_database_is_not_used_until_the_station_has_brought_it_on(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", database.MIGRATIONS[:4])
        open_database(path).close()
    with pytest.raises(StoreError, match="has not prepared"):
        require_current(path)
    open_database(path).close()
    require_current(path)
