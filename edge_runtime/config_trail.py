"""The configuration's trail: what has changed since the station's last start, as rows of the audit."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from kenpin.audit import Entry, audit_file
from kenpin.config import SourceSection, StationConfig
from kenpin.edge_runtime.audit_note import note
from kenpin.edge_runtime.source import without_login
from kenpin.errors import reason_and_file
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced

_log = logging.getLogger(__name__)


def note_config(config: StationConfig, folder: StationFolder) -> None:
    """Write down what has changed. The file says not who did it, and a line does not wait for its audit.

    Args:
        config: What the station starts with.
        folder: The station's folder, of which this process is the only user.
    """
    path, now = folder.configuration, _values(config)
    known = _read(path)
    # What an older kenpin did not know stood as it does by default.
    before = {**_values(StationConfig(source=SourceSection(url=""))), **known}
    changed = sorted(key for key in now if now[key] != before[key])
    if known and not changed:
        return
    if known and "station.topic" in changed and before["mqtt.url"]:
        _tell_retained(before["station.topic"])
    if known and audit_file(folder).exists():
        old, new = _in_words(before, changed), _in_words(now, changed)
        if not note(folder, Entry("configuration", "unknown", old, new, "found when the station started")):
            return  # the next start tries again
    try:
        replace_synced(path, json.dumps(now, indent=1).encode())
    except OSError as error:
        _log.warning("What the station started with cannot be written: %s", reason_and_file(error))


def _tell_retained(topic: str) -> None:
    """Say what stays under a topic that the station had. It clears nothing there: another may have it now."""
    _log.warning(
        "The station's topic was %s. Its status and alarms of then stay on the broker, retained. Where no "
        "other station has that topic, clear it with a login that may write there: "
        "mosquitto_sub -t %s --remove-retained -W 3",
        topic,
        quote(f"{topic}/#"),
    )


def _values(config: StationConfig) -> dict[str, Any]:
    """Each value by `section.key`. A login in an address is refused elsewhere, and must not be kept here."""
    values = {
        f"{section}.{key}": value
        for section, keys in config.model_dump(mode="json").items()
        for key, value in keys.items()
    }
    values["source.url"] = without_login(config.source.url)
    values["source.views"] = [without_login(url) for url in config.source.views]
    return values


def _read(path: Path) -> Mapping[str, Any]:
    """What the station started with before; empty where nobody knows."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _in_words(values: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key} = {json.dumps(values[key], ensure_ascii=False)}" for key in keys)
