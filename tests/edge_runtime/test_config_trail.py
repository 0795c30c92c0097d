"""A change of the configuration stands in the audit, from the next start on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from kenpin.audit import Entry, append, audit_file
from kenpin.config import StationConfig
from kenpin.edge_runtime.config_trail import note_config
from kenpin.edge_runtime.station import Station
from kenpin.ledger import lines_of


def config(workshop: Any, **sections: Mapping[str, Any]) -> StationConfig:
    plain = workshop.config("folder:parts").model_dump()
    changed = {name: {**plain[name], **keys} for name, keys in sections.items()}
    return StationConfig.model_validate({**plain, **changed})


def told(workshop: Any) -> list[tuple[str, str]]:
    lines = lines_of(audit_file(workshop.folder))
    return [(line.row["old"], line.row["new"]) for line in lines if line.row["what"] == "configuration"]


def test_what_has_changed_since_the_last_start_is_in_the_audit(workshop: Any) -> None:
    workshop.ready()
    append(workshop.folder, Entry("users", "root", "", "sato: technician"))
    pictures = workshop.pictures(10)
    with Station(workshop.config(f"folder:{pictures}")):
        pass
    assert told(workshop) == []  # nothing is known of before
    changed = workshop.config(f"folder:{pictures}")
    changed = changed.model_copy(
        update={"commands": changed.commands.model_copy(update={"remote_write": True})}
    )
    for _ in range(2):
        with Station(changed):
            pass
    assert told(workshop) == [("commands.remote_write = false", "commands.remote_write = true")]


def test_no_login_of_a_camera_is_kept(workshop: Any) -> None:
    workshop.ready()
    append(workshop.folder, Entry("users", "root", "", "sato: technician"))
    note_config(config(workshop, source={"url": "rtsp://cam/1"}), workshop.folder)
    views = ("rtsp://bob:canary@cam/3?user=bob",)
    moved = config(workshop, source={"url": "rtsp://bob:canary@cam/2", "views": views})
    note_config(moved, workshop.folder)
    assert told(workshop) == [
        (
            'source.url = "rtsp://cam/1", source.views = []',
            'source.url = "rtsp://cam/2", source.views = ["rtsp://cam/3"]',
        )
    ]
    kept = workshop.folder.configuration.read_text() + audit_file(workshop.folder).read_text()
    assert "canary" not in kept


def test_what_cannot_be_written_is_said_and_told_by_the_next_start(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.ready()
    append(workshop.folder, Entry("users", "root", "", "sato: technician"))
    note_config(config(workshop), workshop.folder)
    insecure = config(workshop, mqtt={"insecure": True})
    key = workshop.folder.key.read_bytes()
    workshop.folder.key.unlink()
    with caplog.at_level(logging.WARNING):
        note_config(insecure, workshop.folder)
    assert "is not in the audit" in caplog.text
    workshop.folder.key.write_bytes(key)
    workshop.folder.key.chmod(0o600)
    note_config(insecure, workshop.folder)
    assert told(workshop) == [("mqtt.insecure = false", "mqtt.insecure = true")]


def test_a_damaged_note_is_written_anew(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.configuration.write_text("[")
    note_config(config(workshop), workshop.folder)
    assert workshop.folder.configuration.read_text().startswith("{")


def test_a_key_that_an_older_kenpin_did_not_know_has_not_changed(workshop: Any) -> None:
    workshop.ready()
    append(workshop.folder, Entry("users", "root", "", "sato: technician"))
    note_config(config(workshop), workshop.folder)
    kept = workshop.folder.configuration
    older = {key: value for key, value in json.loads(kept.read_text()).items() if not key.startswith("engine.")}
    kept.write_text(json.dumps(older))
    note_config(config(workshop), workshop.folder)
    assert told(workshop) == []
    note_config(config(workshop, engine={"workspace_mb": 256}), workshop.folder)
    assert told(workshop) == [("engine.workspace_mb = 1024", "engine.workspace_mb = 256")]


def test_what_stays_retained_under_the_topic_of_before_is_told_once(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.ready()
    broker = {"url": "mqtt://127.0.0.1:9"}
    note_config(config(workshop, mqtt=broker, station={"topic": "plant/line1/st1"}), workshop.folder)
    for _ in range(2):
        note_config(config(workshop, mqtt=broker, station={"topic": "plant/line2/st1"}), workshop.folder)
    assert caplog.text.count("mosquitto_sub -t 'plant/line1/st1/#' --remove-retained") == 1
    caplog.clear()
    note_config(config(workshop, mqtt={"url": ""}, station={"topic": "plant/line2/st1"}), workshop.folder)
    note_config(config(workshop, mqtt={"url": ""}, station={"topic": "plant/line3/st1"}), workshop.folder)
    assert not caplog.text
