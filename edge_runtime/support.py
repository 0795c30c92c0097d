"""The support dump: what somebody elsewhere needs to see of a station, and nothing that is secret."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import platform
import sqlite3
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kenpin.config import StationConfig
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.doctor import Finding
from kenpin.edge_runtime.source import without_login
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.errors import DataError, StoreError, reason_of
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced

_ROWS = 1000
_MAX_FILE_BYTES = 5_000_000
# Read where they are there: none of them is a secret, and the records are signed.
_FILES = ("calibration.jsonl", "active/manifest.json", "active/card.md")


def write_dump(config: StationConfig, findings: list[Finding], out: Path) -> list[str]:
    """Write a zip.

    Args:
        config: The station's configuration.
        findings: What the doctor found.
        out: The file to write.

    Returns:
        Names in it.

    Raises:
        DataError: It cannot be written.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, make in _parts(config, findings).items():
            archive.writestr(name, _told(make))
        names = archive.namelist()
    try:
        replace_synced(out, content.getvalue(), mode=0o600)
    except OSError as error:
        raise DataError(
            f"the dump cannot be written: {error.strerror}", where=out, cure="give a folder that you may write"
        ) from None
    return names


def _parts(config: StationConfig, findings: list[Finding]) -> Mapping[str, Callable[[], str]]:
    folder = StationFolder(config.station.state_dir)
    parts: dict[str, Callable[[], str]] = {
        "doctor.json": lambda: _json([dataclasses.asdict(finding) for finding in findings]),
        "config.json": lambda: _json(without_secrets(config)),
        "vitals.json": lambda: _json({r: v.model_dump() for r, v in read_vitals(folder.run).items()}),
        "versions.json": lambda: _json(_versions()),
        "parts.jsonl": lambda: "\n".join(_rows(folder, "part")),
        "events.jsonl": lambda: "\n".join(_rows(folder, "outbox")),
    }
    return {**parts, **{f"station/{name}": partial(_tail, folder.root / name) for name in _FILES}}


def without_secrets(config: StationConfig) -> dict[str, Any]:
    """The configuration without the login of a camera's address; other secrets are only paths in it."""
    document = config.model_dump(mode="json")
    source = document["source"]
    source["url"] = without_login(source["url"])
    source["views"] = [without_login(url) for url in source["views"]]
    return document


def _versions() -> dict[str, str]:
    installed = {
        d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]
    }
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        **dict(sorted(installed.items())),
    }


def _rows(folder: StationFolder, table: str) -> Iterator[str]:
    with reading(folder.database) as connection:
        connection.row_factory = sqlite3.Row
        newest = f"SELECT * FROM {table} ORDER BY seq DESC LIMIT {_ROWS}"  # noqa: S608 our own names
        yield from (json.dumps(dict(row)) for row in connection.execute(newest))


def _tail(path: Path) -> str:
    return path.read_bytes()[-_MAX_FILE_BYTES:].decode(errors="replace")


def _told(make: Callable[[], str]) -> str:
    """A part, or why it is not there: a station that needs help lacks something."""
    try:
        return make()
    except (OSError, StoreError) as error:
        return f"not there: {reason_of(error)}"


def _json(document: object) -> str:
    return json.dumps(document, indent=1)
