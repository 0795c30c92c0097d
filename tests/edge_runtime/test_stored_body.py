"""Events on disk: shorter than what is published, and whole again when they are."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mqtt_station import bad_part
from kenpin.edge_runtime import database, stored_body
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import open_database, transaction
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.stored_body import fill_in, shorten
from kenpin.errors import StoreError
from kenpin.events import AlarmEvent, Anomaly, Audit, PartResult, Payload, Reply
from tests.test_events import EXAMPLES

COMMON = {"seq": 0, "clock_ok": True, "late": False, "test": False}
PART = {"batch": "", "recipe": "", "defect_class": "", "capture_to_publish_ms": 0.0, "image_ref": ""}
# What lies on the disks of stations leaves these out: another value here would be read into their old events.
DEFAULTS: dict[type[Payload], dict[str, Any]] = {
    Anomaly: {**COMMON, **PART, "image_sha256": "", "area_mm2": 0.0, "mm_calibrated": False},
    PartResult: {**COMMON, **PART, "image_sha256": "", "trigger_id": -1, "reason": "", "cause": ""},
    AlarmEvent: {
        **COMMON,
        **dict.fromkeys(("raised_ms", "acked_ms", "cleared_ms", "shelved_until_ms"), 0),
        "acked_by": "",
    },
    Audit: {
        **COMMON,
        **dict.fromkeys(("old", "new", "reason", "head_sha256"), ""),
        **dict.fromkeys(("entry", "gap_first_seq", "gap_last_seq", "gap_count"), 0),
    },
    Reply: {**COMMON, "reason": "", "message": ""},
}
every_event = pytest.mark.parametrize("model", DEFAULTS)


@every_event
def test_what_a_released_schema_says_by_default_never_changes(model: type[Payload]) -> None:
    fields = {f.alias or name: f for name, f in model.model_fields.items()}
    found = {name: field.default for name, field in fields.items() if not field.is_required()}
    assert found.pop("schema") == f"kenpin.{model.title}.v1"
    assert {n: repr(v) for n, v in found.items()} == {n: repr(v) for n, v in DEFAULTS[model].items()}


@every_event
@pytest.mark.parametrize("clock_ok", [True, False])
def test_an_event_comes_back_whole_and_in_its_order(model: type[Payload], clock_ok: bool) -> None:
    event = model(**{**EXAMPLES[model], "clock_ok": clock_ok})
    body = event.to_json().decode()
    kept = json.loads(shorten(body))
    assert kept["schema"] == f"kenpin.{model.title}.v1"
    assert ("clock_ok" in kept) is not clock_ok
    assert json.dumps(fill_in(shorten(body)), separators=(",", ":")) == body
    assert fill_in(body) == json.loads(body)  # an older version kept all of it


@pytest.mark.parametrize("body", ['{"x":1,"late":false}', '{"schema":"other.v1","late":false}'])
def test_what_is_of_no_known_schema_stays_as_it_is(body: str) -> None:
    assert shorten(body) == body
    assert fill_in(body) == json.loads(body)


def test_an_event_of_a_part_takes_at_most_900_bytes_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    _, event = bad_part(Identity("st-01"))
    with closing(open_database(path)) as connection:
        empty = _size(connection, path)
        with transaction(connection):
            for _ in range(2000):
                Outbox(connection).put(event)
        assert len(event.to_json()) > 850
        assert (_size(connection, path) - empty) / 2000 < 900


def _size(connection: Any, path: Path) -> int:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def test_events_of_the_version_before_are_published_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "station.db"
    body = bad_part(Identity("st-01"))[1].to_json().decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", database.MIGRATIONS[:3])
        with closing(open_database(path)) as old:
            row = "INSERT INTO outbox (created_ms, prio, topic, body, bytes) VALUES (5, 1, ?, ?, 990)"
            old.execute(row, ("event/anomaly", body))
    with closing(open_database(path)) as connection:
        outbox = Outbox(connection)
        with transaction(connection):
            outbox.append("event/anomaly", body)
        before, after = outbox.waiting(after=0, limit=9)
    assert (before.seq, after.seq, len(before.body) > len(after.body)) == (1, 2, True)
    assert list(before.payload(seq=0).items()) == list(after.payload(seq=0).items())


def test_the_version_before_does_not_open_a_file_with_shortened_events(tmp_path: Path) -> None:
    open_database(tmp_path / "station.db").close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", database.MIGRATIONS[:3])
        with pytest.raises(StoreError, match="newer kenpin"):
            open_database(tmp_path / "station.db")


def test_the_schemas_are_those_of_all_payloads() -> None:
    assert set(stored_body._FIELDS) == {model.model_fields["schema_"].default for model in EXAMPLES}
